"""The numbers of a run, one JSON object a line in `metrics.jsonl`, and what is made of them.

A line of the training: step, loss, lr, grad_norm, tokens, tokens_per_second, seconds. A line of an
evaluation: step, val_loss, val_bits_per_byte, tokens, seconds. Everything but tokens_per_second and
seconds is on a CPU the same, to the last digit, in a run that was interrupted and one that was not.
"""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from glassgpt.errors import CheckpointError, ConfigError
from glassgpt.storage import explained, write_atomically

METRICS = "metrics.jsonl"

Record = dict[str, int | float]


def read_metrics(run: Path) -> list[Record]:
    """The records of the run folder `run`, oldest first; a last line that is still being written is left out.

    Raises CheckpointError for a line that is not a record.
    """
    path = Path(run) / METRICS
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
            record["step"]
        except (ValueError, KeyError, TypeError) as fault:
            raise CheckpointError(
                f"{path}, line {number} is no record: {line.strip()!r}. Remove the line."
            ) from fault
        records.append(record)
    return records


class MetricsLog:
    """Appends records to a run's metrics, and to TensorBoard where asked.

    The file first loses what lies behind `step`, the one that the run goes on from: those steps are about
    to be done again.
    """

    def __init__(self, run: Path, step: int, tensorboard: bool) -> None:
        self.path = Path(run) / METRICS
        kept = [record for record in read_metrics(run) if record["step"] <= step]
        write_atomically(self.path, "".join(map(_line, kept)), CheckpointError)
        self.board = _tensorboard(Path(run) / "tensorboard", step) if tensorboard else None
        with explained(CheckpointError, self.path):
            self.file = open(self.path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed on exit

    def __enter__(self) -> "MetricsLog":
        return self

    def append(self, record: Record) -> None:
        """Write one record, whole and at once, so that whoever watches the file sees it."""
        with explained(CheckpointError, self.path):
            self.file.write(_line(record))
            self.file.flush()
        if self.board is not None:
            for name, value in record.items():
                if name != "step":
                    self.board.add_scalar(name, value, int(record["step"]))

    def sync(self) -> None:
        """Make sure that what was written survives a power failure; a checkpoint relies on it."""
        with explained(CheckpointError, self.path):
            os.fsync(self.file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        with explained(CheckpointError, self.path):  # a line that a full disk refused is tried once more
            self.file.close()
        if self.board is not None:
            self.board.close()


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as fault:
        raise ConfigError(
            'tensorboard=True needs a package that is not installed. Run: pip install "glassgpt[tensorboard]"'
        ) from fault
    return SummaryWriter(str(folder), purge_step=step + 1)
