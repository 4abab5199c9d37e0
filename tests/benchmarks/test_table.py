"""results.json, RESULTS.md and the picture."""

from xml.etree import ElementTree

import pytest

from benchmarks.__main__ import HERE, draw_results
from benchmarks.catalogue import ROWS
from benchmarks.judging import Reading
from benchmarks.limits import READ
from benchmarks.picture import draw
from benchmarks.results import add_row, read_results, write_results
from benchmarks.rows import Bound, Ratio
from benchmarks.table import render, table_lines
from glassgpt.errors import DataError
from tests.benchmarks.measured import MACHINE, make_measured, make_row

NOTHING = {"format": 1, "machines": {}}


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_peer_has_a_line_and_the_first_says_what_ours_did():
    row = make_row(
        "one",
        "other",
        goals=(Ratio(beside=("one",), at_least=2.0, aim=9.0),),
        bound=Bound(READ, 3e9, "bytes"),
    )
    measured = make_measured(limits={READ: 210e9}, ours=[34.0, 35.0, 36.0], one=[5.0], other=[10.0])

    lines = table_lines([Reading(row, measured)])[2:]

    assert [cells(line) for line in lines] == [
        [
            "some work `work`",
            "**35.0 (34.0–36.0) tokens/s**",
            "one: 5.00 (5.00–5.00)",
            "7.00 ×",
            "at least 2 × one: reached<br>aim 9 × one: **missed**",
            "50% of memory read 210 GB/s",
        ],
        ["", "", "other: 10.0 (10.0–10.0)", "3.50 ×", "", ""],
    ]


def test_a_peer_that_is_not_installed_is_named_with_the_remedy():
    measured = make_measured(ours=[35.0], peer="not installed: pip install peer")

    line = table_lines([Reading(make_row("peer"), measured)])[2]

    assert cells(line)[2:4] == ["peer: not installed: pip install peer", ""]


def test_a_peer_that_joined_a_row_later_is_said_to_be_unmeasured():
    line = table_lines([Reading(make_row("peer"), make_measured(ours=[35.0]))])[2]

    assert cells(line)[2] == "peer: not measured yet"


def test_a_row_whose_outputs_differ_shows_no_ratio_and_says_so_twice():
    measured = make_measured(agrees=False, ours=[35.0], peer=[5.0])
    results = add_row(NOTHING, MACHINE, "work", measured)

    text = render(results, [make_row("peer")], {"Processor 7, SSE9, 3 cores": "p.svg"})

    assert "the outputs differ: does not count" in text
    assert "**Do not agree**: compared as strings." in text
    assert "7.00 ×" not in text


def test_every_line_of_the_table_has_as_many_cells_as_its_head():
    measured = make_measured(ours=[35.0], peer="failed: a | b")

    lines = table_lines([Reading(make_row("peer", what="a | b"), measured)])

    assert {line.count("|") for line in lines} == {7}


def test_a_row_measured_again_replaces_itself_and_no_other():
    first = add_row(NOTHING, MACHINE, "one", make_measured(ours=[2.0]))
    both = add_row(first, MACHINE, "other", make_measured(ours=[3.0]))

    again = add_row(both, MACHINE, "one", make_measured(ours=[5.0]))

    rows = again["machines"]["Processor 7, SSE9, 3 cores"]["rows"]
    assert {name: row["sides"]["ours"]["values"] for name, row in rows.items()} == {
        "one": [5.0],
        "other": [3.0],
    }
    assert first["machines"]["Processor 7, SSE9, 3 cores"]["rows"].keys() == {"one"}


@pytest.mark.parametrize(
    "other", [{"cpu": "Processor 11"}, {"instructions": "SSE3"}, {"cores": 5}, {"gpu": "Card 13"}]
)
def test_rows_of_two_machines_stand_under_two_headings(other):
    results = add_row(NOTHING, MACHINE, "work", make_measured(ours=[2.0]))
    results = add_row(results, {**MACHINE, **other}, "work", make_measured(ours=[3.0]))
    pictures = dict.fromkeys(results["machines"], "p.svg")

    text = render(results, [make_row()], pictures)

    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == list(results["machines"])
    assert len(headings) == 2


