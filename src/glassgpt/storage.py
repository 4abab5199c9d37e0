"""Files that are whole or not there.

A file or folder is written beside its final place, synced to the disk, and renamed into place: a process
killed at any moment leaves the previous version or the new one. A folder also carries `manifest.json`,
the size and the checksums of each of its files, so that damage after the fact is found as well.

There are two. The SHA-256 says which file it is, to anybody. The CRC-32C is what loading verifies, in a sixth
of the time: it finds every burst of up to 32 wrong bits, and misses other accidents once in 2³² times
(RFC 3720 §12.1). It is no defence against people, who could write a manifest of their own to either.

`rename` is atomic within a file system (POSIX.1-2017, rename()); the folder is synced after it, since a
rename that only the page cache knows of can be lost with the power.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from glassgpt.errors import GlassGPTError

MANIFEST = "manifest.json"
CRC_IS_FAST = google_crc32c.implementation == "c"
"""Without the C extension it is a loop in Python, slower than SHA-256: manifests then go without."""

RENAME_TRIES = 5
_CHUNK_BYTES = 1 << 18
_NOT_A_MANIFEST = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def cache_folder() -> Path:
    """Where downloads and other things worth keeping lie: `GLASSGPT_CACHE`, or `~/.cache/glassgpt`."""
    return Path(os.environ.get("GLASSGPT_CACHE") or Path.home() / ".cache" / "glassgpt")


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file at `path`, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: str | bytes, error: type[GlassGPTError]) -> None:
    """Write `content` to `path`, which holds the old or the new content at every moment.

    Raises `error` when the disk is full or the folder cannot be written.
    """
    with staged_file(path, error) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def staged_file(path: Path, error: type[GlassGPTError]) -> Iterator[BinaryIO]:
    """Yield a temporary file beside `path`; when the block ends well, it takes `path`'s place.

    When the block raises, the temporary file is removed and `path` is untouched. Raises `error` when the
    disk is full or the folder cannot be written.
    """
    path = Path(path)
    with explained(error, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())  # mkstemp makes it private; a result is not
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        sync_folder(path.parent)


@contextlib.contextmanager
def staged_folder(final: Path, error: type[GlassGPTError]) -> Iterator[Path]:
    """Yield a temporary folder beside `final`; when the block ends well, it takes `final`'s place.

    Before that every file is synced and listed in `manifest.json`. When the block raises, the temporary
    folder is removed and `final` is untouched. Where `final` already exists it is moved aside first and
    removed last; `recover_folder` puts it back if the process dies between the two renames.

    Raises `error` when the disk will not take it, before anything is written where `check_replaceable` does,
    and at the end when `final` is no longer what it was at the beginning: it is somebody else's then.
    """
    with explained(error, final):
        final = Path(final).resolve()  # through a symbolic link, to the folder that is to be replaced
        recover_folder(final)
        check_replaceable(final, error)
        replaced = _identity(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent))
        os.chmod(staging, 0o777 & ~_umask())
    try:
        with explained(error, final):
            yield staging
            _seal(staging)
            _take_place(staging, final, replaced, error)
            sync_folder(final.parent)
            _discard(_previous(final))
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        recover_folder(final)
        raise


def recover_folder(final: Path) -> None:
    """Put back the previous version of `final` if a write died between its two renames.

    If it died after them, the previous version is removed: who removes `final` later does not want it back.
    """
    final = Path(final).resolve()
    previous = _previous(final)
    if os.path.exists(final / MANIFEST):  # unlike Path's it raises nothing, whatever the name
        _discard(previous)
    elif os.path.exists(previous):
        with contextlib.suppress(OSError):  # another process was faster, or something else lies there now
            os.rename(previous, final)


def remove_folder(final: Path, error: type[GlassGPTError]) -> None:
    """Remove a folder that `staged_folder` wrote: at every moment it is whole or not there.

    Raises `error` when it holds files that no manifest of ours lists, or cannot be removed.
    """
    with explained(error, final):
        final = Path(final).resolve()
        check_replaceable(final, error, "removed")
        hidden = final.with_name(f".{final.name}.removed.tmp")
        if hidden.exists():  # a process died here
            shutil.rmtree(hidden)
        os.rename(final, hidden)
        sync_folder(final.parent)
        shutil.rmtree(hidden)


def folder_problems(folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """What differs between `folder` and its manifest: a line each, none when it is whole.

    `names` are the files to look at; None looks at all that the manifest lists.
    """
    manifest = Path(folder) / MANIFEST
    try:
        listed = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        expected = {name: _Entry(**listed[name]) for name in names or listed.keys()}
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
    except (OSError, *_NOT_A_MANIFEST) as fault:
        return [f"{MANIFEST} cannot be read ({fault})"]
    problems = []
    for name, entry in sorted(expected.items()):
        try:
            problem = _difference(Path(folder) / name, entry)
        except OSError as fault:  # no permission, or another process replaces the folder just now
            problem = f"cannot be read ({fault.strerror})"
        if problem:
            problems.append(f"{name} {problem}")
    return problems


@dataclass(frozen=True)
class _Entry:
    """What the manifest says of a file. Raises ValueError or TypeError for what no manifest says."""

    bytes: int
    sha256: str
    crc32c: int | None = None
    """Of the file's bytes and, behind them, `sha256`, so that damage to either is found. None in a manifest
    of an earlier version, or where there is no fast one: then the SHA-256 is verified."""

    def __post_init__(self) -> None:
        if not isinstance(self.bytes, int) or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"{self} is no number of bytes with a SHA-256")


def _difference(path: Path, entry: _Entry) -> str | None:
    """What is wrong with the file at `path`."""
    if not path.is_file():
        return "is missing"
    if (n_bytes := path.stat().st_size) != entry.bytes:
        return f"has {n_bytes:,} bytes, not {entry.bytes:,}"
    if entry.crc32c is not None and CRC_IS_FAST:
        return None if _crc32c(path, entry.sha256) == entry.crc32c else "was altered (its CRC-32C differs)"
    return None if sha256_of(path) == entry.sha256 else "was altered (its SHA-256 differs)"


def _crc32c(path: Path, sha256: str) -> int:
    checksum = 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            checksum = google_crc32c.extend(checksum, chunk)
    return google_crc32c.extend(checksum, sha256.encode("utf-8"))


@contextlib.contextmanager
def explained(error: type[GlassGPTError], path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into an `error` that says what to do."""
    remedies = {
        errno.ENOSPC: "The disk is full: free some space, or choose another folder.",
        errno.EDQUOT: "The disk quota is used up: free some space, or choose another folder.",
        errno.EACCES: "No permission: choose a folder that you may write.",
        errno.EPERM: "No permission: choose a folder that you may write.",
        errno.EROFS: "That file system is read-only: choose another folder.",
        errno.ENOTDIR: "A part of that path is a file, not a folder.",
        errno.EEXIST: "A part of that path is a file, not a folder.",
        errno.ENOTEMPTY: "Another process writes there: wait for it, or choose another folder.",
    }
    try:
        yield
    except OSError as fault:
        remedy = remedies.get(fault.errno or 0, "Check the path and the disk.")
        raise error(f"Cannot write {path}: {fault.strerror or fault}. {remedy}") from fault


