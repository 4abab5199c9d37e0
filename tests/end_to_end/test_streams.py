"""Whatever the shell makes of the command's three streams: nothing is lost, and no mistake is a traceback."""

import contextlib
import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glassgpt.cli.main import main

TINY = "--model.context-length 16 --model.d-model 12 --model.n-layers 1 --model.n-heads 3 --tokenizer char"
BRIEF = "--steps 7 --micro-batch-size 2 --eval-windows 3 --device cpu --sample-every-steps 7"
TRAIN = ["train", *TINY.split(), *BRIEF.split()]

a_shell = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell; run this on Linux or macOS")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("é" * 1000, encoding="utf-8")
    return path


@pytest.fixture(params=["buffered", "unbuffered"])
def unread(request, monkeypatch):
    """Makes a stream a pipe whose reader has left; unbuffered, as PYTHONUNBUFFERED=1 has it."""
    made = []

    def replace(name):
        read, write = os.pipe()
        os.close(read)
        raw = open(write, "wb", buffering=-1 if request.param == "buffered" else 0)  # noqa: SIM115
        made.append(io.TextIOWrapper(raw, encoding="utf-8", write_through=request.param == "unbuffered"))
        monkeypatch.setattr(sys, name, made[-1])

    yield replace
    for stream in made:
        with contextlib.suppress(BrokenPipeError):
            stream.close()


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def in_a_shell(line, *arguments):
    """Run `line`, in which "$@" is the command with `arguments`: its exit code, its output, its errors."""
    command = ["sh", "-c", line, "sh", sys.executable, "-m", "glassgpt", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=BUFFERED, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def left_by_its_reader(*arguments):
    command = [sys.executable, "-m", "glassgpt", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=BUFFERED) as process:
        process.stdout.close()  # long before anything is written
        said = process.stderr.read()
    return process.returncode, said


# ---- a reader that leaves ----


def test_a_training_whose_reader_leaves_goes_on_and_is_saved(text, tmp_path, capsys, unread):
    unread("stdout")

    assert main([*TRAIN, "--data", str(text), "--out", str(tmp_path / "run")]) == 0

    assert (tmp_path / "run" / "checkpoints" / "step_000007" / "manifest.json").is_file()
    said = capsys.readouterr().err
    assert said.count("The work goes on.") == 1
    sys.stdout.flush()  # as the interpreter does when it ends


def test_a_training_whose_words_nobody_reads_at_all_is_saved(text, tmp_path, unread):
    unread("stdout")
    unread("stderr")

    assert main([*TRAIN, "--data", str(text), "--out", str(tmp_path / "run")]) == 0

    assert (tmp_path / "run" / "checkpoints" / "step_000007" / "manifest.json").is_file()


@a_shell
@pytest.mark.parametrize(
    "arguments", [[], ["--version"], ["train", "--help"], ["info", "124M"]], ids=" ".join
)
def test_words_that_nobody_reads_are_no_error(arguments):
    assert left_by_its_reader(*arguments) == (0, "")


def test_a_mistake_whose_message_nobody_reads_is_still_a_mistake(unread):
    unread("stdout")
    unread("stderr")
    assert main(["info", "125M"]) == 2
    unread("stderr")
    with pytest.raises(SystemExit, match="2"):
        main(["info", "--nonsense"])


# ---- an encoding that has not all characters ----


def test_a_character_that_standard_output_cannot_show_does_not_end_a_training(text, tmp_path, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)

    assert main([*TRAIN, "--data", str(text), "--out", str(tmp_path / "run")]) == 0

    assert b"step 7 writes: ?????" in shown.buffer.getvalue()


@a_shell
@pytest.mark.parametrize(
    "arguments", [["info", "124M"], ["train", "--help"], ["generate", "tiny-ß"]], ids=" ".join
)
def test_no_command_fails_at_an_encoding(arguments):
    _, out, err = in_a_shell('PYTHONIOENCODING=ascii "$@"', *arguments)
    assert "Traceback" not in err
    assert out or "tiny-" in err


# ---- streams that are closed ----


@pytest.mark.parametrize(
    "arguments", [["prepare", "-", "--out", "data"], [*TRAIN, "--data", "-"]], ids=["prepare", "train"]
)
def test_a_closed_standard_input_is_a_mistake_with_its_remedy(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", None)

    assert main(arguments) == 2

    assert "Standard input is closed" in capsys.readouterr().err


@a_shell
def test_closed_streams_are_no_error(tmp_path, text):
    assert in_a_shell('"$@" >&-', "--version") == (0, "", "")
    assert in_a_shell('"$@" >&- 2>&-', "info", "125M") == (2, "", "")
    run = tmp_path / "run"
    code, _, said = in_a_shell('"$@" <&- >&- 2>&-', *TRAIN, "--data", text, "--out", run)
    assert (code, said) == (0, "")
    assert (run / "checkpoints" / "step_000007" / "manifest.json").is_file()


# ---- files that may not be used, and a disk that is full ----


def test_a_file_that_may_not_be_used_is_one_message(capsys, monkeypatch):
    def locked(_):
        raise PermissionError(errno.EACCES, "Permission denied", "/locked/config.json")

    monkeypatch.setattr("glassgpt.cli.info.run", locked)

    assert main(["info", "/locked"]) == 2

    said = capsys.readouterr().err
    assert said.startswith("glassgpt info: Cannot use /locked/config.json: Permission denied. ")
    assert "permissions" in said


def test_an_error_of_the_system_that_names_no_file_keeps_its_traceback(monkeypatch):
    def bug(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("glassgpt.cli.info.run", bug)

    with pytest.raises(OSError, match="Invalid argument"):
        main(["info"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full; run this on Linux")
@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help"], ["info", "124M"]], ids=" ".join)
def test_a_full_disk_under_standard_output_is_one_message(arguments):
    code, _, said = in_a_shell('"$@" >/dev/full', *arguments)
    assert code == 2
    assert said.endswith("Cannot write all of it: No space left on device. Free some, or write elsewhere.\n")
    assert said.count("\n") == 1
