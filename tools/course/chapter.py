"""A chapter: a notebook's cells in order, with what stands in them as text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
COURSE = ROOT / "course"

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SOLUTION = re.compile(r"<details>.*?</details>", re.DOTALL)
_FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Problem:
    """What is wrong in a chapter; `cell` counts from 1, and None means the whole file."""

    cell: int | None
    words: str

    def __str__(self) -> str:
        return self.words if self.cell is None else f"cell {self.cell}: {self.words}"


def read_chapter(path: Path) -> nbformat.NotebookNode:
    """The notebook in `path`, valid by Jupyter's own schema."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def chapter_paths(names: list[str]) -> list[Path]:
    """The chapters whose file names begin with one of `names`, or all; SystemExit for one that is none."""
    every = sorted(COURSE.glob("[0-9][0-9]_*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in every):
            known = ", ".join(path.name[:2] for path in every)
            raise SystemExit(f"There is no chapter {name!r} among the notebooks: {known}.")
    return [path for path in every if not names or path.name.startswith(tuple(names))]


def numbered(notebook: nbformat.NotebookNode) -> Iterator[tuple[int, nbformat.NotebookNode]]:
    return iter(enumerate(notebook.cells, start=1))


def solutions(markdown: str) -> list[str]:
    """The code of the folded solutions in a cell of prose."""
    return [code for folded in _SOLUTION.findall(markdown) for code in _FENCE.findall(folded)]


def without_magic(code: str) -> str:
    """The code of a cell without the lines that are for Jupyter, as `%matplotlib inline`."""
    return re.sub(r"^[%!].*$", "", code, flags=re.MULTILINE)


def without_solutions(markdown: str) -> str:
    return _SOLUTION.sub("", markdown)


def comments(markdown: str) -> list[str]:
    return _COMMENT.findall(markdown)


def headings(markdown: str) -> list[str]:
    """The headings of a cell of prose, with their signs."""
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#{1,6} .+$", prose, re.MULTILINE)


def output_kinds(cell: nbformat.NotebookNode) -> list[str]:
    """What kinds of output a cell has, in a form to compare: `stdout`, `image/png`, …"""
    kinds = {kind for output in cell.get("outputs", []) for kind in _kinds(output)}
    return sorted(kinds)


def output_text(cell: nbformat.NotebookNode) -> str:
    """What a cell has printed and shown, as text; of what it shows as HTML, the words."""
    return "\n".join(_text(output) for output in cell.get("outputs", []))


def _kinds(output: Any) -> list[str]:
    if output.output_type == "stream":
        return [output.name]
    if output.output_type == "error":
        return ["error"]
    return list(output.data)


def _text(output: Any) -> str:
    if output.output_type == "stream":
        return output.text
    data = output.get("data", {})
    return "\n".join([data.get("text/plain", ""), re.sub(r"<[^>]*>", " ", data.get("text/html", ""))])
