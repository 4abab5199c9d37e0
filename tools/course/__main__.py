"""Run the course's notebooks as a reader would, in a new kernel without a network, and check them.

A chapter fails when a cell fails, warns, prints nothing where it should or far too much; when it takes too
long; when its prose quotes a number that its code does not say or print; when it pastes what it could import;
and when it departs from the form that all chapters share. With --write, a chapter that passes is stored with
the outputs of this run. Exit code 1 when a chapter fails.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tools/, where the package `course` lies

from course.chapter import COURSE, ROOT, Problem, chapter_paths, read_chapter
from course.conventions import (
    changed_problems,
    form_problems,
    output_problems,
    size_problems,
    unexecuted_problems,
)
from course.copies import copied_definitions
from course.execution import execute
from course.quoted_numbers import stale_numbers

LIMIT_SECONDS = 180.0


def main(argv: list[str] | None = None) -> int:
    """Run and check the chapters named on the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python tools/course",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("chapters", nargs="*", metavar="NN", help="the chapters' numbers (default: all)")
    parser.add_argument("--write", action="store_true", help="store the outputs of chapters that pass")
    parser.add_argument(
        "--limit-seconds", type=float, default=LIMIT_SECONDS, help="for each chapter (default: %(default)g)"
    )
    arguments = parser.parse_args(argv)
    failed, total = [], 0.0
    for path in chapter_paths(arguments.chapters):
        print(f"course: {path.name} …", flush=True)
        problems, seconds, slowest = check_chapter(path, arguments.limit_seconds, write=arguments.write)
        print(f"    {seconds:.0f} s; longest: {slowest}", flush=True)
        for problem in problems:
            print(f"    {problem}", file=sys.stderr, flush=True)
        total += seconds
        if problems:
            failed.append(path.name)
    print(f"course: {total:.0f} s in all")
    if failed:
        print(f"course: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def check_chapter(path: Path, limit_seconds: float, *, write: bool) -> tuple[list[Problem], float, str]:
    """Run the chapter in `path`; return its problems, its seconds and the cells that took longest.

    With `write`, a chapter without problems is stored with the outputs of this run; else the stored outputs
    are held to those of the run, too.
    """
    stored = read_chapter(path)
    problems = [*form_problems(path, stored), *copied_definitions(path, stored)]
    run = execute(stored, COURSE, limit_seconds)
    fresh = run.kept()
    problems += run.problems
    if not run.problems:
        problems += output_problems(run.notebook, private_words())
        problems += stale_numbers(run.notebook)
        if not write:
            problems += [
                *unexecuted_problems(stored),
                *changed_problems(stored, fresh),
                *size_problems(path.stat().st_size),
            ]
    if run.seconds > limit_seconds:
        problems.append(Problem(None, f"takes {run.seconds:.0f} seconds; {limit_seconds:.0f} at most"))
    if write and not problems:
        text = nbformat.writes(tidied(fresh)) + "\n"
        problems += size_problems(len(text.encode("utf-8")))
        if not problems:
            path.write_text(text, encoding="utf-8")
    longest = sorted(run.cell_seconds.items(), key=lambda item: -item[1])[:4]
    return problems, run.seconds, ", ".join(f"cell {number} {seconds:.1f} s" for number, seconds in longest)


def tidied(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without what differs from run to run and from one Python to the next."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:03d}"
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("metadata", {}).pop("needs_background", None)  # pictures fit light and dark pages
    return notebook


def private_words() -> list[str]:
    """What would show in an output that it was made on this machine."""
    return [str(ROOT), str(Path.home()) + "/", tempfile.gettempdir() + "/"]


if __name__ == "__main__":
    sys.exit(main())
