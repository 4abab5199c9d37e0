"""The C++ sources made into a library: compiled once for this processor, and kept in the cache.

The compiler is called directly. PyTorch's extension loader would do the same, but takes two seconds to import
in every process, needs ninja, and reads PyTorch's headers for half a minute; our source needs none of them.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from glassgpt.errors import GlassGPTError
from glassgpt.storage import cache_folder, sha256_of, write_atomically

SOURCES = [Path(__file__).parent / name for name in ("step.cpp", "prompt.cpp", "gelu.cpp", "pack.cpp")]
SWITCH = "GLASSGPT_NATIVE"
"""Environment variable: 0 leaves to PyTorch what is written in C++."""

_FLAGS = ["-std=c++17", "-O3", "-fopenmp", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math"]
_COMPILERS = ("g++", "c++")
_SECONDS = 120


class _Unavailable(Exception):
    """Why there is no library, in a few words."""


def library() -> ctypes.CDLL:
    """The compiled functions. Raises RuntimeError where it cannot be compiled or loaded."""
    found = _library()
    if isinstance(found, str):
        raise RuntimeError(f"The C++ library is not available: {found}.")
    return found


def why_no_library() -> str | None:
    """Why the library cannot be compiled or loaded here, in a few words; None where it can.

    The first call on a machine compiles, which takes a few seconds.
    """
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0 is set"
    found = _library()
    return found if isinstance(found, str) else None


@functools.cache
def _library() -> ctypes.CDLL | str:
    try:
        return _load()
    except (_Unavailable, OSError, RuntimeError, ValueError) as fault:  # no home folder, a CXX half quoted
        return str(fault)


def _load() -> ctypes.CDLL:
    """The library for this source, compiler and processor: from the cache, where it was made before. Its own
    SHA-256 is in its name.

    PyTorch is loaded by then, and GCC's OpenMP with it: that is the one found, so they share their threads.
    Clang's would stand beside it, each counting threads of its own.
    """
    # -march=native means all that this processor has: it shows in the macros that the compiler defines.
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    command = [*_compiler(), native, *_FLAGS]
    macros = _run([*command, "-dM", "-E", "-x", "c++", os.devnull])
    if "__clang__" in macros:
        raise _Unavailable(
            f"{command[0]} is Clang, and PyTorch's OpenMP here is GCC's: install g++ or set CXX"
        )
    if "__AVX512F__" in macros:
        command.append("-mprefer-vector-width=512")  # GCC would rather use half of each register
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.[ch]*"))]
    content = repr((texts, command, macros))
    kept, name = cache_folder() / "native", f"step-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    for file in kept.glob(f"{name}-*.so"):
        with contextlib.suppress(OSError):  # not readable, or of another system: it is made anew
            if file.name == f"{name}-{sha256_of(file)}.so":  # a damaged one could end the process
                return ctypes.CDLL(str(file))
            file.unlink()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"{name}.so"
        _run([*command, *map(str, SOURCES), "-o", str(made)])
        file = kept / f"{name}-{sha256_of(made)}.so"
        try:
            write_atomically(file, made.read_bytes(), GlassGPTError)
        except GlassGPTError:  # a cache that may only be read: made anew for each process, then
            return ctypes.CDLL(str(made))
    return ctypes.CDLL(str(file))


def _compiler() -> list[str]:
    """The command in the environment's CXX, or the first compiler that is found."""
    if chosen := os.environ.get("CXX"):
        return shlex.split(chosen)
    for name in _COMPILERS:
        if shutil.which(name):
            return [name]
    raise _Unavailable(f"there is no C++ compiler ({', '.join(_COMPILERS)})")


def _run(command: list[str]) -> str:
    """What `command` writes. Raises _Unavailable with the first line of its complaint when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise _Unavailable(f"{command[0]} cannot be run ({fault})") from fault
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr.strip()]
        raise _Unavailable(f"{command[0]} failed: {complaints[0]}")
    return done.stdout
