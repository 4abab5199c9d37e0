"""Loading GPT-2 124M: from our folder, from Hugging Face's format and from OpenAI's checkpoint.

The weights are random float32 numbers, the same in all three, and lie in the disk's cache. Both libraries
leave weights in the file, mapped, where they can, and a mapped page is fetched when it is first used: so the
time until there are logits of 64 tokens is told, too. Memory is what the process has beyond its imports:
`private` is what nobody else can have (RssAnon); `resident` adds those pages of mapped files that were
touched, which the system can take back at any time (the peak while loading, VmHWM, and what is left behind
the logits, VmRSS).

Weights in fewer bits are made from those of a file: how long that takes, and the memory it saves, is a row of
its own.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rows import OURS, AtMost, Check, Ratio, Row, Setting, Side, Taken

if TYPE_CHECKING:
    from glassgpt.decoding.quantization import Quantization

TOLERANCE = 1e-4  # float32 has 7 digits, and these logits are around 1
ROUNDED_TOLERANCE = 0.1
MODEL_GIGABYTES, LARGEST_GIGABYTES = 124_439_808 * 4 / 1e9, 50_257 * 768 * 4 / 1e9
PEAK, BEHIND = "GB resident at the peak", "GB resident behind the logits"


def write_folders(setting: Setting) -> None:
    """The same random weights in three formats, unless another row has written them."""
    from glassgpt.by_hand.gpt2_stand_in import write_gpt2_checkpoint
    from glassgpt.pretrained import convert

    if not folder(setting, "huggingface").is_dir():
        write_gpt2_checkpoint(folder(setting, "openai"), "124M")
        convert(folder(setting, "openai"), folder(setting, "glassgpt"), "glassgpt")
        convert(folder(setting, "openai"), folder(setting, "huggingface"), "huggingface")


def folder(setting: Setting, kind: str) -> Path:
    return setting.folder / f"stand-in-{kind}"


def load_theirs(setting: Setting) -> Taken:
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return measure(GPT2LMHeadModel.from_pretrained, folder(setting, "huggingface"))


def load_ours(kind: str, setting: Setting) -> Taken:
    import glassgpt.pretrained.loading  # noqa: F401  (imported on first use otherwise)
    from glassgpt.model import GPT

    return measure(GPT.from_pretrained, folder(setting, kind))


def memory_behind(take: Callable[[Setting], Taken], setting: Setting) -> Taken:
    """What `take` has measured, as memory."""
    taken = take(setting)
    return Taken([taken.beside.pop(BEHIND)], output=taken.output, beside=taken.beside)


def load_and_quantize(to: "Quantization", setting: Setting) -> Taken:
    import glassgpt.pretrained.loading  # noqa: F401
    from glassgpt.decoding import quantize
    from glassgpt.model import GPT

    return measure(lambda source: quantize(GPT.from_pretrained(source), to), folder(setting, "huggingface"))


def measure(load: Callable[[Path], Any], source: Path) -> Taken:
    """Load once, in a process in which everything is imported, and compute some logits."""
    import torch

    torch.ones(512, 512) @ torch.ones(512, 512)  # so that threads and their memory are there
    before, started = memory(), time.perf_counter()
    model = load(source)
    loaded, after = time.perf_counter(), memory()
    with torch.no_grad():
        logits = model(torch.arange(64)[None])
    done, behind = time.perf_counter(), memory()
    logits = logits if isinstance(logits, torch.Tensor) else logits.logits
    return Taken(
        [loaded - started],
        output=logits[0, :, ::97].tolist(),
        beside={
            "s to logits": done - started,
            "GB private": after["RssAnon"] - before["RssAnon"],
            PEAK: after["VmHWM"] - before["VmRSS"],
            BEHIND: behind["VmRSS"] - before["VmRSS"],
        },
    )


def memory() -> dict[str, float]:
    """What Linux says of this process, in 10⁹ bytes; NaN elsewhere."""
    names = ("RssAnon", "VmRSS", "VmHWM")
    if sys.platform != "linux":
        return dict.fromkeys(names, math.nan)
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(fields[name].split()[0]) * 1024 / 1e9 for name in names}


def check_logits(setting: Setting, outputs: Mapping[str, Any], allowed: float = TOLERANCE) -> Check:
    ours = outputs[OURS]
    far = max((difference(ours, theirs) for theirs in outputs.values()), default=0.0)
    return Check(
        far <= allowed, f"logits of 64 tokens differ from theirs by {far:.1e} (allowed {allowed:g})."
    )


def difference(ours: list[list[float]], theirs: list[list[float]]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True))


def row(kind: str, what: str, how: str, **more: Any) -> Row:
    return Row(
        name=f"load-{kind}",
        what=f"load 124M from {what}",
        unit="s",
        how=f"{how} transformers loads Hugging Face's format in each of these rows.",
        sides=(
            Side(OURS, partial(load_ours, kind)),
            Side("transformers", load_theirs, "transformers"),
        ),
        check=check_logits,
        prepare=write_folders,
        rounds=3,
        **more,
    )


SMALL_ENOUGH = AtMost(at_most=MODEL_GIGABYTES + LARGEST_GIGABYTES, of=PEAK)

ROWS = [
    row(
        "glassgpt",
        "our folder",
        "GPT.from_pretrained, with every file verified.",
        goals=(AtMost(at_most=0.3), SMALL_ENOUGH),
    ),
    row(
        "huggingface",
        "Hugging Face's format",
        "GPT.from_pretrained on the very same file.",
        goals=(Ratio(beside=("transformers",), at_least=1.0), SMALL_ENOUGH),
    ),
    row(
        "openai",
        "OpenAI's checkpoint",
        "GPT.from_pretrained, every tensor's CRC-32C verified.",
        goals=(Ratio(beside=("transformers",), at_least=1.0), SMALL_ENOUGH),
    ),
    Row(
        name="int8-memory",
        what="memory with 124M from Hugging Face's format, weights rounded to int8",
        unit="GB",
        how="Resident behind 64 tokens' logits, beyond what imports take; rounding counts in their time.",
        sides=tuple(
            Side(name, partial(memory_behind, take), package)
            for name, take, package in (
                (OURS, partial(load_and_quantize, "int8"), None),
                ("ours, bfloat16", partial(load_and_quantize, "bfloat16"), None),
                ("ours, float32", partial(load_ours, "huggingface"), None),
                ("transformers, float32", load_theirs, "transformers"),
            )
        ),
        check=partial(check_logits, allowed=ROUNDED_TOLERANCE),
        prepare=write_folders,
        rounds=3,
        unable=lambda: None if sys.platform == "linux" else "needs Linux, which says what is resident",
    ),
]
