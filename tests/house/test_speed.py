"""README quotes the benchmarks' table, and nothing else, when it says how fast something is."""

import re

import pytest

from tests.house.repository import ROOT

NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


def machines() -> dict[str, str]:
    """What RESULTS.md says of each machine, by its heading."""
    sections = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8").split("\n## ")[1:]
    return {section.partition("\n")[0]: section for section in sections}


def results() -> dict[str, str]:
    """The cells of each row on the machine that README names, by the row's name; a row goes on in lines that
    begin empty."""
    (measured,) = [section for heading, section in machines().items() if heading in speeds_in_readme()]
    rows: dict[str, str] = {}
    name = None
    for line in measured.splitlines():
        if found := re.match(r"\| [^|]*`([\w-]+)` \|(.*)", line):
            name = found[1]
            rows[name] = rows.get(name, "") + found[2]  # the same in other moments comes on lines of its own
        elif name and line.startswith("|  |"):
            rows[name] += line
        elif found := re.match(r"- `([\w-]+)`: (.*)", line):  # what was measured beside
            rows[found[1]] = rows.get(found[1], "") + found[2]
    return rows


def speeds_in_readme() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split("## How fast")[1].split("\n## ")[0]


def quoted() -> list[tuple[str, str]]:
    """The lines of README's table of speeds: the row's name, and the cells with figures."""
    return re.findall(r"^\|[^|]*\|(.*)\| `([\w-]+)` \|$", speeds_in_readme(), flags=re.MULTILINE)


def unmeasured(cells: str, measured: str) -> set[str]:
    """The numbers in `cells` that `measured` does not hold."""
    return set(NUMBER.findall(re.sub(r"`[^`]*`", "", cells))) - set(NUMBER.findall(measured))


def test_the_table_of_speeds_has_rows():
    assert len(quoted()) > 8


@pytest.mark.parametrize(("cells", "name"), quoted(), ids=lambda value: value if " " not in value else "")
def test_each_figure_in_readme_was_measured(cells, name):
    assert unmeasured(cells, results()[name]) == set(), name


def test_a_figure_that_was_not_measured_is_found():
    assert unmeasured("**3.21 s** beside 4.5 s", "| 3.2 (3.1–3.21) | 4.6 |") == {"4.5"}
