"""The numbers in a chapter's prose, each held to what the chapter's code says or has printed.

Looked at are numbers with a decimal point, a thousands separator or a percent sign, and whole numbers from
20 on; not years, not digits that belong to a word (GPT-2, 124M), not code, formulas or addresses. Such a
number stands in the code of the chapter, or was printed above it in the same section; in the last two
sections, anywhere in the chapter. It may be rounded; after "about" and its like, 10% are forgiven. What comes
from elsewhere is named in a comment in the same cell: `<!-- from elsewhere: 1.6 (GB, Google's file) -->`.
"""

import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

import nbformat

from course.chapter import (
    Problem,
    comments,
    headings,
    numbered,
    output_text,
    solutions,
    without_solutions,
)
from course.conventions import LAST_SECTIONS
from course.execution import is_solution

SMALLEST = 20  # whole numbers below it are as good as words
FORGIVEN = 0.10
YEARS = range(1900, 2100)

_QUOTED = re.compile(
    r"(?P<about>\b(?:about|around|roughly|nearly|almost|some|approximately)\s+|[≈~]\s*)?"
    r"(?:(?<![\w.,/^§\-])|(?<=[\s(]-))"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"(?P<unit>\s?%|\s?per cent|\s(?:thousand|million|billion|kB|MB|GB|KiB|MiB|GiB)\b)?"
    r"(?![\w^/])",
    re.IGNORECASE,
)
_PRINTED = re.compile(r"(?<![\w.])\d[\d,_]*(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)
_STRINGS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}  # from Python 3.12 on
_SCALES = {
    "thousand": 1e3, "million": 1e6, "billion": 1e9,
    "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30,
}  # fmt: skip
_NOT_PROSE = [
    r"^(`{3,}|~{3,}).*?^\1", r"<!--.*?-->", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$\n]+\$", r"\]\([^)]*\)",
    r"<[^>]*>", r"https?://\S+", r"arXiv:\S+", r"§\s?[\d.]*\d", r"^#{1,6} [^\n]*$", r"^ *\d+\. ",
]  # fmt: skip


@dataclass(frozen=True)
class Quoted:
    """A number as the prose gives it."""

    words: str
    value: float
    half_a_digit: float  # what rounding to the digits given can take away
    unit: str
    about: bool


def stale_numbers(notebook: nbformat.NotebookNode) -> list[Problem]:
    """The quoted numbers that nothing in the chapter bears out, `notebook` being as it came out of a run."""
    in_code = [number for cell in notebook.cells for number in _in_code(cell)]
    printed: list[float] = []  # in this section
    everywhere: list[float] = []
    problems, section, number = [], "", 0
    for _, cell in numbered(notebook):
        number += not is_solution(cell)
        if cell.cell_type == "code":
            fresh = numbers_in(output_text(cell))
            printed += fresh
            everywhere += fresh
            continue
        for line in headings(cell.source):
            if line.startswith("## "):
                section, printed = line, []
        known = in_code + _from_elsewhere(cell.source) + (everywhere if section in LAST_SECTIONS else printed)
        problems += [
            Problem(
                number,
                f"quotes {quoted.words.strip()!r}, which the code neither says nor prints above",
            )
            for quoted in quoted_numbers(without_solutions(cell.source))
            if not any(bears_out(value, quoted) for value in known)
        ]
    return problems


def quoted_numbers(markdown: str) -> list[Quoted]:
    """The numbers in a cell of prose that are looked at."""
    for pattern in _NOT_PROSE:
        markdown = re.sub(pattern, " · ", markdown, flags=re.DOTALL | re.MULTILINE)
    return list(_quoted(markdown))


def numbers_in(text: str) -> list[float]:
    """Every number that a cell has printed."""
    return [float(re.sub("[,_]+$|[,_]", "", found)) for found in _PRINTED.findall(text)]


def bears_out(value: float, quoted: Quoted) -> bool:
    """Whether the number `value` is what the prose quotes: as it is, in its unit, or per cent."""
    unit = quoted.unit.strip().lower()
    for candidate in (
        value,
        value / _SCALES.get(unit, 1.0),
        value * (100 if unit in ("%", "per cent") else 1),
    ):
        allowed = quoted.half_a_digit * (1 + 1e-9)
        if quoted.about:
            allowed = max(allowed, FORGIVEN * abs(candidate))
        if abs(candidate - quoted.value) <= allowed:
            return True
    return False


def _quoted(prose: str) -> Iterator[Quoted]:
    for found in _QUOTED.finditer(prose):
        digits, unit = found["digits"], found["unit"] or ""
        value = float(digits.replace(",", ""))
        whole = "." not in digits
        if whole and "," not in digits and not unit and (value < SMALLEST or value in YEARS):
            continue
        n_decimals = 0 if whole else len(digits.split(".")[1])
        yield Quoted(found[0], value, 0.5 * 10.0**-n_decimals, unit, found["about"] is not None)


def _in_code(cell: nbformat.NotebookNode) -> list[float]:
    """The numbers written in a cell's code, or in that of its solutions."""
    codes = [cell.source] if cell.cell_type == "code" else solutions(cell.source)
    found = []
    for code in codes:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.NUMBER and not token.string.lower().startswith(("0x", "0b", "0o")):
                found.append(float(token.string.rstrip("jJ").replace("_", "")))
            elif token.type in _STRINGS:
                found += numbers_in(token.string)
    return found


def _from_elsewhere(markdown: str) -> list[float]:
    said = [comment for comment in comments(markdown) if comment.startswith("<!-- from elsewhere:")]
    return [number for comment in said for number in numbers_in(comment)]
