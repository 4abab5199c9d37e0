"""Files and folders are whole or not there, whatever happens while they are written."""

import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from glassgpt import storage
from glassgpt.errors import CheckpointError, DataError
from glassgpt.pretrained.crc32c import crc32c
from glassgpt.storage import (
    folder_problems,
    recover_folder,
    remove_folder,
    staged_folder,
    write_atomically,
)


def write_folder(folder: Path, text: str) -> None:
    with staged_folder(folder, CheckpointError) as staging:
        (staging / "first.txt").write_text(text)
        (staging / "inner").mkdir()
        (staging / "inner" / "second.txt").write_text(text)


def write_slowly(folder: Path, meanwhile: Callable[[], object]) -> None:
    with staged_folder(folder, CheckpointError) as staging:
        (staging / "first.txt").write_text("slow")
        meanwhile()


def text_of(folder: Path) -> str:
    """What `write_folder` wrote, once it is known to be whole."""
    assert folder_problems(folder) == []
    first, second = (folder / "first.txt").read_text(), (folder / "inner" / "second.txt").read_text()
    assert first == second
    return first


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Disk:
    """Records what is synced and renamed, in order; a call of a name in `fails` raises that error instead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **fails: int) -> None:
        self.events: list[tuple[str, int]] = []
        for name in ("fsync", "rename", "replace"):
            monkeypatch.setattr(os, name, self._recorded(name, getattr(os, name), fails.get(name)))

    def _recorded(self, name, call, fails):
        def recorded(what, *args):
            self.events.append((name, os.stat(what).st_ino))
            if fails is not None:
                raise OSError(fails, os.strerror(fails))
            return call(what, *args)

        return recorded


# ---- one file ----


def test_a_file_holds_exactly_what_was_written(tmp_path):
    write_atomically(tmp_path / "new" / "folders" / "file", "ä\r\n", DataError)
    write_atomically(tmp_path / "bytes", b"\xff\x00", DataError)

    assert (tmp_path / "new" / "folders" / "file").read_bytes() == b"\xc3\xa4\r\n"
    assert (tmp_path / "bytes").read_bytes() == b"\xff\x00"
    assert names_in(tmp_path) == {"new", "bytes"}


def test_a_file_is_synced_before_it_takes_its_name_and_the_folder_after(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    write_atomically(tmp_path / "file", "text", DataError)

    inode = (tmp_path / "file").stat().st_ino
    assert disk.events == [("fsync", inode), ("replace", inode), ("fsync", tmp_path.stat().st_ino)]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch, call):
    write_atomically(tmp_path / "file", "old", DataError)
    Disk(monkeypatch, **{call: errno.ENOSPC})

    with pytest.raises(DataError, match="The disk is full: free some space"):
        write_atomically(tmp_path / "file", "new", DataError)

    assert (tmp_path / "file").read_text() == "old"
    assert names_in(tmp_path) == {"file"}


# ---- a folder ----


def test_a_folder_is_written_with_a_manifest_of_every_file(tmp_path):
    write_folder(tmp_path / "new" / "model", "text")

    manifest = json.loads((tmp_path / "new" / "model" / "manifest.json").read_text())
    assert manifest["files"].keys() == {"first.txt", "inner/second.txt"}
    assert manifest["files"]["first.txt"]["bytes"] == 4
    assert text_of(tmp_path / "new" / "model") == "text"
    assert names_in(tmp_path / "new") == {"model"}


def test_every_file_is_synced_before_the_folder_takes_its_name_and_its_parent_after(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    write_folder(tmp_path / "model", "text")

    final = tmp_path / "model"
    renamed = disk.events.index(("rename", final.stat().st_ino))
    synced_before = {inode for call, inode in disk.events[:renamed] if call == "fsync"}
    assert {path.stat().st_ino for path in [final, *final.rglob("*")]} == synced_before
    assert disk.events[renamed + 1 :] == [("fsync", tmp_path.stat().st_ino)]


def test_the_old_folder_is_removed_only_after_the_new_one_is_safe_on_the_disk(tmp_path, monkeypatch):
    write_folder(tmp_path / "model", "old")
    disk = Disk(monkeypatch)
    monkeypatch.setattr(storage.shutil, "rmtree", lambda *_, **__: disk.events.append(("remove", 0)))
    write_folder(tmp_path / "model", "new")

    assert [call for call, _ in disk.events[-5:]] == ["rename", "rename", "fsync", "rename", "remove"]


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX's")
def test_what_is_written_is_as_readable_as_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        with staged_folder(tmp_path / "model", CheckpointError) as staging:
            (staging / "private").touch(mode=0o600)
        write_atomically(tmp_path / "file", "text", DataError)
    finally:
        os.umask(before)

    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in [tmp_path / "file", *tmp_path.glob("model/*")]
    }
    assert modes == dict.fromkeys(["file", "private", "manifest.json"], 0o640)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o750


def test_an_error_inside_the_block_leaves_the_old_folder_and_nothing_else(tmp_path):
    write_folder(tmp_path / "model", "old")

    with pytest.raises(UnicodeEncodeError):
        write_folder(tmp_path / "model", "\ud800")

    assert text_of(tmp_path / "model") == "old"
    assert names_in(tmp_path) == {"model"}


@pytest.mark.parametrize("old", [True, False], ids=["over an old one", "at first"])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_folder_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch, call, old):
    if old:
        write_folder(tmp_path / "model", "old")
    with monkeypatch.context() as patch:
        Disk(patch, **{call: errno.ENOSPC})
        with pytest.raises(CheckpointError, match=r"Cannot write .*model: .*The disk is full"):
            write_folder(tmp_path / "model", "new")

    assert names_in(tmp_path) == ({"model"} if old else set())
    assert not old or text_of(tmp_path / "model") == "old"


def test_when_only_the_second_rename_fails_the_old_folder_is_put_back(tmp_path, monkeypatch):
    write_folder(tmp_path / "model", "old")
    rename = os.rename

    def fails_for_the_new(source, target):
        if str(source).endswith(".tmp"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_for_the_new)
    with pytest.raises(CheckpointError, match="Check the path and the disk"):
        write_folder(tmp_path / "model", "new")

    assert text_of(tmp_path / "model") == "old"
    assert names_in(tmp_path) == {"model"}


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EDQUOT, "The disk quota is used up"),
        (errno.EACCES, "No permission: choose a folder that you may write"),
        (errno.EROFS, "That file system is read-only"),
        (errno.EIO, "Check the path and the disk"),
    ],
)
def test_every_failure_of_the_disk_has_its_remedy(tmp_path, monkeypatch, code, remedy):
    def fails(**_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(storage.tempfile, "mkdtemp", fails)

    with pytest.raises(CheckpointError) as error:
        write_folder(tmp_path / "model", "text")

    assert str(error.value).startswith(f"Cannot write {tmp_path / 'model'}: {os.strerror(code)}. {remedy}")
    assert names_in(tmp_path) == set()


def test_a_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match="A part of that path is a file, not a folder"):
        write_folder(tmp_path / "file" / "model", "text")
    with pytest.raises(DataError, match="A part of that path is a file, not a folder"):
        write_atomically(tmp_path / "file" / "name", "text", DataError)


# ---- what may be replaced ----


def test_a_folder_is_replaced_whole(tmp_path):
    with staged_folder(tmp_path / "model", CheckpointError) as staging:
        (staging / "only in the old.txt").touch()
    write_folder(tmp_path / "model", "new")

    assert text_of(tmp_path / "model") == "new"
    assert names_in(tmp_path / "model") == {"first.txt", "inner", "manifest.json"}
    assert names_in(tmp_path) == {"model"}


def test_a_folder_with_files_that_are_not_ours_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")

    with pytest.raises(
        CheckpointError, match=r"thesis would be replaced.*not written with it: chapter\.tex\."
    ):
        write_folder(tmp_path / "thesis", "new")

    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    assert names_in(tmp_path) == {"thesis"}


def test_so_is_one_of_ours_to_which_somebody_added(tmp_path):
    write_folder(tmp_path / "model", "old")
    for name in "abcd":
        (tmp_path / "model" / name).touch()

    with pytest.raises(CheckpointError, match=r"not written with it: a, b, c, …\. Choose another folder"):
        write_folder(tmp_path / "model", "new")

    assert text_of(tmp_path / "model") == "old"


def test_a_file_in_the_place_of_the_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "model").write_text("precious")

    with pytest.raises(CheckpointError, match=r"model is a file, and a folder is to be written there"):
        write_folder(tmp_path / "model", "new")

    assert (tmp_path / "model").read_text() == "precious"


def test_an_empty_folder_is_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", "new")
    assert text_of(tmp_path / "empty") == "new"


@pytest.mark.parametrize(
    "manifest",
    [
        "{",
        "[" * 100_000,
        "[]",
        '{"name": "a web app"}',
        '{"files": ["thesis.txt"]}',
        '{"files": {"thesis.txt": 4}}',
    ],
)
def test_a_folder_whose_manifest_is_damaged_or_another_program_s_is_refused_and_kept(tmp_path, manifest):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text(manifest)
    (tmp_path / "mine" / "thesis.txt").write_text("precious")

    with pytest.raises(CheckpointError, match="holds files that were not written with it"):
        write_folder(tmp_path / "mine", "new")

    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_symbolic_link_is_followed_and_stays(tmp_path):
    write_folder(tmp_path / "disk" / "model", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model", target_is_directory=True)

    write_folder(tmp_path / "link", "new")

    assert (tmp_path / "link").is_symlink()
    assert text_of(tmp_path / "disk" / "model") == text_of(tmp_path / "link") == "new"
    assert names_in(tmp_path / "disk") == {"model"}


def test_a_folder_that_appeared_while_another_was_written_is_refused_and_kept(tmp_path):
    with pytest.raises(CheckpointError, match=r"was written by another process in the meantime\. Choose"):
        write_slowly(tmp_path / "model", lambda: write_folder(tmp_path / "model", "fast"))

    assert text_of(tmp_path / "model") == "fast"
    assert names_in(tmp_path) == {"model"}


def test_so_is_one_that_was_replaced_meanwhile(tmp_path):
    write_folder(tmp_path / "model", "old")

    with pytest.raises(CheckpointError, match="was written by another process in the meantime"):
        write_slowly(tmp_path / "model", lambda: write_folder(tmp_path / "model", "fast"))

    assert text_of(tmp_path / "model") == "fast"
    assert names_in(tmp_path) == {"model"}


def test_a_file_that_somebody_added_meanwhile_is_kept(tmp_path):
    write_folder(tmp_path / "model", "old")

    with pytest.raises(CheckpointError, match=r"not written with it: thesis\.docx\."):
        write_slowly(tmp_path / "model", lambda: (tmp_path / "model" / "thesis.docx").write_text("precious"))

    assert (tmp_path / "model" / "thesis.docx").read_text() == "precious"
    assert text_of(tmp_path / "model") == "old"
    assert names_in(tmp_path) == {"model"}


def test_a_folder_that_was_removed_meanwhile_is_written_all_the_same(tmp_path):
    write_folder(tmp_path / "model", "old")
    write_slowly(tmp_path / "model", lambda: shutil.rmtree(tmp_path / "model"))

    assert (tmp_path / "model" / "first.txt").read_text() == "slow"


@pytest.mark.parametrize("inner", ["", "and/deeper"], ids=["the current folder", "one above it"])
def test_the_current_folder_is_refused_before_anything_is_written(tmp_path, monkeypatch, inner):
    (tmp_path / "here" / inner).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / inner)

    with pytest.raises(CheckpointError, match=r"is the current folder or above it\. Choose a folder inside"):
        write_slowly(tmp_path / "here", lambda: pytest.fail("it could have been known before"))

    assert names_in(tmp_path) == {"here"}
    write_folder(Path("model"), "inside it")
    assert text_of(tmp_path / "here" / inner / "model") == "inside it"


def test_a_mount_point_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "disk")

    with pytest.raises(CheckpointError, match=r"is where a disk is mounted.*Choose a folder inside it"):
        write_slowly(tmp_path / "disk", lambda: pytest.fail("it could have been known before"))

    assert names_in(tmp_path) == {"disk"}
    write_folder(tmp_path / "disk" / "model", "inside it")


@pytest.mark.skipif(os.name == "nt", reason="Windows does not remove the current folder")
def test_a_current_folder_that_was_removed_is_an_error_only_where_it_is_needed(tmp_path, monkeypatch):
    write_folder(tmp_path / "model", "old")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    write_folder(tmp_path / "model", "new")
    assert text_of(tmp_path / "model") == "new"
    with pytest.raises(CheckpointError, match="Cannot write model: No such file"):
        write_folder(Path("model"), "new")


# ---- what may be removed ----


def test_a_folder_is_removed_by_its_name_first(tmp_path, monkeypatch):
    def die(_):
        raise KeyboardInterrupt

    write_folder(tmp_path / "model", "first")
    with monkeypatch.context() as dying:
        dying.setattr(storage.shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(tmp_path / "model", CheckpointError)
    assert not (tmp_path / "model").exists()

    write_folder(tmp_path / "model", "second")
    remove_folder(tmp_path / "model", CheckpointError)
    assert names_in(tmp_path) == set()


def test_a_folder_to_which_somebody_added_is_not_removed(tmp_path):
    write_folder(tmp_path / "model", "old")
    (tmp_path / "model" / "notes.txt").touch()

    with pytest.raises(CheckpointError, match=r"would be removed, but holds files.*: notes\.txt\."):
        remove_folder(tmp_path / "model", CheckpointError)

    assert text_of(tmp_path / "model") == "old"


# ---- damage after the fact ----


def test_folder_problems_names_everything_that_differs(tmp_path):
    folder = tmp_path / "model"
    with staged_folder(folder, CheckpointError) as staging:
        for name in ("gone", "longer", "other"):
            (staging / name).write_text("text")
    (folder / "gone").unlink()
    (folder / "longer").write_text("text and more")
    (folder / "other").write_text("tent")

    assert folder_problems(folder) == [
        "gone is missing",
        "longer has 13 bytes, not 4",
        "other was altered (its CRC-32C differs)",
    ]


def test_a_file_that_cannot_be_read_is_a_problem_and_not_a_crash(tmp_path, monkeypatch):
    write_folder(tmp_path / "model", "text")

    def removed_meanwhile(path, _):
        path.unlink()
        return path.read_bytes()

    monkeypatch.setattr(storage, "_crc32c", removed_meanwhile)

    assert folder_problems(tmp_path / "model") == [
        "first.txt cannot be read (No such file or directory)",
        "inner/second.txt cannot be read (No such file or directory)",
    ]


def test_every_flipped_byte_and_every_cut_of_a_file_is_found(tmp_path):
    with staged_folder(tmp_path / "model", CheckpointError) as staging:
        (staging / "weights").write_bytes(bytes(range(101)))
    path = tmp_path / "model" / "weights"
    whole = path.read_bytes()

    for i in range(len(whole)):
        for altered in (whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :], whole[:i]):
            path.write_bytes(altered)
            assert folder_problems(tmp_path / "model"), f"byte {i}"
    path.write_bytes(whole)
    assert folder_problems(tmp_path / "model") == []


def test_a_file_of_many_chunks_is_verified_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_CHUNK_BYTES", 13)
    with staged_folder(tmp_path / "model", CheckpointError) as staging:
        (staging / "weights").write_bytes(bytes(range(101)))
    assert folder_problems(tmp_path / "model") == []

    monkeypatch.undo()  # the size of the chunks is nothing that a manifest depends on
    assert folder_problems(tmp_path / "model") == []
    (tmp_path / "model" / "weights").write_bytes(bytes([*range(100), 0]))
    assert folder_problems(tmp_path / "model") == ["weights was altered (its CRC-32C differs)"]


def without_crc(folder):
    """Make the manifest one of an earlier version."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["files"].values():
        assert entry.pop("crc32c")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_manifest_of_an_earlier_version_is_verified_by_its_sha256(tmp_path):
    folder = tmp_path / "model"
    write_folder(folder, "text")
    without_crc(folder)
    assert folder_problems(folder) == []

    (folder / "first.txt").write_text("tent")
    assert folder_problems(folder) == ["first.txt was altered (its SHA-256 differs)"]


