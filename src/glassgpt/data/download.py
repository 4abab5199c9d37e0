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
    url: str,
    path: Path,
    expected: Expected,
    *,
    remedy: str | None = None,
    progress: bool = True,
    patience: Patience | None = None,
) -> bool:
    """Have the file of `url` at `path`, where it appears once it is whole. Did it have to be fetched?

    Whole is what is as `expected`, and has the MD5 that the server gives, if it gives one. Such a file is
    kept where it is there already; another is replaced. A download that was interrupted goes on where it
    stopped. Of two processes the second waits, and then finds the file of the first.

    Raises DownloadError, in one line, when the file cannot be had, is not the one expected, or cannot be
    written. It ends with the `remedy`, which is otherwise to put the file at `path` by other means.
    """
    import requests

    remedy = remedy or f"put the file at {path} by other means"

    def is_there() -> bool:
        return path.is_file() and expected.difference(path) is None

    with explained(DownloadError, path):
        if is_there():
            return False  # and no lock: a folder that can only be read will do
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
        with exclusive(lock, lambda: _say(path.name, "another process fetches it; waiting", progress)):
            if is_there():
                return False
            part = Part(path)
            try:
                with requests.Session() as session:
                    session.max_redirects = MAX_REDIRECTS
                    _fetch_patiently(session, url, part, expected, progress, patience or Patience())
            except Refused as reason:
                raise DownloadError(
                    f"Cannot download {url}: {reason}. {_again(part, url)}, or {remedy}."
                ) from reason
            _publish(part, path)
            return True


def _fetch_patiently(
    session: "requests.Session", url: str, part: Part, expected: Expected, progress: bool, patience: Patience
) -> None:
    """Try until `part` is the whole file. Raises Refused when there is no sense in another try."""
    for n_tries in range(1, patience.n_tries + 1):
        try:
            went_on = fetch(
                session, url, part, n_bytes=expected.n_bytes, patience=patience, progress=progress
            )
            difference = _wrong_md5(part) or expected.difference(part.path)
            if difference is None:
                return
            part.discard()
            # Pieces of different files may have come together: from its beginning it may be right.
            raise Broken(difference) if went_on else Refused(difference)
        except Broken as broken:
            asked = broken.asked_seconds or 0
            if n_tries == 1 and isinstance(broken, Unreachable):
                raise Refused(str(broken)) from broken
            if asked > patience.longest_asked_seconds:
                raise Refused(f"{broken}, and asks to be left alone for {asked:,.0f} seconds") from broken
            if n_tries == patience.n_tries:
                raise Refused(f"{broken}, at the last of {n_tries} tries") from broken
            wait = patience.wait_seconds(n_tries, broken.asked_seconds)
            _say(part.name, f"{broken}; try {n_tries + 1} of {patience.n_tries} in {wait:.1f} s", progress)
            patience.sleep(wait)


def _say(name: str, line: str, progress: bool) -> None:
    if progress:
        print(f"{name}: {line}", file=sys.stderr)


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


def _again(part: Part, url: str) -> str:
    """What another call would do with `part`; one that it could not go on with is removed."""
    if part.resumable(url, None) is None:
        part.discard()
        return "Try again"
    return f"Try again (it goes on after the {part.n_bytes:,} bytes that came)"
