"""The bytes of one file from a server, in as many pieces as it takes.

What has come of `NAME` lies in `.NAME.part`, and `.NAME.part.json` says which file of which server it is
a part of: its length and its validator, the ETag or the date of its last change. The next try asks for
the rest by Range, and If-Range has a server whose file has changed send the new one whole (RFC 9110
§13.1.5 and §14). Nothing here has the file's own name yet: see `download`.
"""

import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glassgpt.data.patience import Patience, asked_wait_seconds
from glassgpt.data.progress import byte_bar

if TYPE_CHECKING:
    import requests

BLOCK_BYTES = 1 << 18
MAX_REDIRECTS = 5
PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that another try may not meet


class Broken(Exception):
    """A try that failed where another may not, after `asked_seconds` if the server asked for them."""

    def __init__(self, reason: str, asked_seconds: float | None = None):
        super().__init__(reason)
        self.asked_seconds = asked_seconds


class Unreachable(Broken):
    """No server was there to answer."""


class Refused(Exception):
    """What the server sent is not the file, and another try would get the same."""


@dataclass(frozen=True)
class Origin:
    """The file that a part is a part of, as its server described it."""

    url: str
    validator: str | None
    n_bytes: int | None
    md5: str | None
    """In base64, as the server sends it."""


class Part:
    """What has come so far of the file that will be `path`."""

    def __init__(self, path: Path):
        self.name = path.name
        self.path = path.with_name(f".{path.name}.part")
        self._note = path.with_name(f".{path.name}.part.json")

    @property
    def n_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def origin(self) -> Origin | None:
        """Where it came from. None: nobody knows, and it cannot be gone on with."""
        try:
            return Origin(**json.loads(self._note.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def resumable(self, url: str, n_bytes: int | None) -> Origin | None:
        """Its origin, when the rest of it can be asked for at `url`."""
        origin = self.origin()
        if origin is None or origin.url != url or origin.validator is None or origin.n_bytes is None:
            return None
        if n_bytes not in (None, origin.n_bytes) or not 0 < self.n_bytes <= origin.n_bytes:
            return None
        return origin

    def begin(self, origin: Origin) -> None:
        """Empty it, and note what it will be a part of."""
        self.discard()
        self.path.touch()
        self._note.write_text(json.dumps(asdict(origin)), encoding="utf-8")

    def discard(self) -> None:
        """Remove it. The note goes first: bytes without a note are never gone on with."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def become(self, path: Path) -> None:
        """Give it the name `path`."""
        self.path.replace(path)
        self._note.unlink(missing_ok=True)


def fetch(
    session: "requests.Session",
    url: str,
    part: Part,
    *,
    n_bytes: int | None,
    patience: Patience,
    progress: bool,
) -> bool:
    """Try once to bring `part` to the end of the file at `url`. Was there a beginning that it went on with?

    Raises Broken (what came is kept where it can be gone on with), Refused, or OSError when the part
    cannot be written.
    """
    import requests
    import urllib3

    faults = (requests.RequestException, urllib3.exceptions.HTTPError)
    origin = part.resumable(url, n_bytes)
    n_before = part.n_bytes if origin else 0
    if origin and n_before == origin.n_bytes:
        return True  # all of it came, and the process ended before it was checked
    # Identity: what is counted and hashed is the file itself, not a compressed form of it.
    headers = {"Accept-Encoding": "identity"}
    if origin and origin.validator:
        headers |= {"Range": f"bytes={n_before}-", "If-Range": origin.validator}
    try:
        answer = session.get(url, headers=headers, stream=True, timeout=patience.stall_seconds)
    except (*faults, ValueError) as fault:  # ValueError: an address that is none
        raise _explained(fault, patience) from fault
    try:
        with answer:
            _check_answer(answer, part, resuming=origin is not None)
            if origin and answer.status_code == 206:
                _check_continuation(answer, part, origin, n_before)
            else:
                n_before = 0
                origin = _described(answer, url, n_bytes)
                part.begin(origin)
            _check_space(part, origin.n_bytes)
            _receive(answer, part, origin.n_bytes, patience, progress)
    except faults as fault:
        raise _explained(fault, patience) from fault
    return n_before > 0


def _check_answer(answer: "requests.Response", part: Part, *, resuming: bool) -> None:
    """Is this an answer that can hold the file?"""
    said = f"the server answers {answer.status_code} {answer.reason}".rstrip()
    if answer.status_code in PASSING:
        raise Broken(said, asked_wait_seconds(answer.headers.get("Retry-After")))
    if answer.status_code == 416:
        part.discard()
        raise Broken(said)
    if answer.status_code != 200 and not (answer.status_code == 206 and resuming):
        raise Refused(said)
    hops = [hop.url for hop in [*answer.history, answer]]
    if hops[0].startswith("https:") and not all(hop.startswith("https:") for hop in hops):
        raise Refused("it redirects from https to a connection that proves nothing")
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise Refused(f"it comes compressed ({encoding}), which was not asked for")
    if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise Refused("a web page comes in its place, perhaps from the login of this network")


def _check_continuation(answer: "requests.Response", part: Part, origin: Origin, n_before: int) -> None:
    """Does this go on where `part` ends, and in the same file?"""
    said = answer.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", said)
    if _validator(answer) not in (None, origin.validator):
        problem = "the file has changed on the server since the last try"
    elif match is None or int(match[1]) != n_before or match[2] not in ("*", str(origin.n_bytes)):
        problem = f"the rest from byte {n_before:,} was asked for, and the server sends {said!r}"
    else:
        return
    part.discard()
    raise Broken(problem)


def _described(answer: "requests.Response", url: str, n_bytes: int | None) -> Origin:
    """The file that a whole answer says it holds."""
    chunked = "chunked" in answer.headers.get("Transfer-Encoding", "").lower()
    length = answer.headers.get("Content-Length", "")
    announced = int(length) if length.isdecimal() and not chunked else None
    if announced is None and n_bytes is None and not chunked:
        raise Refused("the server does not say how long it is, so a part could pass for the whole")
    if None not in (n_bytes, announced) and announced != n_bytes:
        raise Refused(f"the server has {announced:,} bytes for it, not {n_bytes:,}")
    headers = answer.headers
    md5 = headers.get("Content-MD5") or headers.get("x-ms-blob-content-md5")
    return Origin(url, _validator(answer), announced if n_bytes is None else n_bytes, md5)


def _validator(answer: "requests.Response") -> str | None:
    """What changes when the file does; a weak ETag (W/) promises no equal bytes."""
    etag = answer.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")


def _check_space(part: Part, n_bytes: int | None) -> None:
    missing = (n_bytes or 0) - part.n_bytes
    free = shutil.disk_usage(part.path.parent).free
    if missing > free:
        raise Refused(f"{missing:,} bytes are to come, and the disk has room for {free:,}")


def _receive(
    answer: "requests.Response", part: Part, n_bytes: int | None, patience: Patience, progress: bool
) -> None:
    """Append the answer's body to `part`, which then has `n_bytes`."""
    n_have = part.n_bytes
    least_bytes = patience.slowest_bytes_per_second * patience.stall_seconds
    with open(part.path, "ab") as file, byte_bar(part.name, n_bytes, progress, n_done=n_have) as bar:
        since, n_then = time.monotonic(), n_have
        # read1 gives what is there: read would wait for a whole block from a server that drips.
        while block := answer.raw.read1(BLOCK_BYTES, decode_content=False):
            n_have += len(block)
            if n_bytes is not None and n_have > n_bytes:
                break
            file.write(block)
            bar.update(len(block))
            if (now := time.monotonic()) - since >= patience.stall_seconds:
                if n_have - n_then < least_bytes:
                    raise Broken(
                        f"only {n_have - n_then:,} bytes came within {patience.stall_seconds:g} seconds"
                    )
                since, n_then = now, n_have
    if n_bytes is not None and n_have > n_bytes:
        part.discard()
        raise Refused(f"more than {n_bytes:,} bytes came")
    if n_bytes is not None and n_have < n_bytes:
        raise Broken(f"{n_have:,} of {n_bytes:,} bytes came")


def _explained(fault: Exception, patience: Patience) -> Broken | Refused:
    """What went wrong on the way, in words, and whether another try is worth it."""
    import requests
    import urllib3

    inner = getattr(fault.args[0], "reason", None) if fault.args else None
    if isinstance(fault, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(fault):
        return Refused("its certificate cannot be verified")
    if isinstance(fault, requests.TooManyRedirects):
        return Refused(f"it redirects more than {MAX_REDIRECTS} times")
    if isinstance(fault, ValueError):  # what requests says of an address, too
        return Refused(str(fault))
    if isinstance(fault, requests.exceptions.ProxyError | requests.ConnectTimeout):
        return Unreachable("there is no connection to the server")
    if isinstance(inner, urllib3.exceptions.NewConnectionError):
        return Unreachable("there is no connection to the server")
    if isinstance(fault, requests.Timeout | urllib3.exceptions.TimeoutError):
        return Broken(f"nothing came for {patience.stall_seconds:g} seconds")
    return Broken("the connection broke off")