def test_where_crc_is_slow_nothing_computes_one(tmp_path, monkeypatch):
    write_folder(tmp_path / "fast", "text")
    monkeypatch.setattr(storage, "CRC_IS_FAST", False)
    monkeypatch.setattr(storage.google_crc32c, "extend", None)
    write_folder(tmp_path / "slow", "text")

    for folder in (tmp_path / "fast", tmp_path / "slow"):
        assert folder_problems(folder) == []
        (folder / "first.txt").write_text("tent")
        assert folder_problems(folder) == ["first.txt was altered (its SHA-256 differs)"]


def test_the_crc_is_that_of_the_bytes_and_then_of_the_sha256(tmp_path):
    write_folder(tmp_path / "model", "text")
    entry = json.loads((tmp_path / "model" / "manifest.json").read_text())["files"]["first.txt"]
    data = (tmp_path / "model" / "first.txt").read_bytes()
    assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    assert entry["crc32c"] == crc32c(data + entry["sha256"].encode())


@pytest.mark.parametrize(
    "manifest",
    ["", "{", "[]", "{}", '{"files": []}', '{"files": {"first.txt": 4}}',
     '{"files": {"first.txt": {"bytes": 4, "sha256": ""}}}',
     '{"files": {"first.txt": {"bytes": "four", "sha256": "%s"}}}' % ("0" * 64),
     '{"files": {"first.txt": {"bytes": 4}}}', "[" * 100_000],
)  # fmt: skip
def test_a_manifest_that_is_none_is_a_problem_and_not_a_crash(tmp_path, manifest):
    write_folder(tmp_path / "model", "text")
    (tmp_path / "model" / "manifest.json").write_text(manifest)

    (problem,) = folder_problems(tmp_path / "model")
    assert problem.startswith("manifest.json cannot be read (")


