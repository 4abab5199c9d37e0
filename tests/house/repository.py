"""What the tests of this folder look at: the repository's own files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "glassgpt"


def repository_files() -> list[Path]:
    """The files that git has, or is told to take; skips the test outside a clone.

    Not what else lies there: who exports a model into the clone has done nothing wrong.
    """
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git and a clone of the repository, to know which files belong to it")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file()]  # one that is deleted and not yet committed is not


def run_make(
    *arguments: str, folder: Path = ROOT, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run make in `folder`, as if it were not `make test` that runs this test."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        [shutil.which("make"), *arguments],
        cwd=folder,
        env={**environment, "PATH": path or environment["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
