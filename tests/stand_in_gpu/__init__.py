"""A stand-in for a GPU: PyTorch's CPU kernels under the name of CUDA, for machines without one.

`pytest -p tests.stand_in_gpu.plugin` runs on it the tests that need a GPU (those with the fixture `gpu`), and
no others. What is an error on a GPU, or goes wrong there only now and then, is always an error here:

- Tensors of the CPU and of the GPU do not mix.
- New memory holds no numbers.
- A copy to the CPU that nobody waited for has not arrived: until somebody does, nonsense is there.
- Waiting can be forbidden (`torch.cuda.set_sync_debug_mode`), and is while a recording (CUDA graph) is made.
- Making a recording computes nothing. Playing it repeats its kernels over the same memory as it is then,
  with the numbers they were given when it was made; memory that was freed or has moved is an error.
- `torch.compile` traces for a GPU, in one graph, which is then run kernel by kernel: there is no Triton.

It cannot tell how fast a GPU is or how it rounds, what its own kernels can do, or whether Triton compiles.
There are no streams: all work is in order. Copies to the GPU are there at once, so that nobody sees it when
their source is changed too early. Random numbers are the CPU's, and so is the state they come from.

It needs Linux, a C++ compiler and a PyTorch that was built without CUDA.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")
COMPILED = "GLASSGPT_STAND_IN_GPU"
"""Environment variable: the compiled device, for processes that this one starts."""


def become_a_gpu() -> None:
    """From now on this process has a CUDA GPU. PyTorch is imported afterwards, as it looks for one then."""
    assert "torch" not in sys.modules, "PyTorch is here already, and has found no GPU"
    if COMPILED not in os.environ:
        os.environ[COMPILED] = str(compiled())
    ctypes.CDLL(os.environ[COMPILED])
    import torch

    assert (torch.version.cuda, torch.version.hip) == (None, None), "this PyTorch has a GPU's kernels"
    # What of CUDA is written in Python asks a part of PyTorch that a build without it does not have.
    for name, value in replacements().items():
        assert hasattr(torch.cuda, name), name
        setattr(torch.cuda, name, value)
    torch._C._cuda_clearCublasWorkspaces = lambda: None
    torch.compile = functools.partial(torch.compile, backend="aot_eager", fullgraph=True)


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX") or "g++")


def compiled() -> Path:
    """The device, compiled for as long as this process lives. It takes a quarter of a minute."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    torch = Path(importlib.util.find_spec("torch").submodule_search_locations[0])
    includes = [f"-I{torch / 'include'}", f"-I{torch / 'include/torch/csrc/api/include'}"]
    links = [f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}", "-ltorch_cpu", "-lc10"]
    command = [*compiler(), "-std=c++20", "-O1", "-fPIC", "-shared", *includes, str(SOURCE), *links]
    subprocess.run([*command, "-o", str(folder / "device.so")], check=True)
    return folder / "device.so"


def replacements() -> dict[str, object]:
    """What stands in `torch.cuda` by these names."""
    import torch

    stand_in = torch.ops.stand_in_gpu

    class Stream:
        def wait_stream(self, other: "Stream") -> None:
            pass

    class Event:
        def record(self, stream: Stream) -> None:
            self.n_asked = stand_in.n_asked()

        def synchronize(self) -> None:
            stand_in.arrive(self.n_asked)

    class CUDAGraph:
        def replay(self) -> None:
            stand_in.replay(self.number)

    @contextlib.contextmanager
    def graph(graph: CUDAGraph, stream: Stream, capture_error_mode: str):
        graph.number = stand_in.begin_recording()
        weakref.finalize(graph, stand_in.forget_recording, graph.number)
        has_failed = True
        try:
            yield
            has_failed = False
        finally:
            stand_in.end_recording(has_failed)

    everywhere = Stream()
    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "a stand-in for a GPU",
        "get_device_capability": lambda device=None: (9, 0),
        "is_bf16_supported": lambda including_emulation=True: True,
        "max_memory_allocated": lambda device=None: 0,
        "device": lambda device: contextlib.nullcontext(),
        "Stream": Stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device=None: everywhere,
        "Event": Event,
        "CUDAGraph": CUDAGraph,
        "graph": graph,
        "synchronize": lambda device=None: stand_in.wait(),
        "set_sync_debug_mode": lambda mode: stand_in.forbid_waiting(mode == "error"),
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "manual_seed_all": lambda seed: None,  # the generator is the CPU's
    }
