"""How long one waits for an import and for --help, in fresh processes whose files the disk's cache holds."""

import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.processes import seconds
from benchmarks.rows import OURS, AtMost, Check, Row, Setting, Side, Taken

TIMED = "import time; {before}; started = time.perf_counter(); {timed}; print(time.perf_counter() - started)"
EVERYTHING = (
    "from glassgpt import GPT; from glassgpt.training import train; from glassgpt.generation import generate"
)


def time_import(before: str, timed: str, setting: Setting) -> Taken:
    """What fresh Pythons measure around `timed`; the first fills the disk's cache."""
    command = [sys.executable, "-c", TIMED.format(before=before, timed=timed)]
    times = [float(subprocess.check_output(command, text=True)) for _ in range(4)]
    return Taken(times[1:], output=timed)


def time_command(arguments: list[str], setting: Setting) -> Taken:
    """From the start of a Python with `arguments` to its end."""
    output: list[str] = []

    def run() -> None:
        output.append(subprocess.check_output([sys.executable, *arguments], text=True))

    times = [seconds(run) for _ in range(4)]
    return Taken(times[1:], output=output[-1])


def check_import(setting: Setting, outputs: Mapping[str, Any]) -> Check:
    return Check(outputs[OURS] == EVERYTHING, "the names are there; nobody else imports them.")


def check_help(setting: Setting, outputs: Mapping[str, Any]) -> Check:
    words = ("train", "generate", "prepare")
    return Check(
        all(word in outputs[OURS] for word in words),
        f"the help names {', '.join(words)}; Python prints nothing.",
    )


ROWS = [
    Row(
        name="import",
        what="import model, training and generation, PyTorch being there",
        unit="s",
        how="for comparison: what importing PyTorch takes.",
        sides=(
            Side(OURS, partial(time_import, "import torch", EVERYTHING)),
            Side("import torch", partial(time_import, "pass", "import torch")),
        ),
        check=check_import,
        goals=(AtMost(at_most=0.3),),
        rounds=2,
    ),
    Row(
        name="help",
        what="glassgpt --help",
        unit="s",
        how="the whole process, beside a Python that does nothing.",
        sides=(
            Side(OURS, partial(time_command, ["-m", "glassgpt.cli.main", "--help"])),
            Side("python -c pass", partial(time_command, ["-c", "pass"])),
        ),
        check=check_help,
        goals=(AtMost(at_most=1.0),),
        rounds=2,
    ),
]
