"""How long one waits for an import and for --help.

`import glassgpt` beside `import torch`, which it does without until something is used; then with the model,
training and generation asked for, in a process that has PyTorch already. `glassgpt --help` as typed in a
terminal, beside a Python that does nothing. Medians over --runs fresh processes; the first of each fills the
disk's cache and is not counted.
"""

import argparse
import statistics
import subprocess
import sys
import time

from _side_by_side import print_machine, print_table, verdict

IMPORT_TARGET_SECONDS, HELP_TARGET_SECONDS = 0.3, 1.0

TIMED = "import time; {before}; started = time.perf_counter(); {timed}; print(time.perf_counter() - started)"
EVERYTHING = (
    "from glassgpt import GPT; from glassgpt.training import train; from glassgpt.generation import generate"
)


def main() -> int:
    options = read_options()
    print_machine()
    seconds = {
        "import torch": import_seconds("pass", "import torch", options.runs),
        "import glassgpt": import_seconds("pass", "import glassgpt", options.runs),
        "GPT, train, generate, after torch": import_seconds("import torch", EVERYTHING, options.runs),
        "python -c pass": command_seconds(["-c", "pass"], options.runs),
        "glassgpt --help": command_seconds(["-m", "glassgpt.cli.main", "--help"], options.runs),
    }
    print_table(["", "seconds"], [[name, f"{value:.3f}"] for name, value in seconds.items()])
    beyond = seconds["GPT, train, generate, after torch"]
    reached = [
        verdict(
            f"{beyond:.2f} s beyond torch; wanted {IMPORT_TARGET_SECONDS} s", beyond < IMPORT_TARGET_SECONDS
        ),
        verdict(
            f"--help in {seconds['glassgpt --help']:.2f} s; wanted {HELP_TARGET_SECONDS:g} s",
            seconds["glassgpt --help"] < HELP_TARGET_SECONDS,
        ),
    ]
    return 0 if all(reached) else 1


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="processes of each kind (default: %(default)s)")
    return parser.parse_args()


def import_seconds(before: str, timed: str, runs: int) -> float:
    """What a fresh Python measures around `timed`."""
    code = TIMED.format(before=before, timed=timed)
    output = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(runs + 1)]
    return statistics.median(float(line) for line in output[1:])


def command_seconds(arguments: list[str], runs: int) -> float:
    """From the start of a Python with `arguments` to its end."""
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    sys.exit(main())
