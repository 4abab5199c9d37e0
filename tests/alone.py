"""Code in a process of its own."""

import subprocess
import sys

from tests.house.repository import ROOT


def run_alone(code: str) -> str:
    """What `code` prints, run where the tests' checks of shapes are not: these cannot be compiled."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
