"""What a person watching a run sees: a bar on a terminal, plain lines in a log."""

import time
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

Say = Callable[[str], None]


class Progress:
    """Shows step, losses, speed and time left, and lets lines of text through without tearing the bar."""

    def __init__(self, steps: int, first_step: int, say: Say) -> None:
        self.steps, self.say = steps, say
        self.val_loss: float | None = None
        self.first_step, self.started = first_step, time.monotonic()
        self.bar = tqdm(
            total=steps, initial=first_step, unit="step", disable=None, dynamic_ncols=True, leave=False
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def advance(self) -> None:
        """One optimizer step is done."""
        self.bar.update()

    def show(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Tell how the training stands."""
        numbers = f"loss {loss:.3f}"
        numbers += "" if self.val_loss is None else f", held out {self.val_loss:.3f}"
        numbers += f", {tokens_per_second:,.0f} tokens/s"
        if self.bar.disable:
            seconds = (time.monotonic() - self.started) / (step - self.first_step) * (self.steps - step)
            left = tqdm.format_interval(seconds)
            self.say(f"step {step:,} of {self.steps:,}: {numbers}, {left} left")
        else:
            self.bar.set_postfix_str(numbers)
