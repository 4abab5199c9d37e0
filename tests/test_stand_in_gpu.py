"""All that needs a GPU, run on a stand-in where there is none; and what the stand-in is strict about."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.house.repository import ROOT
from tests.stand_in_gpu import COMPILED, compiler

NEEDS_ONE = re.compile(r"def test_\w+\([^)]*\b(gpu|nothing_waits|python_with_gpu|stand_in)\b")


@pytest.mark.skipif(COMPILED in os.environ, reason="this is the run on the stand-in")
def test_all_that_needs_a_gpu_runs_on_the_stand_in():
    if torch.version.cuda or torch.version.hip:
        pytest.skip("needs a PyTorch built for the CPU alone, to which the stand-in can be added")
    if sys.platform != "linux" or shutil.which(compiler()[0]) is None:
        pytest.skip("needs Linux and a C++ compiler (Debian: apt-get install g++)")
    files = [
        path for path in (ROOT / "tests").rglob("test_*.py") if NEEDS_ONE.search(path.read_text("utf-8"))
    ]
    assert len(files) > 4
    command = [sys.executable, "-m", "pytest", "-p", "tests.stand_in_gpu.plugin", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}

    done = subprocess.run(
        [*command, *files], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.fixture
def stand_in(gpu):
    if COMPILED not in os.environ:
        pytest.skip("needs the stand-in, and a GPU is here")
    return torch.ops.stand_in_gpu


def test_tensors_of_the_cpu_and_of_the_gpu_do_not_mix(gpu):
    here, there = torch.ones(3), torch.ones(3, device=gpu)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        here + there
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.stack([here, there])
    with pytest.raises(RuntimeError, match="same device"):
        there.index_select(0, torch.tensor(1))
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(2, device=gpu, generator=torch.Generator())
    assert (there + torch.tensor(2.0)).tolist() == [3, 3, 3]  # a number may come from the CPU
    assert there[torch.tensor([2, 0])].tolist() == [1, 1]  # and indices may


def test_there_is_one_gpu(stand_in):
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.zeros(1, device="cuda:1")


def test_new_memory_holds_no_numbers(stand_in, gpu):
    assert torch.empty(5, device=gpu).isnan().all()


def test_a_copy_has_not_arrived_before_it_is_waited_for(stand_in, gpu):
    ids = torch.arange(4, device=gpu)
    early, late = (ids.to("cpu", non_blocking=True) for _ in range(2))
    assert early.tolist() != [0, 1, 2, 3]
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream())
    ids += 1
    after = ids.to("cpu", non_blocking=True)
    event.synchronize()
    assert early.tolist() == late.tolist() == [0, 1, 2, 3]
    assert after.tolist() != [1, 2, 3, 4]
    torch.cuda.synchronize()
    assert after.tolist() == [1, 2, 3, 4]
    with torch.inference_mode():
        mean = torch.ones(2, device=gpu).mean().to("cpu", non_blocking=True)
    assert mean.isnan()
    torch.cuda.synchronize()
    assert mean == 1
    ids.to("cpu", non_blocking=True)  # which nobody keeps
    torch.cuda.synchronize()


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: torch.equal(x, x.clone()),
    ],
    ids=["item", "cpu", "nonzero", "mask", "tensor", "equal"],
)
def test_waiting_is_seen(gpu, nothing_waits, wait):
    x = torch.ones(3, device=gpu)
    with nothing_waits(), pytest.raises(RuntimeError, match="synchronizing"):
        wait(x)
    wait(x)


def test_what_needs_no_wait_is_none(gpu, nothing_waits):
    x, pinned = torch.ones(3, device=gpu), torch.ones(3).pin_memory()
    with nothing_waits():
        x += pinned.to(gpu, non_blocking=True)
        x[1:2] = 7
        x.masked_fill_(x > 5, 0.0)
        copy = x.to("cpu", non_blocking=True)
    torch.cuda.synchronize()
    assert copy.tolist() == [2, 0, 2]


def record(run):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
        output = run()
    return graph, output


def test_a_recording_computes_nothing_until_it_is_played_over_what_is_there_then(gpu):
    x, total = torch.ones(3, device=gpu), torch.zeros((), device=gpu)

    def run():
        total.add_(x.sum())
        return torch.arange(3, device=gpu) * x[:, None] + total

    graph, output = record(run)
    assert (x.tolist(), total.item()) == ([1, 1, 1], 0)
    x.copy_(torch.tensor([1.0, 2.0, 3.0]))
    for n_played in (1, 2):
        graph.replay()
        assert total.item() == 6 * n_played
        expected = torch.arange(3) * torch.tensor([[1.0], [2.0], [3.0]]) + 6 * n_played
        assert torch.equal(output.cpu(), expected)


@pytest.mark.parametrize("how", ["freed", "moved"])
def test_a_recording_reads_where_the_memory_was(stand_in, gpu, how):
    x = torch.ones(3, device=gpu)
    graph, _ = record(lambda: x + 1)
    graph.replay()
    if how == "freed":
        del x
    else:
        x.data = torch.ones(3, device=gpu)
    with pytest.raises(RuntimeError, match="has been freed, or has moved"):
        graph.replay()


def test_a_recording_keeps_the_shapes_that_there_were(gpu):
    x = torch.arange(6.0, device=gpu).view(2, 3)

    def run():
        y = x + 1
        total = y.sum(0)
        y.t_()
        return total

    graph, total = record(run)
    graph.replay()
    assert total.tolist() == [5, 7, 9]


def test_a_recording_keeps_all_that_was_made_meanwhile(gpu):
    x = torch.ones(4, device=gpu)
    graph, output = record(lambda: torch.arange(4, device=gpu) * x + torch.arange(1, 5, device=gpu) * x)
    for _ in range(2):
        graph.replay()
        assert output.tolist() == [1, 3, 5, 7]


def test_another_thread_computes_while_one_records(gpu):
    x = torch.ones(3, device=gpu)

    def run():
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: (x + 1).sum().item()).result() == 6
        return x * 2

    graph, doubled = record(run)
    graph.replay()
    assert doubled.tolist() == [2, 2, 2]


def test_a_recording_has_not_computed_its_result(stand_in, gpu):
    _, output = record(lambda: torch.ones(3, device=gpu) + 1)
    assert output.isnan().all()


@pytest.mark.parametrize("wait", [lambda x: x.sum().item(), lambda x: x.cpu()], ids=["item", "cpu"])
def test_a_recording_cannot_wait(stand_in, gpu, wait):
    x = torch.ones(3, device=gpu)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        record(lambda: wait(x))
    assert x.sum().item() == 3
