"""One file from the network into its place: whole and checked, or not there."""

import hashlib
import os
from pathlib import Path

from glassgpt.data.progress import byte_bar
from glassgpt.errors import DataError, DownloadError
from glassgpt.storage import explained

TIMEOUT_SECONDS = 30


def download(url: str, path: Path, *, n_bytes: int, sha256: str, progress: bool = True) -> None:
    """Fetch `url` to `path`, which appears only once its length and SHA-256 are right.

    Raises DownloadError when the file cannot be had or is not the one expected, DataError when it cannot
    be written.
    """
    import requests

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(DataError, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(temporary, "wb")  # noqa: SIM115 - closed below
    try:
        digest = hashlib.sha256()
        n_received = 0
        with file, byte_bar(path.name, n_bytes, progress) as bar:
            try:
                # Identity: what is counted and hashed is the file itself, not a compressed form of it.
                answer = requests.get(
                    url, stream=True, timeout=TIMEOUT_SECONDS, headers={"Accept-Encoding": "identity"}
                )
                with answer:
                    answer.raise_for_status()
                    for block in answer.iter_content(1 << 16):
                        n_received += len(block)
                        if n_received > n_bytes:
                            break
                        with explained(DataError, path):
                            file.write(block)
                        digest.update(block)
                        bar.update(len(block))
            except requests.RequestException as fault:
                raise _failed(url, path, _reason(fault)) from fault
            with explained(DataError, path):
                file.flush()
                os.fsync(file.fileno())
        if n_received != n_bytes:
            more = "more than" if n_received > n_bytes else f"{n_received:,} of"
            raise _failed(url, path, f"{more} {n_bytes:,} bytes came")
        if digest.hexdigest() != sha256:
            raise _failed(url, path, f"its SHA-256 is {digest.hexdigest()}, not {sha256}")
        with explained(DataError, path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _reason(fault: Exception) -> str:
    import requests

    if isinstance(fault, requests.HTTPError):
        return f"the server answers {fault.response.status_code} {fault.response.reason}"
    if isinstance(fault, requests.exceptions.SSLError):
        return "its certificate cannot be verified"
    if isinstance(fault, requests.Timeout):
        return f"no answer within {TIMEOUT_SECONDS} seconds"
    if isinstance(fault, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(fault, requests.ConnectionError):
        return "there is no connection to the server"
    return str(fault)


def _failed(url: str, path: Path, reason: str) -> DownloadError:
    return DownloadError(
        f"Cannot download {url}: {reason}. Try again, or put the file at {path} by other means."
    )
