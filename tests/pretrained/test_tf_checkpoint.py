"""What was written is read bit for bit, and what is not a whole checkpoint is refused with the reason."""

import re

import numpy as np
import pytest

from glassgpt.by_hand.gpt2_stand_in import gpt2_shapes, gpt2_weights, hparams_of, write_gpt2_checkpoint
from glassgpt.by_hand.tf_checkpoint_writer import write_bundle
from glassgpt.errors import CheckpointError
from glassgpt.model.config import GPT2_SIZES
from glassgpt.pretrained import open_checkpoint

TINY = {"n_vocab": 13, "n_ctx": 5, "n_embd": 6, "n_head": 3, "n_layer": 2}
NUMBERS = ["float16", "float32", "float64", "int8", "int16", "int32", "int64"]
NUMBERS += ["uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128"]


def random_array(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Every bit pattern may occur, but in a bool."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = np.random.default_rng(seed).integers(0, 256, n_bytes, np.uint8)
    return (data % 2 if dtype == "bool" else data).view(dtype).reshape(shape)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def test_a_gpt2_checkpoint_is_read_bit_for_bit(tmp_path):
    bundle = open_checkpoint(write_gpt2_checkpoint(tmp_path, TINY, seed=3))

    assert [info.name for info in bundle.list_tensors()] == list(gpt2_shapes(TINY))
    for name, array in gpt2_weights(TINY, seed=3):
        assert_same(bundle.read_tensor(name), array)


def test_the_list_tells_where_each_tensor_lies(tmp_path):
    folder = write_gpt2_checkpoint(tmp_path, TINY)
    data = (folder / "model.ckpt.data-00000-of-00001").read_bytes()

    infos = open_checkpoint(folder).list_tensors()

    assert sum(info.n_bytes for info in infos) == len(data)
    assert {info.name: info.shape for info in infos} == gpt2_shapes(TINY)
    assert {(info.dtype, info.shard) for info in infos} == {("float32", 0)}
    for info, (_, array) in zip(infos, gpt2_weights(TINY, seed=0), strict=True):
        assert data[info.offset : info.offset + info.n_bytes] == array.tobytes()
        assert info.n_elements == array.size


@pytest.mark.parametrize("size", GPT2_SIZES)
def test_the_writer_has_the_shapes_of_each_size(size):
    n_parameters = sum(int(np.prod(shape)) for shape in gpt2_shapes(hparams_of(size)).values())

    expected = {"124M": 124_439_808, "355M": 354_823_168, "774M": 774_030_080, "1558M": 1_557_611_200}
    assert n_parameters == expected[size]


@pytest.mark.parametrize("place", [".", "model.ckpt", "model.ckpt.index"])
def test_a_checkpoint_is_named_by_its_folder_its_prefix_or_its_index(tmp_path, place):
    write_gpt2_checkpoint(tmp_path, TINY)

    assert open_checkpoint(str(tmp_path / place)).prefix == tmp_path / "model.ckpt"


@pytest.mark.parametrize(
    ("written", "name"), [("model.ckpt-7", "model.ckpt-7"), (r"m\303\251\"\\", 'mé"\\'), ("mé", "mé")]
)
def test_the_file_checkpoint_may_name_any_prefix(tmp_path, written, name):
    write_bundle(tmp_path / name, [("a", np.ones(3, np.float32))])
    (tmp_path / "checkpoint").write_text(
        f'# a comment\nmodel_checkpoint_path: "{written}"\nall_model_checkpoint_paths: "older"\n',
        encoding="utf-8",
    )

    assert open_checkpoint(tmp_path).prefix == tmp_path / name


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_dtype_is_read_bit_for_bit(tmp_path, dtype):
    arrays = {
        "odd": random_array("uint8", (3,)),
        "scalar": random_array(dtype, ()),
        "z": random_array(dtype, (2, 5)),
    }
    write_bundle(tmp_path / "m", arrays.items())
    bundle = open_checkpoint(tmp_path / "m")

    for name, array in arrays.items():
        assert_same(bundle.read_tensor(name), array)
        assert bundle.read_tensor(name).flags.aligned


def test_bfloat16_becomes_float32_of_the_same_values(tmp_path):
    torch = pytest.importorskip("torch")
    halves = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    write_bundle(tmp_path / "m", [("x", halves.view(torch.uint16).numpy())], as_bfloat16={"x"})
    bundle = open_checkpoint(tmp_path / "m")

    assert bundle.list_tensors()[0].dtype == "bfloat16"
    assert_same(bundle.read_tensor("x"), halves.float().numpy())


def test_empty_tensors_and_names_beyond_ascii_are_read(tmp_path):
    arrays = {
        "Größe": np.zeros((0, 3), np.float32),
        "空": np.zeros((2, 0, 5), np.int64),
        "z": np.ones(2, np.int8),
    }
    write_bundle(tmp_path / "m", arrays.items())
    bundle = open_checkpoint(tmp_path / "m")

    for name, array in arrays.items():
        assert_same(bundle.read_tensor(name), array)


@pytest.mark.parametrize("n_shards", [2, 3])
def test_tensors_are_read_from_several_data_files(tmp_path, n_shards):
    arrays = {f"t{i}": random_array("float32", (i, 3), i) for i in range(7)}
    write_bundle(tmp_path / "m", arrays.items(), n_shards=n_shards)
    bundle = open_checkpoint(tmp_path / "m")

    assert {info.shard for info in bundle.list_tensors()} == set(range(n_shards))
    for name, array in arrays.items():
        assert_same(bundle.read_tensor(name), array)


@pytest.mark.parametrize(("block_bytes", "restart_interval"), [(64, 1), (64, 16), (500, 2), (1 << 18, 16)])
def test_an_index_of_many_blocks_is_read(tmp_path, block_bytes, restart_interval):
    arrays = {f"model/h{i}/attn/w": np.full(1, i, np.float32) for i in range(101)}
    write_bundle(tmp_path / "m", arrays.items(), block_bytes=block_bytes, restart_interval=restart_interval)
    bundle = open_checkpoint(tmp_path / "m")

    assert [info.name for info in bundle.list_tensors()] == sorted(arrays)
    assert all(bundle.read_tensor(name) == array for name, array in arrays.items())


def test_tensors_larger_than_a_page_are_mapped_from_where_they_start(tmp_path):
    arrays = {f"t{i}": random_array("float32", (1_000 * i + 7,), i) for i in range(1, 6)}
    write_bundle(tmp_path / "m", arrays.items())
    bundle = open_checkpoint(tmp_path / "m")

    for name, array in arrays.items():
        assert_same(bundle.read_tensor(name), array)


def test_writing_into_an_array_changes_neither_the_file_nor_the_next_array(tmp_path):
    bundle = open_checkpoint(write_gpt2_checkpoint(tmp_path, TINY))
    before = (tmp_path / "model.ckpt.data-00000-of-00001").read_bytes()

    bundle.read_tensor("model/wte")[:] = 7.0

    assert (tmp_path / "model.ckpt.data-00000-of-00001").read_bytes() == before
    assert not (bundle.read_tensor("model/wte") == 7.0).any()


def test_an_array_outlives_its_bundle(tmp_path):
    array = open_checkpoint(write_gpt2_checkpoint(tmp_path, TINY)).read_tensor("model/wpe")

    assert_same(array, dict(gpt2_weights(TINY, seed=0))["model/wpe"])


def test_the_summary_goes_layer_by_layer_and_writes_alike_layers_once(tmp_path):
    hparams = {**TINY, "n_layer": 11}
    text = open_checkpoint(write_gpt2_checkpoint(tmp_path, hparams)).summary()

    assert re.search(r"^model/h0 … model/h10, 11 alike, each +510$", text, re.MULTILINE)
    assert re.search(r"^  attn/c_attn/w +1 × 6 × 18 +float32 +108$", text, re.MULTILINE)
    assert re.search(r"^model/wte +13 × 6 +float32 +78$", text, re.MULTILINE)
    assert re.search(r"^136 tensors, 22,920 bytes +5,730$", text, re.MULTILINE)
    assert text.count("attn/c_attn/w") == 1


def test_the_summary_keeps_layers_apart_that_differ(tmp_path):
    shapes = {"h0/w": (2, 3), "h1/w": (2, 3), "h2/w": (2, 5), "h10/w": (2, 3), "w": ()}
    write_bundle(tmp_path / "m", [(name, np.zeros(shape, np.float32)) for name, shape in shapes.items()])

    lines = open_checkpoint(tmp_path / "m").summary().splitlines()

    assert [line.split("  ")[0] for line in lines if line.startswith(("h", "w"))] == [
        "h0 … h1, 2 alike, each",
        "h2",
        "h10",
        "w",
    ]
    assert re.fullmatch(r"w +scalar +float32 +1", lines[-2])


def test_a_tensor_that_is_not_there_is_named_with_its_neighbours(tmp_path):
    bundle = open_checkpoint(write_gpt2_checkpoint(tmp_path, TINY))

    with pytest.raises(CheckpointError, match=r"no tensor 'model/wtf' among its 28.*model/wte"):
        bundle.read_tensor("model/wtf")


@pytest.mark.parametrize("place", ["", "nothing", "nothing/at/all", "nu\0ll", "n" * 5000])
def test_a_place_without_a_checkpoint_is_refused(tmp_path, place):
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint(str(tmp_path) + "/" + place)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"model_checkpoint_path: model.ckpt",
        b'model_checkpoint_path: ""',
        b'all_model_checkpoint_paths: "model.ckpt"',
        *(
            b'model_checkpoint_path: "%s"' % name
            for name in [rb"\777", b"\xff", rb"a\000b", b"/", b"other", b"\\"]
        ),
    ],
)
def test_a_damaged_file_checkpoint_is_refused(tmp_path, content):
    write_gpt2_checkpoint(tmp_path, TINY)
    (tmp_path / "checkpoint").write_bytes(content)

    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint(tmp_path)


