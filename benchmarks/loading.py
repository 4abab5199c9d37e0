"""Loading GPT-2 124M from Hugging Face's format, from our model folder and from OpenAI's checkpoint.

The weights are random float32 numbers, the same in all three, and lie in the disk's cache. Ours is
`GPT.from_pretrained`; theirs is `GPT2LMHeadModel.from_pretrained` of transformers, on the same safetensors.
Each measurement has a process of its own in which everything is imported; they take turns, and the figures
are medians.

Both leave weights in the file, mapped, where they can, and a mapped page is fetched when it is first used: so
the time until there are logits of 64 tokens is told, too. Memory is what the process has beyond its imports.
`private` is memory that nobody else can have (RssAnon); `resident` adds those pages of mapped files that were
touched, which the system can take back at any time (the peak while loading, VmHWM). `then` is after the
logits (VmRSS). A row counts only if its logits equal theirs.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _side_by_side import alone, print_machine, print_table, verdict

MODEL_GIGABYTES, LARGEST_GIGABYTES = 124_439_808 * 4 / 1e9, 50_257 * 768 * 4 / 1e9
TOLERANCE = 1e-4  # float32 has 7 digits, and these logits are around 1

THEIRS, SAME = "transformers, safetensors", "ours, the same safetensors"
COLUMNS = {
    "load": "s to load",
    "logits": "s to logits",
    "private": "private GB",
    "peak": "resident GB",
    "private then": "private then",
    "resident then": "resident then",
}


def main() -> int:
    options = read_options()
    print_machine()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        alone(write_folders, folder)
        ways: dict[str, tuple[Callable[[], Any], Path]] = {
            THEIRS: (import_theirs, folder / "huggingface"),
            SAME: (import_ours, folder / "huggingface"),
            "ours, our model folder": (import_ours, folder / "glassgpt"),
            "ours, OpenAI's checkpoint": (import_ours, folder / "openai"),
        }
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
        for _ in range(options.runs + 1):
            for name, way in ways.items():
                runs[name].append(alone(measure, *way))
    return 0 if report({name: taken[1:] for name, taken in runs.items()}) else 1  # the first warms up


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7, help="of each (default: %(default)s)")
    return parser.parse_args()


def write_folders(folder: Path) -> None:
    """The same random weights in three formats."""
    from glassgpt.by_hand.gpt2_stand_in import write_gpt2_checkpoint
    from glassgpt.pretrained import convert

    write_gpt2_checkpoint(folder / "openai", "124M")
    convert(folder / "openai", folder / "glassgpt", "glassgpt")
    convert(folder / "openai", folder / "huggingface", "huggingface")


def import_theirs() -> Callable[[Path], Any]:
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return GPT2LMHeadModel.from_pretrained


def import_ours() -> Callable[[Path], Any]:
    import glassgpt.pretrained.loading  # noqa: F401  (imported on first use otherwise)
    from glassgpt.model import GPT

    return GPT.from_pretrained


def measure(import_loader: Callable[[], Callable[[Path], Any]], folder: Path) -> dict[str, Any]:
    """Load once: the seconds and gigabytes it takes, and some of the logits."""
    import torch

    load = import_loader()
    torch.ones(512, 512) @ torch.ones(512, 512)  # so that threads and their memory are there
    before, started = memory(), time.perf_counter()
    model = load(folder)
    loaded, after = time.perf_counter(), memory()
    with torch.no_grad():
        logits = model(torch.arange(64)[None])
    done, used = time.perf_counter(), memory()
    logits = logits if isinstance(logits, torch.Tensor) else logits.logits
    return {
        "load": loaded - started,
        "logits": done - started,
        "private": after["RssAnon"] - before["RssAnon"],
        "peak": after["VmHWM"] - before["VmRSS"],
        "private then": used["RssAnon"] - before["RssAnon"],
        "resident then": used["VmRSS"] - before["VmRSS"],
        "some": logits[0, :, ::97].tolist(),
    }


def memory() -> dict[str, float]:
    """What Linux says of this process, in 10⁹ bytes; NaN elsewhere."""
    names = ("RssAnon", "VmRSS", "VmHWM")
    if sys.platform != "linux":
        return dict.fromkeys(names, math.nan)
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(fields[name].split()[0]) * 1024 / 1e9 for name in names}


def report(runs: dict[str, list[dict[str, Any]]]) -> bool:
    """Print the table; return whether the logits are equal and the targets were reached."""
    medians = {
        name: {column: statistics.median(run[column] for run in taken) for column in COLUMNS}
        for name, taken in runs.items()
    }
    print_table(
        [f"124M, {MODEL_GIGABYTES:.3f} GB", *COLUMNS.values()],
        [[name, *(f"{row[column]:.3f}" for column in COLUMNS)] for name, row in medians.items()],
    )
    far = max(difference(taken[0]["some"], runs[THEIRS][0]["some"]) for taken in runs.values())
    ours, theirs = medians[SAME], medians[THEIRS]
    limit = MODEL_GIGABYTES + LARGEST_GIGABYTES
    peak = max(row["peak"] for name, row in medians.items() if name != THEIRS)
    return all([
        verdict(f"logits differ by at most {far:.1e}; wanted {TOLERANCE:g}", far <= TOLERANCE),
        verdict(
            f"{ours['load'] / theirs['load']:.2f} × the time of transformers to load; wanted no more",
            ours["load"] <= theirs["load"],
        ),
        verdict(
            f"{ours['logits'] / theirs['logits']:.2f} × its time to logits; wanted no more",
            ours["logits"] <= theirs["logits"],
        ),
        verdict(
            f"{peak:.3f} GB resident at most; wanted {limit:.3f}, the model and its largest tensor",
            peak <= limit,
        ),
    ])  # fmt: skip


def difference(ours: list[list[float]], theirs: list[list[float]]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    sys.exit(main())
