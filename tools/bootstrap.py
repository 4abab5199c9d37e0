"""Set up `.venv` with pinned packages, and with PyTorch's CPU build where there is no NVIDIA GPU.

    python3 tools/bootstrap.py runtime     what `glassgpt` needs
    python3 tools/bootstrap.py course      and what the course's notebooks need
    python3 tools/bootstrap.py bench       and the benchmarks' peers
    python3 tools/bootstrap.py develop     and what the tests and checks need

The Makefile calls this. What is already there is left alone; what was interrupted while its files were
being written is made anew. Only the standard library, and no syntax newer than Python 3.7's, so that an
old interpreter comes as far as the sentence that says so.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch_build import install_torch, verify_torch
from venv_pip import (
    INSTALLING,
    PYTHON,
    ROOT,
    VENV,
    SetupError,
    command_works,
    environment,
    gigabytes,
    installed_sizes,
    last_lines,
    pinned,
    pip,
    remedy,
    say,
)

STATE = VENV / "glassgpt-setup.json"  # what was installed, and from what
OLDEST, NEWEST = (3, 11), (3, 14)  # the Pythons that the pinned packages are built for
STAGES: dict[str, list[str]] = {  # extras of pyproject.toml
    "runtime": [],
    "course": ["course"],
    "bench": ["bench"],
    "develop": ["course", "kaggle", "test", "check"],
}
WANTS = {
    "runtime": "glassgpt needs",
    "course": "the course needs",
    "bench": "the benchmarks measure",
    "develop": "its tests and checks need",
}


def main(argv: list[str] | None = None) -> int:
    """Run the stage named on the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Set up .venv for GlassGPT.")
    parser.add_argument("stage", choices=list(STAGES), nargs="?", default="runtime")
    parser.add_argument(
        "--torch", choices=["auto", "cpu", "cuda"], help="PyTorch's build (default: as it is)"
    )
    parser.add_argument("--fits", action="store_true", help="only say, by the exit code, if this Python fits")
    arguments = parser.parse_args(argv)
    if arguments.fits:
        return 0 if fits(sys.version_info[:3]) else 1
    try:
        require_python(sys.version_info[:3], sys.executable)
        with only_one_at_a_time():
            set_up(arguments.stage, arguments.torch)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; the same command again goes on from here.", file=sys.stderr)
        return 130
    return 0


def set_up(stage: str, torch_option: str | None) -> None:
    """Bring `.venv` to `stage`; without `torch_option` the build of PyTorch stays as it was chosen."""
    state = read_state()
    project = read_project()
    fingerprint = fingerprint_of(project)
    reason = why_anew(state, torch_option)
    if reason is None and state["stages"].get(stage) == fingerprint:
        say(".venv is up to date.")
        return

    torch_choice = torch_option or state["torch"] or "auto"
    if reason is None and not command_works(str(PYTHON), "-m", "pip", "--version"):
        reason = "its pip does not work"
    if reason is not None:
        make_venv(reason)
        state["stages"] = {}
    state.update(root=str(ROOT), torch=torch_choice)
    write_state(state)

    pip("install", pinned("pip"))  # before 23.3, pip downloads a package only to read what it requires
    install_torch(torch_choice)
    say(f"installing what {WANTS[stage]} …")
    pip("install", *requirements(project, stage))
    pip("install", "--no-deps", "--no-build-isolation", "--editable", ".")

    sizes = installed_sizes()
    verify_torch(torch_choice, sizes)
    state["stages"].update({"runtime": fingerprint, stage: fingerprint})
    write_state(state)
    say(f"ready: {len(sizes)} packages, {gigabytes(sum(sizes.values()))} in .venv.")


# Which Python, which .venv


def fits(version: tuple[int, ...]) -> bool:
    """Whether the pinned packages are built for this version of Python."""
    return OLDEST <= version[:2] <= NEWEST


