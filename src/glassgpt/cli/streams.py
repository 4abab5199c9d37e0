"""Standard input, output and error as a shell may leave them: closed, read by nobody, short of characters."""

import io
import os
import sys
from typing import TextIO

from glassgpt.errors import DataError


def settle() -> None:
    """Make the three streams fit to be used: what is closed takes everything and gives an error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - lives as long as we
    if sys.stdin is None:
        sys.stdin = _Closed()
    if isinstance(sys.stdout, io.TextIOWrapper):  # standard error never fails at a character
        sys.stdout.reconfigure(errors="replace")


class _Closed(io.TextIOBase):
    """Standard input that was closed, for whoever wants to read it."""

    @property
    def buffer(self) -> io.BufferedReader:
        raise DataError('Standard input is closed. Send it a text, as in "cat FILE | glassgpt …".')


def drop(stream: TextIO) -> None:
    """Let go what `stream`, which cannot be written any more, still holds and all that follows."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def complain(line: str) -> None:
    """Print `line` to standard error, if anybody reads it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        drop(sys.stderr)


def say(line: str = "") -> None:
    """Print `line`, clear of a progress bar, for work that goes on when its words cannot be written.

    The reader may have left, as `head` does; the disk that takes them may be full.
    """
    from tqdm import tqdm

    try:
        tqdm.write(line)
        sys.stdout.flush()
    except OSError as fault:
        drop(sys.stdout)
        complain(f"Standard output takes no more: {fault.strerror}. The work goes on.")
