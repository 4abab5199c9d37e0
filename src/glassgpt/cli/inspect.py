"""`glassgpt inspect FOLDER`: the tensors of a checkpoint, and which of our weights each fills."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from glassgpt.cli.parsing import parse
from glassgpt.errors import ConfigError

if TYPE_CHECKING:
    from glassgpt.pretrained.stored import StoredModel
    from glassgpt.pretrained.summary import TensorSummary

ABOUT = """\
Show the tensors of a model in any format: names, shapes, dtypes, statistics, and the weight of our GPT that
each one fills; then how many parameters each part has. One tensor at a time is in memory.

Examples:
  glassgpt inspect gpt2                            GPT-2 124M, once it has been downloaded
  glassgpt inspect runs/demo                       the newest checkpoint of a run
  glassgpt inspect runs/demo --plot weights.png    how the weights are spread, layer by layer
"""


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What to look at."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """A model or run folder, one in Hugging Face's format or OpenAI's, a .pt file, or gpt2, gpt2-medium, …"""
    plot: Path | None = None
    """Draw the weights' spread by layer into this file, .png, .svg or .pdf."""

    def __post_init__(self) -> None:
        if self.plot is None:
            return
        if self.plot.suffix.lower() not in (".png", ".svg", ".pdf"):
            raise ConfigError(f"Cannot draw {self.plot}. End it in .png, .svg or .pdf.")
        if not self.plot.parent.is_dir():
            raise ConfigError(
                f"Cannot write {self.plot}: there is no folder {self.plot.parent}. Make it first."
            )
        if self.plot.is_dir():
            raise ConfigError(f"Cannot write {self.plot}: it is a folder. Name a file in it.")


def run(arguments: list[str]) -> int:
    """Parse `arguments`, show, and return the exit code."""
    options = parse(InspectOptions, arguments, word="inspect", about=ABOUT)

    from glassgpt.pretrained.loading import open_model
    from glassgpt.pretrained.summary import summarise

    stored = open_model(options.folder)
    tensors = list(summarise(stored))
    print(describe(stored, tensors))
    if options.plot is not None:
        from glassgpt.pretrained.weight_plot import plot_weights

        plot_weights(tensors, options.plot, options.folder)
        print(f"\nThe picture is {options.plot}.")
    return 0


def describe(stored: "StoredModel", tensors: Sequence["TensorSummary"]) -> str:
    """The table of all tensors, and the parameters by part."""
    from glassgpt.pretrained.summary import count_by_part

    rows: list[tuple[str, ...]] = [("tensor", "shape", "dtype", "mean", "std", "min", "max", "fills")]
    for tensor in tensors:
        numbers = (tensor.mean, tensor.std, tensor.lowest, tensor.highest)
        shape = " × ".join(map(str, tensor.shape)) or "1"
        fills = "the same, as it is" if tensor.fills == tensor.name else tensor.fills or "nothing"
        rows.append((tensor.name, shape, tensor.dtype, *(f"{number:.4f}" for number in numbers), fills))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{stored.weights.path}, a model in the format {stored.format}", ""]
    for row in rows:
        cells = [
            cell.rjust(width) if 3 <= i <= 6 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    counts = count_by_part(tensors)
    total = sum(counts.values())
    lines.append("")
    for part, count in counts.items():
        if count:
            lines.append(f"  {part:<14}{count:>15,}  {count / total:6.1%}")
    lines.append(f"  {'numbers':<14}{total:>15,}")
    return "\n".join(lines)
