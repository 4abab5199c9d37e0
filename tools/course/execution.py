"""A chapter run from its first cell to its last, in a new kernel without a network."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from course.chapter import Problem, solutions

NO_NETWORK = Path(__file__).resolve().parent / "no_network"
SOLUTION = "solution"  # the tag of the cells that are executed but not kept


@dataclass(frozen=True)
class Run:
    """A chapter as it came out: its cells with their outputs, those of the solutions included."""

    notebook: nbformat.NotebookNode
    seconds: float
    cell_seconds: dict[int, float]  # by the cell's number in the file; a solution counts to its exercise
    problems: list[Problem]

    def kept(self) -> nbformat.NotebookNode:
        """The chapter without the solutions' cells, as it is stored."""
        cells = [cell for cell in self.notebook.cells if not is_solution(cell)]
        return nbformat.from_dict({**self.notebook, "cells": cells})


def execute(notebook: nbformat.NotebookNode, folder: Path, limit_seconds: float) -> Run:
    """Run `notebook` in `folder`, and each folded solution where its exercise stands.

    What fails is told as a problem, and nothing after it is run.
    """
    laid_out, numbers = _with_solutions(notebook)
    began: dict[int, float] = {}
    took: dict[int, float] = {}

    def begin(cell: nbformat.NotebookNode, cell_index: int) -> None:
        began[cell_index] = time.monotonic()

    def end(cell: nbformat.NotebookNode, cell_index: int, **_: object) -> None:
        number = numbers[cell_index]
        took[number] = took.get(number, 0.0) + time.monotonic() - began[cell_index]

    start = time.monotonic()
    client = NotebookClient(
        laid_out,
        timeout_func=lambda cell: max(1, round(start + limit_seconds - time.monotonic())),  # what is left
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # it warns of listening on this machine
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,
        record_timing=False,
        on_cell_execute=begin,
        on_cell_executed=end,
    )
    problems = []
    try:
        client.execute(env={**os.environ, "PYTHONPATH": _python_path(), "PYTHONHASHSEED": "0"})
    except CellExecutionError as error:
        number = numbers[max(began)]
        problems.append(Problem(number, f"fails: {error.ename}: {error.evalue}\n{_last_lines(error)}"))
    except CellTimeoutError:
        problems.append(Problem(numbers[max(began)], f"is where {limit_seconds:.0f} seconds are over"))
    except DeadKernelError:
        problems.append(Problem(numbers[max(began)] if began else None, "kills the kernel: memory?"))
    return Run(laid_out, time.monotonic() - start, took, problems)


def is_solution(cell: nbformat.NotebookNode) -> bool:
    return SOLUTION in cell.metadata.get("tags", [])


def _with_solutions(notebook: nbformat.NotebookNode) -> tuple[nbformat.NotebookNode, list[int]]:
    """A copy without outputs and with a cell for each solution; and the number in the file of each cell."""
    cells, numbers = [], []
    for number, cell in enumerate(notebook.cells, start=1):
        copy = nbformat.from_dict(dict(cell))
        if copy.cell_type == "code":
            copy.update(outputs=[], execution_count=None)
        cells.append(copy)
        numbers.append(number)
        for code in solutions(cell.source) if cell.cell_type == "markdown" else []:
            cells.append(nbformat.v4.new_code_cell(code, metadata={"tags": [SOLUTION]}))
            numbers.append(number)
    return nbformat.from_dict({**notebook, "cells": cells}), numbers


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(NO_NETWORK), os.environ.get("PYTHONPATH")]))


def _last_lines(error: CellExecutionError) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback)
    return "\n".join("    " + line for line in plain.strip().splitlines()[-25:])
