import copy
import itertools
import mmap
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model, save_model

from glassgpt.decoding import quantize
from glassgpt.decoding.large_pages import side_by_side
from glassgpt.decoding.native import lay_in_rows
from glassgpt.model import GPT, gpt2
from tests.decoding.models import a_model, transposed

needs_smaps = pytest.mark.skipif(
    not hasattr(mmap, "MADV_HUGEPAGE") or not Path("/proc/self/smaps").exists(),
    reason="needs Linux, which has large pages and says where in /proc/self/smaps",
)


def asks_for_large_pages(tensor: torch.Tensor) -> bool:
    """Whether the tensor's memory carries the flag of MADV_HUGEPAGE, as Linux tells of each mapping. Shared
    memory gets no large pages on most systems."""
    for mapping in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())[1:]:
        first, last = (int(place, 16) for place in mapping.split()[0].split("-"))
        if first <= tensor.data_ptr() < last:
            flags = re.search(r"VmFlags:(.*)", mapping)
            assert flags is not None
            return "hg" in flags[1].split() and "sh" not in flags[1].split()
    raise AssertionError("the tensor lies nowhere")


def test_tensors_lie_side_by_side_on_whole_lines_in_their_order():
    like = [torch.ones(3, 5), torch.ones(7, 2).T, torch.ones(4, dtype=torch.int64)]
    for dtype in (None, torch.int8, torch.bfloat16):
        made = side_by_side(like, dtype)
        assert [tensor.shape for tensor in made] == [tensor.shape for tensor in like]
        assert [tensor.dtype for tensor in made] == [dtype or tensor.dtype for tensor in like]
        assert all(tensor.is_contiguous() and not tensor.any() for tensor in made)
        for tensor, following in itertools.pairwise(made):
            end = tensor.data_ptr() + tensor.numel() * tensor.itemsize
            assert end <= following.data_ptr() < end + 64
        assert not any(tensor.data_ptr() % 64 for tensor in made)
        for number, tensor in enumerate(made):
            tensor.fill_(number)
        assert all((tensor == number).all() for number, tensor in enumerate(made))


def test_they_outlive_each_other():
    last = side_by_side([torch.ones(1 << 20), torch.ones(1 << 20)])[1]
    last.fill_(3)
    torch.ones(1 << 22).sum()  # would take the memory if it had been freed
    assert (last == 3).all()


@needs_smaps
@pytest.mark.parametrize("to", ["bfloat16", "int8"])
def test_matrices_in_fewer_bits_lie_on_large_pages_in_the_order_of_use(to):
    small = quantize(GPT(gpt2("124M")), to)
    matrices = [parameter for parameter in small.parameters() if parameter.dtype != torch.float32]
    assert len(matrices) == 49  # four in each of twelve blocks, and the head
    first, *_, last = sorted(matrices, key=torch.Tensor.data_ptr)
    assert last.data_ptr() + last.nbytes - first.data_ptr() == sum(matrix.nbytes for matrix in matrices)
    assert all(map(asks_for_large_pages, matrices))
    blocks = [
        matrix.data_ptr()
        for block in small.blocks
        for matrix in (
            block.attention.qkv_proj.weight,
            block.attention.o_proj.weight,
            block.feedforward.up_proj.weight,
            block.feedforward.down_proj.weight,
        )
    ]
    assert blocks == sorted(blocks)
    assert small.head.weight.data_ptr() > blocks[-1]


def test_without_large_pages_all_is_the_same(monkeypatch):
    model = a_model()
    expected = quantize(model, "int8").state_dict()

    class Without(mmap.mmap):
        def madvise(self, *_):
            raise OSError(22, "Invalid argument")

    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", Without)
        refused = quantize(model, "int8").state_dict()
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    elsewhere = quantize(model, "int8").state_dict()
    for state in (refused, elsewhere):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())


def test_each_is_saved_and_shared_alone(tmp_path):
    made = side_by_side([torch.ones(64, 64)] * 9)
    torch.save(made[3], tmp_path / "one.pt")
    assert (tmp_path / "one.pt").stat().st_size < 2 * made[3].nbytes
    made[3].share_memory_()
    assert [tensor.is_shared() for tensor in made] == [number == 3 for number in range(9)]


def test_where_there_is_no_room_in_one_piece_there_may_be_in_many(monkeypatch):
    def refuse(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    made = side_by_side([torch.ones(3, 5), torch.ones(2)])
    assert [tensor.shape for tensor in made] == [(3, 5), (2,)]


def test_others_stay_on_their_devices():
    made = side_by_side([torch.ones(3, 5, device="meta"), torch.ones(2), torch.ones(0)], torch.int8)
    assert [tensor.device.type for tensor in made] == ["meta", "cpu", "cpu"]
    assert all(tensor.dtype == torch.int8 for tensor in made)


def test_a_quantised_model_and_one_laid_in_rows_are_saved_by_safetensors(tmp_path):
    for number, model in enumerate([quantize(a_model(), "int8"), transposed(a_model())]):
        lay_in_rows(model)
        file = str(tmp_path / f"{number}.safetensors")
        save_model(model, file)
        expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        load_model(model, file)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_a_copy_and_a_saved_file_keep_the_weights(tmp_path):
    small = quantize(a_model(), "int8")
    expected = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    torch.save(small.state_dict(), tmp_path / "weights.pt")
    copied = copy.deepcopy(small)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    saved = torch.load(tmp_path / "weights.pt")
    for state in (copied.state_dict(), saved):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())