def check_replaceable(final: Path, error: type[GlassGPTError], fate: str = "replaced") -> None:
    """Raise `error` unless a folder may take the place `final`: free, or of files that we wrote there.

    Files that no manifest of ours lists would be destroyed. Where a disk is mounted there is nothing that
    could be renamed, and who stands in a folder would stand in a removed one.
    """
    final = Path(final).resolve()
    if not final.exists():
        return
    if not final.is_dir():
        raise error(f"{final} is a file, and a folder is to be written there. Choose another name.")
    if os.path.ismount(final):
        raise error(f"{final} is where a disk is mounted, and cannot be {fate}. Choose a folder inside it.")
    if _is_current(final):
        raise error(
            f"{final} would be {fate}, but is the current folder or above it. Choose a folder inside it."
        )
    try:
        listed = json.loads((final / MANIFEST).read_text(encoding="utf-8"))["files"]
        written = {MANIFEST, *(name.split("/")[0] for name, entry in listed.items() if entry["sha256"])}
    except (OSError, *_NOT_A_MANIFEST):
        written = set()  # there is none, or it is damaged or another program's: nothing here is surely ours
    foreign = sorted(path.name for path in final.iterdir() if path.name not in written)
    if foreign:
        raise error(
            f"{final} would be {fate}, but holds files that were not written with it: "
            f"{', '.join(foreign[:3])}{', …' if len(foreign) > 3 else ''}. "
            f"Choose another folder, or move them away."
        )


def _take_place(
    staging: Path, final: Path, replaced: tuple[int, int] | None, error: type[GlassGPTError]
) -> None:
    """Rename `staging` to `final`, which is moved aside if it is still the folder `replaced`."""
    previous = _previous(final)
    for n_left in reversed(range(RENAME_TRIES)):
        found = _identity(final)
        if found not in (None, replaced):
            raise error(
                f"{final} was written by another process in the meantime. Choose another folder, or look at "
                "what is there and write again."
            )
        check_replaceable(final, error)
        try:
            if found:
                _discard(previous)
                os.rename(final, previous)
            os.rename(staging, final)
            return
        except OSError as fault:  # a reader took a write for dead, and put back what was aside
            if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) or not n_left:
                raise


def _identity(folder: Path) -> tuple[int, int] | None:
    """What stays the same when a folder is renamed. None: there is nothing of that name."""
    try:
        status = os.stat(folder)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _is_current(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(folder)
    except FileNotFoundError:  # the current folder was removed
        return False


def _discard(folder: Path) -> None:
    """Remove `folder`, if it is there, under another name: half of it must not be taken for the whole."""
    if not os.path.exists(folder):
        return
    with contextlib.suppress(OSError):  # another process was faster, or it may not be removed
        rubbish = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
        try:
            os.rename(folder, rubbish / folder.name)
        finally:
            shutil.rmtree(rubbish, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Sync every file of `folder`, make it as readable as any new file, and list it in the manifest."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        os.chmod(path, 0o666 & ~_umask())  # safetensors makes its files private
        with open(path, "r+b") as file:  # Windows syncs only what is open for writing
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        crc = {"crc32c": _crc32c(path, sha256)} if CRC_IS_FAST else {}
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256, **crc}
    with open(folder / MANIFEST, "w", encoding="utf-8") as file:
        json.dump({"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        sync_folder(path)


def _previous(final: Path) -> Path:
    return final.parent / f".{final.name}.previous"


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk: a rename can be lost with the power until then."""
    if os.name == "nt":
        return  # Windows has no handle on a folder to sync
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