def test_a_missing_manifest_is_a_problem(tmp_path):
    write_folder(tmp_path / "model", "text")
    (tmp_path / "model" / "manifest.json").unlink()

    assert folder_problems(tmp_path / "model") == ["manifest.json is missing"]


def test_every_flipped_byte_of_the_manifest_is_found(tmp_path):
    write_folder(tmp_path / "model", "text")
    manifest = tmp_path / "model" / "manifest.json"
    whole = manifest.read_bytes()

    for i in range(len(whole)):
        manifest.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert folder_problems(tmp_path / "model"), f"byte {i}"


# ---- kill -9 ----

KILLED_AT_EVERY_LINE = """
    import itertools, os, sys
    from pathlib import Path
    from glassgpt import storage
    from glassgpt.errors import CheckpointError

    root, old = Path(sys.argv[1]), sys.argv[2] == "old"

    def write(path, text):
        if sys.argv[3] == "file":
            return storage.write_atomically(path, text, CheckpointError)
        with storage.staged_folder(path, CheckpointError) as staging:
            (staging / "first.txt").write_text(text)
            (staging / "inner").mkdir()
            (staging / "inner" / "second.txt").write_text(text)

    def die_before_line(n):
        lines = itertools.count()
        def trace(frame, event, _):
            if frame.f_code.co_filename == storage.__file__ and event == "line" and next(lines) == n:
                os._exit(9)
            return trace
        sys.settrace(trace)

    for n in itertools.count():
        (root / f"{n:03}").mkdir()
        path = root / f"{n:03}" / "model"
        if old:
            write(path, "old")
        if (child := os.fork()) == 0:
            die_before_line(n)
            write(path, "new")
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
"""


