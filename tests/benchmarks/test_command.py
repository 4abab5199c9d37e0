"""python -m benchmarks: what it measures, keeps and says."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks import __main__ as command
from benchmarks import running
from benchmarks.catalogue import ROWS
from benchmarks.limits import LIMITS, READ
from benchmarks.processes import alone
from benchmarks.results import read_results
from benchmarks.rows import Ratio, Setting, Side, Taken
from tests.benchmarks.measured import MACHINE, make_row, seven
from tests.house.repository import ROOT


@pytest.fixture
def measuring(monkeypatch):
    """Run rows in this process, on a machine that is made up."""
    answers = {command.describe_machine: dict(MACHINE), command.measure_limits: dict.fromkeys(LIMITS, 100.0)}
    monkeypatch.setattr(command, "alone", lambda function, *_: answers[function])
    monkeypatch.setattr(running, "alone", lambda function, *arguments: function(*arguments))

    def measure(rows, *arguments):
        monkeypatch.setattr(command, "ROWS", rows)
        return command.main(list(arguments))

    return measure


def fails(setting: Setting) -> Taken:
    raise OSError("no room\nand more")


def other_text(setting: Setting) -> Taken:
    return Taken([5.0], output="another text")


def test_an_unknown_row_is_one_message_and_exit_code_2(capsys):
    assert command.main(["decode-flot32", "help"]) == 2

    assert capsys.readouterr().err == (
        "benchmarks: there is no row 'decode-flot32'. Did you mean decode-float32? "
        "All rows: python -m benchmarks --list\n"
    )


def test_the_list_names_every_row_and_its_peers(capsys):
    assert command.main(["--list"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [row.name for row in ROWS]
    assert all(side.name in line for row, line in zip(ROWS, lines, strict=True) for side in row.sides[1:])


def test_a_pattern_chooses_the_rows_that_fit_it():
    assert [row.name for row in command.chosen(["train-*", "help"])] == ["train-124m", "train-10m", "help"]


def test_no_rounds_at_all_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--rounds", "0"])

    assert "--rounds 0 must be at least 1" in capsys.readouterr().err


def test_everybody_takes_turns_and_every_round_is_kept(measuring, tmp_path, capsys):
    assert measuring([make_row("peer", rounds=2)], "--out", str(tmp_path)) == 0

    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("work: round")]
    assert [line.split(", ")[1].split(":")[0] for line in said] == ["ours", "peer", "ours", "peer"]
    (found,) = read_results(tmp_path / "results.json")["machines"].values()
    assert found["rows"]["work"]["sides"]["peer"] == {
        "values": [7.0, 7.0],
        "beside": {"peak GB": [2.0, 2.0]},
        "note": "",
    }
    assert "some work `work`" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert len(list(tmp_path.glob("*.svg"))) == 1


def test_only_the_rows_that_were_asked_for_are_replaced(measuring, tmp_path):
    rows = [make_row(name="one"), make_row(name="other")]
    measuring(rows, "--out", str(tmp_path))
    slower = [replace(row, sides=(Side("ours", other_text),)) for row in rows]

    measuring(slower, "other", "--out", str(tmp_path))

    (found,) = read_results(tmp_path / "results.json")["machines"].values()
    values = {name: row["sides"]["ours"]["values"][0] for name, row in found["rows"].items()}
    assert values == {"one": 7.0, "other": 5.0}


def test_a_peer_that_is_not_installed_is_told_and_does_not_stop_the_run(measuring, tmp_path, capsys):
    row = make_row("peer")
    row = replace(row, sides=(row.sides[0], Side("peer", fails, "no_such_package", "no-such-package")))

    assert measuring([row], "--out", str(tmp_path)) == 0

    assert "peer: not installed: pip install no-such-package" in capsys.readouterr().out


def test_a_peer_that_fails_is_told_with_its_reason(measuring, tmp_path, capsys):
    row = make_row("peer")
    row = replace(row, sides=(row.sides[0], Side("peer", fails)))

    assert measuring([row], "--out", str(tmp_path)) == 0

    assert "peer: failed: OSError: no room\n" in capsys.readouterr().out


def test_a_row_in_which_ours_fails_keeps_what_it_had_and_the_others_go_on(measuring, tmp_path, capsys):
    rows = [make_row(name="one"), make_row(name="other")]
    measuring(rows, "--out", str(tmp_path))
    broken = [replace(rows[0], sides=(Side("ours", fails),)), rows[1]]

    assert measuring(broken, "--out", str(tmp_path)) == 1

    said = capsys.readouterr()
    assert "no room" in said.err
    assert "failed, or outputs disagree: one\n" in said.out
    (found,) = read_results(tmp_path / "results.json")["machines"].values()
    assert found["rows"]["one"]["sides"]["ours"]["values"] == [7.0] * 3


def test_outputs_that_differ_are_exit_code_1(measuring, tmp_path, capsys):
    row = make_row("peer")
    row = replace(row, sides=(row.sides[0], Side("peer", other_text)))

    assert measuring([row], "--out", str(tmp_path)) == 1

    assert "work: DISAGREE: compared as strings." in capsys.readouterr().out


def test_rows_for_a_gpu_wait_for_one(measuring, tmp_path, capsys):
    rows = [make_row(name="on-cpu"), make_row(name="on-gpu", device="cuda")]
    measuring(rows, "--out", str(tmp_path))
    assert "on-gpu" not in capsys.readouterr().out

    measuring(rows, "on-gpu", "--out", str(tmp_path))

    assert "on-gpu: needs a CUDA GPU, and PyTorch finds none here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "devices"), [([], ["cuda"]), (["on-cpu"], ["cpu"]), (["on-*"], ["cpu", "cuda"])]
)
def test_only_those_limits_are_measured_that_rows_are_held_to(
    names, devices, measuring, tmp_path, monkeypatch
):
    measured = []

    def alone(function, *arguments):
        if function is command.describe_machine:
            return {**MACHINE, "gpu": "GPU 11"}
        measured.append(arguments[1])
        return {READ: 100.0}

    monkeypatch.setattr(command, "alone", alone)
    rows = [make_row(name="on-cpu"), make_row(name="on-gpu", device="cuda")]
    assert measuring(rows, *names, "--out", str(tmp_path)) == 0
    assert measured == devices


def test_a_row_that_cannot_be_measured_here_says_what_it_needs(measuring, tmp_path, capsys):
    assert measuring([make_row(unable=lambda: "needs a text. Get one.")], "--out", str(tmp_path)) == 0

    assert "work: needs a text. Get one." in capsys.readouterr().out


def test_each_measurement_has_a_process_of_its_own():
    assert alone(os.getpid) != os.getpid()


def test_a_quick_run_measures_from_end_to_end_and_keeps_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "help", "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "limit: float32 products" in done.stdout
    assert "glassgpt --help `help`" in done.stdout
    assert "nothing is kept" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_whole(row):
    names = [side.name for side in row.sides]
    goals = [goal for goal in row.goals if isinstance(goal, Ratio)]

    assert names[0] == "ours"
    assert len(set(names)) == len(names)
    assert {peer for goal in goals for peer in goal.beside} <= set(names[1:])
    assert row.bound is None or row.bound.limit in LIMITS
    assert row.unit in ("s", "tokens/s", "MB/s", "batches/s", "perplexity", "GB")
    assert len({found.name for found in ROWS if found.name == row.name}) == 1
    pickle.dumps([row.check, row.prepare, *(side.measure for side in row.sides)])  # they travel to processes


def test_the_small_row_of_these_tests_measures_what_it_says():
    assert seven(Setting(ROOT)).values == [7.0]
