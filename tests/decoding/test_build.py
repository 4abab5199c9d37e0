"""Building the C++ step where something is in the way."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from glassgpt.decoding import NativeStep, build
from glassgpt.generation import SamplingConfig, generate
from tests.decoding.models import a_model, needs_library
from tests.house.repository import ROOT


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """Nothing built yet in this process, and an empty cache."""
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    build._library.cache_clear()
    yield tmp_path
    build._library.cache_clear()


def greedy(model) -> list[int]:
    return list(generate(model, [3, 5], SamplingConfig(max_new_tokens=12, temperature=0.0)))


@needs_library
def test_it_is_built_once_and_kept(anew, monkeypatch):
    assert build.why_no_library() is None
    (kept,) = (anew / "native").iterdir()
    build._library.cache_clear()
    compilations = []
    run = build._run
    monkeypatch.setattr(build, "_run", lambda command: (compilations.append(command), run(command))[1])
    assert build.why_no_library() is None
    assert not any(str(source) in command for source in build.SOURCES for command in compilations)
    assert list((anew / "native").iterdir()) == [kept]


@needs_library
def test_a_cache_that_may_only_be_read_is_no_obstacle(anew, monkeypatch):
    (anew / "native").write_text("a file where the folder would be")
    assert build.why_no_library() is None


@needs_library
def test_changed_flags_make_another_library(anew, monkeypatch):
    assert build.why_no_library() is None
    build._library.cache_clear()
    monkeypatch.setattr(build, "_FLAGS", [*build._FLAGS, "-DSOMETHING"])
    assert build.why_no_library() is None
    assert len(list((anew / "native").iterdir())) == 2


def test_without_a_compiler_pytorch_decodes_the_same(anew, monkeypatch):
    expected = greedy(a_model())
    build._library.cache_clear()
    monkeypatch.setenv("PATH", str(anew))
    monkeypatch.delenv("CXX", raising=False)
    assert build.why_no_library() == "there is no C++ compiler (g++, c++)"
    assert greedy(a_model()) == expected


def test_a_compiler_that_fails_says_so_in_its_own_words(anew, monkeypatch):
    broken = anew / "broken"
    broken.write_text("#!/bin/sh\necho 'error: unsupported option -fopenmp' >&2; exit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(broken))
    assert build.why_no_library() == f"{broken} failed: error: unsupported option -fopenmp"
    with pytest.raises(RuntimeError, match="unsupported option"):
        build.library()


def test_a_compiler_that_is_not_there_is_named(anew, monkeypatch):
    monkeypatch.setenv("CXX", str(anew / "nowhere"))
    assert "nowhere cannot be run" in build.why_no_library()


@needs_library
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"no library at all",
        lambda content: content[: len(content) // 3],  # which would end the process, when it is called
        lambda content: content[:-999] + bytes([content[-999] ^ 4]) + content[-998:],
    ],
    ids=["something else", "cut off", "a wrong bit"],
)
def test_a_damaged_file_is_never_loaded_but_made_anew(anew, monkeypatch, damage):
    assert build.why_no_library() is None
    (kept,) = (anew / "native").iterdir()
    damaged = anew / "elsewhere" / "native" / kept.name  # a path that this process has not loaded
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(damage(kept.read_bytes()))
    monkeypatch.setenv("GLASSGPT_CACHE", str(anew / "elsewhere"))
    build._library.cache_clear()
    assert build.why_no_library() is None
    (made,) = damaged.parent.iterdir()
    assert made.read_bytes() == kept.read_bytes()
    assert greedy(a_model())


def test_clang_is_left_alone_for_its_other_openmp(anew, monkeypatch):
    clang = anew / "clang"
    clang.write_text("#!/bin/sh\necho '#define __clang__ 1'\n")
    clang.chmod(clang.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(clang))
    assert "is Clang" in build.why_no_library()


def test_a_half_quoted_compiler_leaves_decoding_to_pytorch(anew, monkeypatch):
    monkeypatch.setenv("CXX", 'g++ "-DX')
    assert "quotation" in build.why_no_library()
    assert len(greedy(a_model())) == 12


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("GLASSGPT_NATIVE", "0")
    assert build.why_no_library() == "GLASSGPT_NATIVE=0 is set"
    model = a_model()
    monkeypatch.setattr(NativeStep, "__init__", lambda *_: pytest.fail("it was used all the same"))
    assert len(greedy(model)) == 12


@needs_library
def test_it_shares_pytorchs_openmp():
    """Two OpenMP libraries in one process would fight for the cores."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs Linux, where /proc lists what a process has loaded")
    program = """
import torch
from glassgpt.decoding import NativeStep, build
torch.set_num_threads(2)
torch.ones(10**6).sum()
build.library()
print({line.split("/")[-1].strip() for line in open("/proc/self/maps") if "omp" in line})
"""
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.count(".so") == 1, loaded.stdout


@needs_library
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which can limit a process's memory")
def test_too_little_memory_is_an_error_and_not_the_end_of_the_process():
    code = """
import resource, torch
from glassgpt.decoding import NativeStep, quantize
from glassgpt.errors import GenerationError
from glassgpt.model import KVCache
from tests.decoding.models import a_model

torch.set_num_threads(8)
model = quantize(a_model(d_ff=64 * 1024, n_layers=1), "bfloat16")
step, n_rows = NativeStep(model), 400
caches = [KVCache(model.config, n, 2) for n in (1, n_rows, n_rows)]
step.logits([3], caches[0])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
# 400 rows of 65,536 numbers are 105 MB: once for all threads, and once for each
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, hard))
try:
    step.logits([3] * n_rows, caches[1])
except GenerationError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
print(caches[1].n_tokens, step.logits([3] * n_rows, caches[2]).isfinite().all().item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "There is too little memory for a step of 400 tokens. Generate for fewer prompts at once.\n0 True\n"
    )