def kill_at_every_line(tmp_path: Path, old: bool, what: str) -> list[Path]:
    """One folder for each line of storage.py that writing passes, left by a process that died before it."""
    script = textwrap.dedent(KILLED_AT_EVERY_LINE)
    subprocess.run([sys.executable, "-c", script, tmp_path, "old" if old else "none", what], check=True)
    *deaths, survivor = sorted(tmp_path.iterdir())
    assert len(deaths) > 20
    assert names_in(survivor) == {"model"}
    return deaths


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, which Windows lacks")
@pytest.mark.parametrize("old", [True, False], ids=["over an old one", "at first"])
def test_a_process_killed_at_any_line_leaves_the_old_folder_or_the_new_whole(tmp_path, old):
    found = []
    for place in kill_at_every_line(tmp_path, old, "folder"):
        recover_folder(place / "model")
        found.append(text_of(place / "model") if (place / "model").exists() else None)
        write_folder(place / "model", "next")  # what was left behind is in nobody's way
        assert text_of(place / "model") == "next"
        assert not (place / ".model.previous").exists()

    before = "old" if old else None
    assert found == sorted(found, key=[before, "new"].index)
    assert {found[0], found[-1]} == {before, "new"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, which Windows lacks")
def test_a_process_killed_at_any_line_leaves_the_old_file_or_the_new_whole(tmp_path):
    found = [(place / "model").read_text() for place in kill_at_every_line(tmp_path, True, "file")]

    assert found == sorted(found, reverse=True)
    assert set(found) == {"old", "new"}


def test_recover_folder_does_nothing_where_nothing_died(tmp_path):
    recover_folder(tmp_path / "nothing")
    write_folder(tmp_path / "model", "text")
    recover_folder(tmp_path / "model")

    assert names_in(tmp_path) == {"model"}
    assert text_of(tmp_path / "model") == "text"


def test_a_previous_version_beside_a_whole_one_is_removed_and_never_comes_back(tmp_path):
    write_folder(tmp_path / "model", "new")
    write_folder(tmp_path / ".model.previous", "old")  # where a process died after its two renames
    recover_folder(tmp_path / "model")
    assert names_in(tmp_path) == {"model"}

    shutil.rmtree(tmp_path / "model")
    recover_folder(tmp_path / "model")
    assert names_in(tmp_path) == set()


def test_half_of_a_removed_version_is_never_taken_for_the_whole(tmp_path, monkeypatch):
    write_folder(tmp_path / "model", "old")
    monkeypatch.setattr(storage.shutil, "rmtree", lambda *_, **__: None)  # it dies here
    write_folder(tmp_path / "model", "new")

    assert not (tmp_path / ".model.previous").exists()


@pytest.mark.parametrize("in_its_place", ["nothing", "an empty folder", "somebody's folder", "a file"])
def test_a_previous_version_is_put_back_or_at_least_kept(tmp_path, in_its_place):
    write_folder(tmp_path / ".model.previous", "old")
    if in_its_place == "a file":
        (tmp_path / "model").touch()
    elif in_its_place != "nothing":
        (tmp_path / "model").mkdir()
    if in_its_place == "somebody's folder":
        (tmp_path / "model" / "thesis.txt").touch()

    recover_folder(tmp_path / "model")

    is_back = in_its_place in ("nothing", "an empty folder")
    assert text_of(tmp_path / ("model" if is_back else ".model.previous")) == "old"


@pytest.mark.skipif(os.name == "nt", reason="needs rename over an empty folder")
def test_a_reader_that_puts_back_what_a_writer_moved_aside_costs_it_no_save(tmp_path, monkeypatch):
    write_folder(tmp_path / "model", "old")
    rename, n_recovered = os.rename, 0

    def with_a_reader_between(source, target):
        nonlocal n_recovered
        rename(source, target)
        if str(target).endswith(".previous") and n_recovered < 3:
            n_recovered += 1
            recover_folder(tmp_path / "model")

    monkeypatch.setattr(os, "rename", with_a_reader_between)
    write_folder(tmp_path / "model", "new")

    assert n_recovered == 3
    assert text_of(tmp_path / "model") == "new"
    assert names_in(tmp_path) == {"model"}


def test_a_name_that_no_file_system_takes_is_nothing_to_recover():
    recover_folder(Path("x" * 300))


# ---- small things ----


def test_the_cache_is_where_the_environment_says_or_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "cache"))
    assert storage.cache_folder() == tmp_path / "cache"
    for unset in (
        lambda: monkeypatch.setenv("GLASSGPT_CACHE", ""),
        lambda: monkeypatch.delenv("GLASSGPT_CACHE"),
    ):
        unset()
        assert storage.cache_folder() == Path.home() / ".cache" / "glassgpt"


def test_sha256_of_is_that_of_the_standards_example(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")  # FIPS 180-4's first example

    assert storage.sha256_of(tmp_path / "file") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
