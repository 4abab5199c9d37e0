"""One file from the network into its place: whole and checked, or not there."""

import base64
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glassgpt.data.locking import exclusive
from glassgpt.data.patience import Patience
from glassgpt.data.transfer import MAX_REDIRECTS, Broken, Part, Refused, Unreachable, fetch
from glassgpt.errors import DownloadError
from glassgpt.storage import explained, sha256_of, sync_folder

if TYPE_CHECKING:
    import requests


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known of a file before it comes; None where that is not known."""

    n_bytes: int | None = None
    sha256: str | None = None
    problem: Callable[[Path], str | None] | None = None
    """Looks at what is in the file, and says what is wrong with it."""

    def difference(self, path: Path) -> str | None:
        """How the file at `path` differs from the one expected. None: it is that file."""
        n_bytes = path.stat().st_size
        if self.n_bytes not in (None, n_bytes):
            return f"it has {n_bytes:,} bytes, not {self.n_bytes:,}"
        if n_bytes == 0:
            return "it is empty"
        if self.sha256 is not None and (digest := sha256_of(path)) != self.sha256:
            return f"its SHA-256 is {digest}, not {self.sha256}"
        return self.problem(path) if self.problem else None


def download(
    url: str, path: Path, expected: Expected, *, progress: bool = True, patience: Patience | None = None
) -> bool:
    """Have the file of `url` at `path`, where it appears once it is whole. Did it have to be fetched?

    Whole is what is as `expected`, and has the MD5 that the server gives, if it gives one. Such a file is
    kept where it is there already; another is replaced. A download that was interrupted goes on where it
    stopped. Of two processes the second waits, and then finds the file of the first.

    Raises DownloadError, in one line, when the file cannot be had, is not the one expected, or cannot be
    written.
    """
    import requests

    def is_there() -> bool:
        return path.is_file() and expected.difference(path) is None

    with explained(DownloadError, path):
        if is_there():
            return False  # and no lock: a folder that can only be read will do
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
        with exclusive(lock, lambda: _say(path, "another process fetches it; waiting", progress)):
            if is_there():
                return False
            with requests.Session() as session:
                session.max_redirects = MAX_REDIRECTS
                _fetch_patiently(session, url, path, expected, progress, patience or Patience())
            return True


def _fetch_patiently(
    session: "requests.Session", url: str, path: Path, expected: Expected, progress: bool, patience: Patience
) -> None:
    """Try until the file is at `path`, or until there is no sense in another try."""
    part = Part(path)
    n_tries = 0
    while True:
        n_tries += 1
        try:
            went_on = fetch(
                session, url, part, n_bytes=expected.n_bytes, patience=patience, progress=progress
            )
            if difference := _wrong_md5(part) or expected.difference(part.path):
                part.discard()
                # Pieces of different files may have come together: from its beginning it may be right.
                raise Broken(difference) if went_on else Refused(difference)
            return _publish(part, path)
        except Refused as refused:
            raise _failed(url, path, part, str(refused)) from refused
        except Broken as broken:
            asked = broken.asked_seconds
            if n_tries == 1 and isinstance(broken, Unreachable):
                raise _failed(url, path, part, str(broken)) from broken
            if n_tries == patience.n_tries:
                raise _failed(url, path, part, f"{broken}, at the last of {n_tries} tries") from broken
            if asked is not None and asked > patience.longest_asked_seconds:
                reason = f"{broken}, and asks to be left alone for {asked:,.0f} seconds"
                raise _failed(url, path, part, reason) from broken
            wait = patience.wait_seconds(n_tries, asked)
            _say(path, f"{broken}; try {n_tries + 1} of {patience.n_tries} in {wait:.0f} s", progress)
            patience.sleep(wait)


def _say(path: Path, line: str, progress: bool) -> None:
    if progress:
        print(f"{path.name}: {line}", file=sys.stderr)


def _wrong_md5(part: Part) -> str | None:
    """How the MD5 of `part` differs from the one that the server gave, if it gave one."""
    origin = part.origin()
    if origin is None or origin.md5 is None:
        return None
    with open(part.path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
    found = base64.b64encode(digest).decode()
    return None if found == origin.md5 else f"its MD5 is {found}, and the server said {origin.md5}"


def _publish(part: Part, path: Path) -> None:
    with open(part.path, "r+b") as file:  # Windows syncs only what is open for writing
        os.fsync(file.fileno())
    part.become(path)
    sync_folder(path.parent)


def _failed(url: str, path: Path, part: Part, reason: str) -> DownloadError:
    if part.resumable(url, None) is None:
        part.discard()  # it would never be gone on with
        again = "Try again"
    else:
        again = f"Try again (it goes on after the {part.n_bytes:,} bytes that came)"
    return DownloadError(
        f"Cannot download {url}: {reason}. {again}, or put the file at {path} by other means."
    )