def test_all_data_files_that_are_missing_or_too_short_are_named_at_once(tmp_path):
    write_bundle(tmp_path / "m", [(f"t{i}", np.ones(5, np.float32)) for i in range(3)], n_shards=3)
    (tmp_path / "m.data-00000-of-00003").unlink()
    (tmp_path / "m.data-00002-of-00003").write_bytes(bytes(19))

    with pytest.raises(
        CheckpointError, match=r"has 2 problems(.|\n)*00000-of-00003 is missing(.|\n)*19 bytes.*byte 20"
    ):
        open_checkpoint(tmp_path / "m")


def test_a_data_file_that_shrinks_after_opening_is_an_error_not_a_crash(tmp_path):
    write_bundle(tmp_path / "m", [("a", np.ones(50_000, np.float32))])
    bundle = open_checkpoint(tmp_path / "m")
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(100))

    with pytest.raises(CheckpointError, match="cannot be read"):
        bundle.read_tensor("a")


def test_the_data_of_another_checkpoint_is_refused(tmp_path):
    write_gpt2_checkpoint(tmp_path / "one", TINY, seed=1)
    write_gpt2_checkpoint(tmp_path / "two", TINY, seed=2)
    data = "model.ckpt.data-00000-of-00001"
    (tmp_path / "one" / data).write_bytes((tmp_path / "two" / data).read_bytes())

    with pytest.raises(CheckpointError, match=r"model/wte was altered: .* Download or copy"):
        open_checkpoint(tmp_path / "one").read_tensor("model/wte")