def require_python(version: tuple[int, ...], executable: str) -> None:
    """Raise SetupError unless `executable`, which has this version, can make GlassGPT's environment."""
    if not fits(version):
        raise SetupError(
            f"GlassGPT needs Python {dotted(OLDEST)} to {dotted(NEWEST)}; "
            f"{executable} is {dotted(version)}.\n"
            "Install one (Debian, Ubuntu: sudo apt install python3 python3-venv; macOS: brew install\n"
            "python@3.13; anywhere: python.org), or name one: make setup PYTHON=/path/to/python3.13"
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            f"{executable} comes without venv and ensurepip, which make an environment.\n"
            f"Debian, Ubuntu: sudo apt install python{dotted(version[:2])}-venv; elsewhere install Python's\n"
            "full package. Or name another Python: make setup PYTHON=/path/to/python3.13"
        )


def why_anew(state: dict[str, Any], torch_option: str | None) -> str | None:
    """Why `.venv` must be made from the beginning; None when it can be kept."""
    if not PYTHON.exists():
        return "there is no Python in it" if VENV.exists() else "there is none yet"
    if INSTALLING.exists():
        return "the last set-up was interrupted while installing"
    if state["root"] not in (None, str(ROOT)):
        return f"it was moved here from {state['root']}"
    if torch_option not in (None, state["torch"]):
        return f"for PyTorch's build: {torch_option}"
    if python_of(VENV) != sys.version_info[:2]:
        return "it has another Python"
    return None


def python_of(venv: Path) -> tuple[int, int] | None:
    """The version of Python that `venv` says it was made with; None when it does not say."""
    try:
        text = (venv / "pyvenv.cfg").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    said = re.search(r"^version(?:_info)? *= *(\d+)\.(\d+)", text, re.MULTILINE)
    return (int(said[1]), int(said[2])) if said else None


def make_venv(reason: str) -> None:
    """Make `.venv` from the beginning, with pip in it."""
    say(f"making .venv with Python {dotted(sys.version_info[:3])} ({reason}) …")
    base = getattr(sys, "_base_executable", sys.executable)  # this may be the very .venv that goes away
    commands = [
        [base, "-m", "venv", "--clear", "--without-pip", str(VENV)],
        [str(PYTHON), "-m", "ensurepip", "--default-pip"],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
        if done.returncode:
            output = done.stdout + done.stderr
            raise SetupError(f"Cannot make .venv:\n{last_lines(output)}\n{remedy(output)}")
        INSTALLING.touch()  # stays if pip's own installation is interrupted
    INSTALLING.unlink()


def read_state() -> dict[str, Any]:
    """What the last set-up recorded: the folder, the choice of PyTorch, a fingerprint for each stage."""
    unknown: dict[str, Any] = {"root": None, "torch": None, "stages": {}}
    try:
        return {**unknown, **json.loads(STATE.read_text(encoding="utf-8"))}
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return unknown  # then the packages are looked at again, which is always right


def write_state(state: dict[str, Any]) -> None:
    """Record what this set-up has done so far."""
    STATE.write_text(json.dumps(state, indent=1), encoding="utf-8")


@contextlib.contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Wait for another set-up of this folder, which would write to the same `.venv`."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this folder …")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


# Which packages


def read_project() -> dict[str, Any]:
    """The tables of pyproject.toml that say what is installed."""
    import tomllib  # Python 3.11

    tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {name: tables[name] for name in ("build-system", "project")}


def fingerprint_of(project: dict[str, Any]) -> str:
    """Changes whenever the packages may: with `project`, constraints.txt or Python."""
    parts = [sys.version_info[:2], project, (ROOT / "constraints.txt").read_text(encoding="utf-8")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def requirements(project: dict[str, Any], stage: str) -> list[str]:
    """What pyproject.toml names for `stage`, and what builds the package itself."""
    extras = project["project"]["optional-dependencies"]
    named = [project["build-system"]["requires"], project["project"]["dependencies"]]
    return [line for lines in [*named, *(extras[name] for name in STAGES[stage])] for line in lines]


def dotted(version: tuple[int, ...]) -> str:
    """A version as people write it."""
    return ".".join(str(part) for part in version)


if __name__ == "__main__":
    sys.exit(main())
