"""Functions and classes that stand in a chapter and, all but the same, somewhere else."""

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat

from course.chapter import COURSE, ROOT, Problem, numbered, read_chapter, without_magic

SHORTEST = 5  # lines, the docstring aside: below that, there are not two ways to write it
LIKENESS = 0.8  # the share of lines in common from which on it is a copy


@dataclass(frozen=True)
class Definition:
    """A function or a class, its code without docstrings, comments and formatting."""

    name: str
    place: str
    lines: tuple[str, ...]
    cell: int = 0


def copied_definitions(path: Path, notebook: nbformat.NotebookNode) -> list[Problem]:
    """What the chapter in `path` pastes from the library or from another chapter."""
    known = [*library_definitions(), *other_chapters(path)]
    return [
        Problem(mine.cell, f"{mine.name} is a copy of {other.name} in {other.place}; import it")
        for mine in chapter_definitions(path, notebook)
        for other in known
        if alike(mine.lines, other.lines)
    ]


def alike(mine: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two definitions share most of their lines."""
    matcher = difflib.SequenceMatcher(None, mine[1:], other[1:], autojunk=False)
    return (
        matcher.real_quick_ratio() >= LIKENESS
        and matcher.quick_ratio() >= LIKENESS
        and matcher.ratio() >= LIKENESS
    )


@cache
def library_definitions() -> tuple[Definition, ...]:
    """Everything defined in the library, but for its twins by hand, which chapters build anew."""
    files = [path for path in sorted((ROOT / "src").rglob("*.py")) if "by_hand" not in path.parts]
    return tuple(found for path in files for found in _file_definitions(path))


def other_chapters(path: Path) -> list[Definition]:
    """Everything defined in the chapters but that in `path`."""
    others = [other for other in sorted(COURSE.glob("[0-9][0-9]_*")) if other.name != path.name]
    found: list[Definition] = []
    for other in others:
        if other.suffix == ".py":
            found += _file_definitions(other)
        elif other.suffix == ".ipynb":
            found += chapter_definitions(other, read_chapter(other))
    return found


def chapter_definitions(path: Path, notebook: nbformat.NotebookNode) -> list[Definition]:
    """Everything defined in a notebook's cells."""
    return [
        found
        for number, cell in numbered(notebook)
        if cell.cell_type == "code"
        for found in definitions(cell.source, path.name, number)
    ]


def definitions(source: str, place: str, cell: int = 0) -> Iterator[Definition]:
    """The functions and classes in `source` that are long enough to be recognised, methods included."""
    for node in ast.walk(ast.parse(without_magic(source))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            _drop_docstrings(node)
            lines = tuple(line.strip() for line in ast.unparse(node).splitlines() if line.strip())
            if len(lines) >= SHORTEST:
                yield Definition(node.name, place, lines, cell)


def _file_definitions(path: Path) -> list[Definition]:
    return list(definitions(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))))


def _drop_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
