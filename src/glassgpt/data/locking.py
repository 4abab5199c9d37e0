"""One process at a time: a lock file that the operating system looks after."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def exclusive(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock on the file `path`; call `on_wait` once, and wait, while another process holds it.

    The system gives the lock back when its owner ends, however that ends: what a killed process leaves
    behind is a file that nobody holds. Raises OSError where `path` cannot be written or locked.
    """
    file = _held(path, on_wait)
    try:
        yield
    finally:
        if sys.platform == "win32":
            file.close()
            with contextlib.suppress(OSError):  # open files cannot be removed there: the next owner's now
                path.unlink()
        else:
            path.unlink(missing_ok=True)
            file.close()


def _held(path: Path, on_wait: Callable[[], None]) -> BinaryIO:
    while True:
        file = open(path, "a+b")  # noqa: SIM115 - closed by the owner
        try:
            if not _try_lock(file):
                on_wait()
                _wait_for_lock(file)
            # Its last owner removes the file: what was waited for may be a file without a name.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass  # removed between the two questions above: the same case
        except BaseException:
            file.close()
            raise
        file.close()


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: BinaryIO) -> bool:
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _wait_for_lock(file: BinaryIO) -> None:
        while not _try_lock(file):
            time.sleep(0.1)

else:
    import fcntl

    def _try_lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait_for_lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
