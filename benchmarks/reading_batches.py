"""Batches from a file of 1 GB, beside the loop of slices that everybody writes.

The file counts: the token at place p is p mod 65,521, so that a batch shows where it was read.
"""

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.processes import seconds
from benchmarks.rows import OURS, AtMost, Check, Ratio, Row, Setting, Side, Taken
from benchmarks.training import SMALL, train_ours

B, T = 12, 256
PRIME = 65_521  # the largest below 2¹⁶
N_TOKENS, N_TOKENS_QUICK = 2**29, 2**22
SHARE = "% of a step of train-10m"


def shard(setting: Setting) -> Path:
    return setting.folder / "counting.bin"


def write_shard(setting: Setting) -> None:
    import numpy as np

    n_tokens = N_TOKENS_QUICK if setting.quick else N_TOKENS
    period = np.arange(PRIME, dtype="<u2")
    with open(shard(setting), "wb") as file:
        for _ in range(n_tokens // PRIME):
            period.tofile(file)


def read_ours(setting: Setting) -> Taken:
    """And what share of a training step it is."""
    taken = timed_ours(setting)
    speeds = train_ours(SMALL, B, T, 3, 0.0, setting).values  # tokens/s
    step_seconds = B * T / statistics.median(speeds)
    share = 100 / statistics.median(taken.values) / step_seconds
    return Taken(taken.values, taken.output, {SHARE: share})


def timed_ours(setting: Setting) -> Taken:
    import numpy as np

    from glassgpt.data import Batches

    tokens = np.memmap(shard(setting), dtype="<u2", mode="r")
    batches = Batches(tokens, context_length=T, micro_batch_size=B, vocab_size=PRIME)
    return timed(batches.batch, setting)


def read_slices(setting: Setting) -> Taken:
    """As nanoGPT reads them; the file is mapped once, which is faster than for every batch."""
    import numpy as np
    import torch

    tokens = np.memmap(shard(setting), dtype="<u2", mode="r")

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.randint(len(tokens) - T, (B,)).tolist()
        x = torch.stack([torch.from_numpy(tokens[s : s + T].astype(np.int64)) for s in starts])
        y = torch.stack([torch.from_numpy(tokens[s + 1 : s + 1 + T].astype(np.int64)) for s in starts])
        return x, y

    return timed(batch, setting)


def timed(batch: Callable[[int], tuple[Any, Any]], setting: Setting) -> Taken:
    """Batches/s, five times; 5,000 batches touch 60 MB in all corners of the file."""
    n_batches = 50 if setting.quick else 5000

    def read(first: int) -> None:
        for step in range(first, first + n_batches):
            batch(step)

    read(0)
    speeds = [n_batches / seconds(partial(read, time * n_batches)) for time in range(1, 6)]
    shown = [[part.tolist() for part in batch(step)] for step in range(20)]
    return Taken(speeds, output=shown)


def check_places(setting: Setting, outputs: Mapping[str, Any]) -> Check:
    """Every row is T places of the file in a row, and its targets are one place further."""
    wrong = {
        name: sum(not is_window(row, targets) for x, y in shown for row, targets in zip(x, y, strict=True))
        for name, shown in outputs.items()
    }
    differing = len({row[0] for x, _ in outputs[OURS] for row in x})
    return Check(
        not any(wrong.values()),
        f"in 20 batches of each, every row is {T} neighbouring tokens of the file and its targets lie one "
        f"place further; ours begin at {differing} different places.",
    )


def is_window(row: list[int], targets: list[int]) -> bool:
    expected = [(row[0] + place) % PRIME for place in range(T + 1)]
    return row == expected[:-1] and targets == expected[1:]


ROWS = [
    Row(
        name="batches",
        what=f"batches of {B} × {T} from a 1 GB file",
        unit="batches/s",
        how="token ids and targets as int64 tensors, from a mapped file in the disk's cache.",
        sides=(Side(OURS, read_ours), Side("loop of slices", read_slices)),
        check=check_places,
        goals=(Ratio(beside=("loop of slices",), at_least=10.0), AtMost(at_most=0.5, of=SHARE)),
        prepare=write_shard,
        rounds=2,
    )
]
