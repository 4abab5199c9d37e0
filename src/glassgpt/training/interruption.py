"""Ctrl-C as a wish: the loop finishes its step and saves before it stops."""

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """While the block runs, the first Ctrl-C or SIGTERM sets `requested`; a second raises KeyboardInterrupt.

    Outside the main thread, where Python delivers no signals, it only ever stays False.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # print() may be what was interrupted, and must not be entered twice.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _WORDS)


_WORDS = b"\nStopping: this step is finished and saved first. Once more stops at once, unsaved.\n"