def test_the_machine_is_described_with_limits_threads_and_versions():
    results = add_row(NOTHING, MACHINE, "one", make_measured(limits={READ: 45.3e9}, ours=[2.0]))
    other = make_measured(limits={READ: 47.1e9}, ours=[2.0])
    other["versions"] = {"peer": "5.4"}
    results = add_row(results, MACHINE, "other", other)

    text = render(
        results, [make_row(name="one"), make_row(name="other")], {"Processor 7, SSE9, 3 cores": "p.svg"}
    )

    for said in [
        "11 GB of memory, System 5; it multiplies bfloat16 itself",
        "3 threads for PyTorch",
        "Python 3.13.2, torch 2.17.0, peer 5.3 and 5.4",
        "memory read 45.3–47.1 GB/s",
    ]:
        assert said in text


def test_rows_without_figures_are_named():
    results = add_row(NOTHING, MACHINE, "one", make_measured(ours=[2.0]))
    rows = [make_row(name="one"), make_row(name="other"), make_row(name="third", device="cuda")]

    text = render(results, rows, {"Processor 7, SSE9, 3 cores": "p.svg"})

    assert "\nNot measured on this machine: `other`, `third` (needs a CUDA GPU).\n" in text


def test_results_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "results.json"
    results = add_row(NOTHING, MACHINE, "work", make_measured(ours=[2.5]))

    write_results(results, path)

    assert read_results(path) == results
    assert read_results(tmp_path / "none.json") == NOTHING


def test_results_in_another_format_are_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"format": 7}')

    with pytest.raises(DataError, match="has format 7, and this reads 1"):
        read_results(path)


def test_the_picture_shows_every_ratio_that_counts_and_fits_a_page():
    row = make_row("one", "other", goals=(Ratio(beside=("one",), at_least=2.0),))
    right = Reading(row, make_measured(ours=[35.0], one=[5.0], other="not installed"))
    wrong = Reading(row, make_measured(agrees=False, ours=[44.0], one=[4.0]))

    svg = draw([right, wrong])

    texts = [
        "".join(node.itertext()) for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")
    ]
    assert [text for text in texts if "×" in text] == ["7.00 ×"]
    assert "work · one" in texts
    assert len(svg) < 200_000


def test_the_same_results_draw_the_same_picture():
    reading = Reading(make_row("peer"), make_measured(ours=[35.0], peer=[5.0]))

    assert draw([reading]) == draw([reading])


def test_the_document_in_the_repository_is_drawn_from_its_results(tmp_path):
    if not (HERE / "results.json").is_file():
        pytest.skip("needs benchmarks/results.json, which make bench writes")

    draw_results(read_results(HERE / "results.json"), tmp_path)

    assert (tmp_path / "RESULTS.md").read_text(encoding="utf-8") == (HERE / "RESULTS.md").read_text(
        encoding="utf-8"
    ), "RESULTS.md is not what results.json says: python -m benchmarks --draw"
    assert {path.name for path in tmp_path.glob("*.svg")} == {path.name for path in HERE.glob("*.svg")}
    assert all(path.stat().st_size < 200_000 for path in HERE.glob("*.svg"))


def test_the_rows_can_all_be_drawn_with_every_peer_missing():
    results = NOTHING
    for row in ROWS:
        values = {side.name: [3.0] if side is row.sides[0] else "not installed" for side in row.sides}
        measured = make_measured(**values)
        beside = {goal.of: [1.0] for goal in row.goals if getattr(goal, "of", None)}
        measured["sides"][row.sides[0].name]["beside"] = beside
        results = add_row(results, MACHINE, row.name, measured)

    text = render(results, ROWS, {"Processor 7, SSE9, 3 cores": "p.svg"})

    assert all(f"`{row.name}`" in text for row in ROWS)
