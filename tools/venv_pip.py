"""The environment `.venv` of this clone, and its pip: what runs in it, and what to do when it fails.

Part of tools/bootstrap.py, and bound to its rule: the standard library, Python 3.7's syntax.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LOG = VENV / "glassgpt-setup.log"  # everything that pip said
INSTALLING = VENV / "glassgpt-installing"  # there while files of .venv are being written


class SetupError(Exception):
    """The set-up cannot go on; the message says why and what to do."""


def pip(*arguments: str) -> None:
    """Run pip in `.venv`, saying what large files it downloads.

    Raises SetupError with pip's last lines and a remedy when it fails.
    """
    options = ["--constraint", "constraints.txt", "--progress-bar", "off"]
    output = []
    with open(LOG, "a", encoding="utf-8") as log, subprocess.Popen(
        [str(PYTHON), "-m", "pip", *arguments, *options],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            output.append(line)
            if line.startswith("Installing collected packages"):
                INSTALLING.touch()  # from here on an interruption leaves packages in pieces
            download = re.match(r" *Downloading (?:\S*/)?([^-\s]+-[^-\s]+)-\S+ (\(.* [MG]B\))", line)
            if download:
                say(f"  downloading {download[1]} {download[2]}")
    if process.returncode:
        said = "".join(output)
        raise SetupError(f"pip failed:\n{last_lines(said)}\n{remedy(said)}\nEverything it said: {LOG}")
    if INSTALLING.exists():
        INSTALLING.unlink()


def remedy(output: str) -> str:
    """What to do about a failure that said `output`."""
    remedies = {
        "No space left|Disk quota": "The disk is full: a set-up takes 2 GB, one with CUDA 8 GB.",
        "Permission denied": "No permission: use a clone in a folder of your own.",
        "Connection|name resolution|timed out|SSLError|ProxyError|HTTP error": (
            "The network: once it is there, the same command goes on from here. Where only a mirror can be\n"
            "reached, name it to pip (PIP_INDEX_URL), or a folder with wheels (PIP_FIND_LINKS)."
        ),
        "No matching distribution|Could not find a version": (
            "A package has no build for this machine. All have one for Python 3.11 to 3.14, on Linux with\n"
            "glibc and on Macs with Apple silicon. For another Python: make setup PYTHON=/path/to/python3.13"
        ),
    }
    for pattern, advice in remedies.items():
        if re.search(pattern, output):
            return advice
    return "Run the same command again; if that does not help, begin anew with `make clean`."


def pinned(name: str) -> str:
    """The line of constraints.txt that pins `name`."""
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}=="):
            return line.split()[0]
    raise SetupError(f"constraints.txt does not pin {name}; add the line {name}==<version>.")


def installed_sizes() -> dict[str, int]:
    """The bytes on disk of each package in `.venv`, by name."""
    program = (
        "import json; from importlib.metadata import distributions\n"
        "print(json.dumps({d.name: sum(f.size or 0 for f in d.files or []) for d in distributions()}))"
    )
    command = [str(PYTHON), "-I", "-c", program]
    sizes: dict[str, int] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return sizes


def environment() -> dict[str, str]:
    """The caller's environment, less what would let other packages into `.venv`'s Python."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUNBUFFERED": "1"}


def command_works(*command: str) -> bool:
    """Whether `command` ends well, and within a minute."""
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def say(line: str) -> None:
    """One plain line about what is being done."""
    print(f"setup: {line}", flush=True)


def last_lines(output: str, n_lines: int = 12) -> str:
    """The end of a program's output, marked as such."""
    return "\n".join(f"  | {line}" for line in output.strip().splitlines()[-n_lines:])


def gigabytes(n_bytes: int) -> str:
    """A size as people write it."""
    return f"{n_bytes / 1e9:.1f} GB"
