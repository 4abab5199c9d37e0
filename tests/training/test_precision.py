"""Device, precision and compilation are chosen, and said out loud."""

import contextlib
import shutil
from pathlib import Path

import pytest
import torch

from glassgpt.errors import ConfigError
from glassgpt.hardware import multiplies_bfloat16
from glassgpt.model.config import gpt2
from glassgpt.training import precision
from glassgpt.training.config import TrainConfig
from glassgpt.training.precision import choose_execution


@pytest.fixture
def compiler(monkeypatch):
    """A machine with compilers for C and C++, Triton, and Python's headers."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(precision, "find_spec", lambda name: name)
    monkeypatch.setattr(precision, "_python_header", lambda: Path(__file__))


@pytest.mark.parametrize(
    ("capability", "why"),
    [
        ("amx_bf16", "as asked"),
        ("avx2", "as asked; float32 is far faster, as it has no instructions for bfloat16"),
    ],
)
def test_what_is_asked_for_is_what_is_used(compiler, monkeypatch, capability, why):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    execution = choose_execution(TrainConfig(device="cpu", precision="bfloat16", compile="on"))
    assert (execution.device.type, execution.dtype, execution.compiled) == ("cpu", torch.bfloat16, True)
    assert execution.describe() == f"cpu (1 threads), bfloat16 ({why}), compiled kernels (as asked)"


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", "avx2"])
def test_on_a_processor_auto_takes_bfloat16_only_where_it_has_instructions_for_it(monkeypatch, capability):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    execution = choose_execution(TrainConfig(device="cpu"))
    expected = torch.float32 if capability == "avx2" else torch.bfloat16
    assert (execution.dtype, execution.compiled) == (expected, False)
    words = "has no instructions for bfloat16" if capability == "avx2" else "has instructions for that"
    assert f"(it {words}), kernels as they come (compiling takes half a minute" in execution.describe()


@pytest.mark.parametrize(("steps", "compiled"), [(100, False), (5_000, False), (100_000, True)])
def test_a_gpu_gets_compiled_kernels_where_the_run_is_long_enough(monkeypatch, compiler, steps, compiled):
    monkeypatch.setattr(precision, "choose_device", torch.device)
    config = TrainConfig(device="cuda", precision="bfloat16", model=gpt2("124M"), steps=steps)
    execution = choose_execution(config)
    assert execution.compiled == compiled
    assert execution.why_compiled == (
        "a minute, which this run earns back"
        if compiled
        else "compiling takes a minute, more than this run would gain"
    )


@pytest.mark.parametrize(
    ("device", "absent", "words"),
    [
        ("cpu", "g++", r"a C\+\+ compiler such as g\+\+"),
        ("cuda", "g++", r"a C\+\+ compiler such as g\+\+"),
        ("cuda", "triton", "Triton"),
        ("cuda", "gcc", "a C compiler such as gcc"),
        ("cuda", "CC", "the C compiler CC=absent"),
        ("cuda", "Python.h", r"Python\.h \(Debian: apt-get install python3-dev\)"),
    ],
)
def test_without_a_compiler_auto_does_without_and_on_is_a_config_error(
    monkeypatch, compiler, device, absent, words
):
    monkeypatch.setattr(precision, "choose_device", torch.device)
    if absent == "triton":
        monkeypatch.setattr(precision, "find_spec", lambda name: None)
    elif absent == "Python.h":
        monkeypatch.setattr(precision, "_python_header", lambda: Path("nowhere/Python.h"))
    elif absent == "CC":
        monkeypatch.setenv("CC", "absent")
        monkeypatch.setattr(shutil, "which", lambda name: name if name != "absent" else None)
    else:
        other = "gcc" if absent == "g++" else "g++"
        monkeypatch.setattr(shutil, "which", lambda name: name if name == other else None)
    settings = {"device": device, "precision": "float32", "model": gpt2("124M"), "steps": 10**6}
    assert not choose_execution(TrainConfig(**settings)).compiled
    assert not choose_execution(TrainConfig(**settings, compile="off")).compiled
    with pytest.raises(ConfigError, match=rf"compile=on needs {words}, which is not here\. Install it"):
        choose_execution(TrainConfig(**settings, compile="on"))


def test_pythons_header_is_looked_for_where_this_python_keeps_its_own():
    assert precision._python_header().name == "Python.h"
    assert precision._python_header().parent.name.startswith("python3.")


def test_autocast_reaches_products_and_spares_weights():
    execution = choose_execution(TrainConfig(device="cpu", precision="bfloat16"))
    linear = torch.nn.Linear(3, 5)
    with execution.autocast():
        assert linear(torch.ones(2, 3)).dtype == torch.bfloat16
    assert linear.weight.dtype == torch.float32


def test_a_gpu_too_old_for_triton_gets_no_compiled_kernels(monkeypatch, compiler):
    monkeypatch.setattr(precision, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = {"device": "cuda", "precision": "float32", "model": gpt2("124M"), "steps": 10**6}
    for capability in ((6, 1), (7, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        execution = choose_execution(TrainConfig(**settings))
        assert execution.compiled == (capability >= (7, 0))
        if not execution.compiled:
            assert execution.why_compiled == (
                "compiling needs a GPU of compute capability 7.0 or above, which is not here"
            )


def test_a_gpu_that_cannot_compute_is_a_warning_and_the_cpu_is_taken(monkeypatch):
    zeros = torch.zeros

    def too_old(*size, device):
        if torch.device(device).type == "cuda":
            raise RuntimeError(
                "CUDA error: no kernel image is available for execution on the device\nCompile …"
            )
        return zeros(*size, device=device)

    monkeypatch.setattr(torch, "zeros", too_old)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    reason = "no kernel image is available for execution on the device"
    with pytest.warns(UserWarning, match=f"cannot be used: CUDA error: {reason}. The CPU computes. Another"):
        assert precision.choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=f"device='cuda' cannot be used here: CUDA error: {reason}. Use"):
        precision.choose_device("cuda")


def test_whether_a_gpu_multiplies_bfloat16_is_asked_of_that_gpu(monkeypatch):
    asked = []

    @contextlib.contextmanager
    def on(device):
        asked.append(device)
        yield
        asked.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: asked[-1].index == 1)
    assert [multiplies_bfloat16(torch.device("cuda", index)) for index in range(3)] == [False, True, False]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU that computes is taken")
def test_without_a_gpu_auto_takes_the_cpu_and_says_nothing(recwarn):
    assert precision.choose_device("auto").type in ("cpu", "mps")
    assert not recwarn.list


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "Ω"])
def test_a_device_that_is_not_here_is_a_config_error(device):
    with pytest.raises(ConfigError, match=f"device='{device}' cannot be used here"):
        choose_execution(TrainConfig(device=device))
