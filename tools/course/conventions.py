"""What every chapter looks like: its sections, prose between code, short cells, quiet outputs."""

import ast
from pathlib import Path

import nbformat

from course.chapter import (
    Problem,
    headings,
    numbered,
    output_kinds,
    output_text,
    solutions,
    without_magic,
)

LAST_SECTIONS = ["## Exercises", "## What we now know"]
EXERCISES = range(4, 7)
LONGEST_CELL, WIDEST_LINE, LONGEST_OUTPUT = 24, 100, 30
LARGEST_BYTES = 1_500_000


def form_problems(path: Path, notebook: nbformat.NotebookNode) -> list[Problem]:
    """What in the chapter's form departs from the conventions; nothing is executed."""
    problems = [*_section_problems(path, notebook), *_exercise_problems(notebook)]
    before = None
    for number, cell in numbered(notebook):
        if cell.cell_type == "code":
            if before == "code":
                problems.append(Problem(number, "follows code; prose stands between two cells of code"))
            problems += [Problem(number, words) for words in _code_problems(cell.source)]
        before = cell.cell_type
    return problems


def output_problems(notebook: nbformat.NotebookNode, private: list[str]) -> list[Problem]:
    """What in the outputs no reader should see; `private` are words of the machine, such as folders."""
    problems = []
    for number, cell in numbered(notebook):
        if cell.cell_type != "code":
            continue
        kinds, text = output_kinds(cell), output_text(cell)
        if "stderr" in kinds:
            problems.append(Problem(number, f"warns or writes to stderr: {_stderr(cell)[:300]}"))
        if "error" in kinds:
            problems.append(Problem(number, "ends in an error"))
        if not kinds and prints(cell.source):
            problems.append(Problem(number, "prints or shows something, but has no output"))
        n_lines = max((text.count("\n") for text in _texts(cell)), default=0)
        if n_lines > LONGEST_OUTPUT:
            problems.append(Problem(number, f"prints {n_lines} lines; {LONGEST_OUTPUT} at most"))
        problems += [Problem(number, f"shows {word}, this machine's") for word in private if word in text]
    return problems


def size_problems(n_bytes: int) -> list[Problem]:
    """What is wrong with a notebook's file of so many bytes."""
    if n_bytes < LARGEST_BYTES:
        return []
    return [Problem(None, f"has {n_bytes:,} bytes; {LARGEST_BYTES:,} at most")]


def unexecuted_problems(notebook: nbformat.NotebookNode) -> list[Problem]:
    """The cells that were stored without having been run."""
    return [
        Problem(number, "was stored without having been run")
        for number, cell in numbered(notebook)
        if cell.cell_type == "code" and cell.execution_count is None
    ]


def changed_problems(stored: nbformat.NotebookNode, fresh: nbformat.NotebookNode) -> list[Problem]:
    """The cells whose stored output is of another kind than what they give now."""
    problems = []
    for (number, old), (_, new) in zip(numbered(stored), numbered(fresh), strict=True):
        if old.cell_type == "code" and output_kinds(old) != output_kinds(new):
            was, now = (", ".join(output_kinds(cell)) or "nothing" for cell in (old, new))
            problems.append(Problem(number, f"gives {now}, where {was} is stored"))
    return problems


def prints(source: str) -> bool:
    """Whether the code, outside of functions and classes, calls `print`, `display` or `show`."""
    waiting: list[ast.AST] = [ast.parse(without_magic(source))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("print", "display", "show"):
                return True
        waiting += ast.iter_child_nodes(node)
    return False


def _section_problems(path: Path, notebook: nbformat.NotebookNode) -> list[Problem]:
    found = [
        line
        for _, cell in numbered(notebook)
        if cell.cell_type == "markdown"
        for line in headings(cell.source)
    ]
    title = f"# {path.name[:2]}. "
    problems = []
    if not found or not found[0].startswith(title):
        problems.append(Problem(1, f"does not begin with a heading {title!r} and the chapter's name"))
    if sum(line.startswith("# ") for line in found) > 1:
        problems.append(Problem(None, "has more than one heading of the first level"))
    sections = [line for line in found if line.startswith("## ")]
    if sections[-2:] != LAST_SECTIONS:
        problems.append(Problem(None, f"does not end with the sections {' and '.join(LAST_SECTIONS)}"))
    return problems


def _exercise_problems(notebook: nbformat.NotebookNode) -> list[Problem]:
    problems, titles, section = [], [], ""
    for number, cell in numbered(notebook):
        if cell.cell_type != "markdown":
            continue
        for line in headings(cell.source):
            section = line if line.startswith("## ") else section
            if section == "## Exercises" and line.startswith("### "):
                titles.append(line)
                if len(solutions(cell.source)) == 0:
                    problems.append(Problem(number, f"has no folded solution with code for {line!r}"))
        problems += [
            Problem(number, "has a solution that asserts nothing")
            for code in solutions(cell.source)
            if not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code)))
            and "assert_close" not in code
        ]
    if len(titles) not in EXERCISES:
        problems.append(Problem(None, f"has {len(titles)} exercises; four to six"))
    if [line.split()[1] for line in titles] != [f"{n}." for n in range(1, len(titles) + 1)]:
        problems.append(Problem(None, "does not number its exercises ### 1., ### 2., …"))
    return problems


def _code_problems(source: str) -> list[str]:
    lines = source.splitlines()
    problems = []
    if not source.strip():
        problems.append("is empty")
    if len(lines) > LONGEST_CELL:
        problems.append(f"has {len(lines)} lines of code; {LONGEST_CELL} at most")
    problems += [f"has a line of {len(line)} characters" for line in lines if len(line) > WIDEST_LINE]
    return problems


def _texts(cell: nbformat.NotebookNode) -> list[str]:
    streams = [output.text for output in cell.outputs if output.output_type == "stream"]
    return streams + [output.data.get("text/plain", "") for output in cell.outputs if "data" in output]


def _stderr(cell: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.get("name") == "stderr")
