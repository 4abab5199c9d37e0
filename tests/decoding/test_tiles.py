"""Tiles where there are none to be had. What they compute is tested with the step, in test_native.py."""

import subprocess
import sys
from pathlib import Path

from glassgpt.decoding import quantize
from tests.decoding.models import a_model, logits_of_rows, needs_library

pytestmark = needs_library

REFUSED = """
import ctypes, sys

class Stack(ctypes.Structure):
    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

# Too small a stack for signal handlers to keep tiles on: Linux then refuses these.
memory = ctypes.create_string_buffer(8192)
stack = Stack(ctypes.addressof(memory), 0, 8192)
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0

import torch
from glassgpt.decoding import build, quantize
from tests.decoding.models import a_model, logits_of_rows

assert build.library().glassgpt_has_tiles() == 0
torch.set_num_threads(1)
[logits] = logits_of_rows(quantize(a_model(), "int8"), 27, [list(range(27))])
sys.stdout.buffer.write(logits.numpy().tobytes())
"""


def test_where_linux_refuses_tiles_a_step_does_without():
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, check=False, cwd=root)
    assert run.returncode == 0, run.stderr.decode()
    [logits] = logits_of_rows(quantize(a_model(), "int8"), 27, [list(range(27))])
    assert run.stdout == logits.numpy().tobytes()
