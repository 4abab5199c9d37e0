"""TensorFlow as the oracle: we read what it writes, and it reads what our writer writes."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from glassgpt.by_hand.gpt2_stand_in import gpt2_weights, write_gpt2_checkpoint
from glassgpt.by_hand.tf_checkpoint_writer import write_bundle
from glassgpt.pretrained import open_checkpoint

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="needs TensorFlow, the oracle: pip install tensorflow-cpu (on macOS: tensorflow)",
)

TINY = {"n_vocab": 13, "n_ctx": 5, "n_embd": 6, "n_head": 3, "n_layer": 11}
MANY = {f"model/h{i:04d}/attn/c_attn/w": np.full((1, 2), i, np.float32) for i in range(7_001)}
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
OTHERS = ["bool", "float16", "float32", "float64", "complex64", "complex128"]
KINDS = {kind: np.arange(7).astype(kind) for kind in INTEGERS + OTHERS}
SHAPES = {
    "scalar": np.array(3, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "Größe": np.ones((2, 3, 5), np.float64),
    "odd/int8": np.ones(3, np.int8),
    "odd/then_float64": np.ones(2),
}
WRITTEN = {"kinds": KINDS, "shapes": SHAPES, "many": MANY}

# A process of its own: TensorFlow and PyTorch bring their own versions of the same native libraries.
PROGRAM = """
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def save(prefix, arrays):
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=[tf.constant(array) for array in arrays.values()],
    )


given, made = Path(sys.argv[1]), Path(sys.argv[2])
for path in sorted(given.glob("*.npz")):
    save(str(made / path.stem), dict(np.load(path)))

arrays = {f"t{i}": np.full((i, 3), i, np.float32) for i in range(7)}
halves = [dict(list(arrays.items())[:3]), dict(list(arrays.items())[3:])]
for i, half in enumerate(halves):
    save(str(made / f"half{i}"), half)
tf.raw_ops.MergeV2Checkpoints(
    checkpoint_prefixes=[str(made / "half0"), str(made / "half1")], destination_prefix=str(made / "merged")
)

save(str(made / "bfloat16"), {"x": tf.cast(tf.range(7) / 3, tf.bfloat16)})
tf.train.Checkpoint(w=tf.Variable([[1.5, 2.5, 3.5]]), n=tf.Variable(7, dtype=tf.int64)).save(
    str(made / "objects" / "ckpt")
)

for prefix in ["ours/model.ckpt", "ours/many"]:
    reader = tf.train.load_checkpoint(str(given / prefix))
    tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    np.savez(made / prefix.replace("/", "_"), **tensors)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder that TensorFlow filled: what it wrote, and what it read of ours."""
    given, made = tmp_path_factory.mktemp("given"), tmp_path_factory.mktemp("made")
    for name, arrays in WRITTEN.items():
        np.savez(given / f"{name}.npz", **arrays)
    write_gpt2_checkpoint(given / "ours", TINY, seed=5)
    write_bundle(given / "ours" / "many", MANY.items())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, given, made], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return made


def assert_same(found, expected):
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", WRITTEN)
def test_what_tensorflow_writes_is_read_bit_for_bit(made, name):
    bundle = open_checkpoint(made / name)

    assert {info.name for info in bundle.list_tensors()} == set(WRITTEN[name])
    for tensor, array in WRITTEN[name].items():
        assert_same(bundle.read_tensor(tensor), array)


@pytest.mark.parametrize("name", WRITTEN)
def test_our_writer_writes_the_same_bytes_as_tensorflow(made, tmp_path, name):
    write_bundle(tmp_path / name, WRITTEN[name].items())

    for end in [".index", ".data-00000-of-00001"]:
        assert (tmp_path / f"{name}{end}").read_bytes() == (made / f"{name}{end}").read_bytes()


def test_the_index_of_many_tensors_has_more_than_one_block(made):
    assert (made / "many.index").stat().st_size > 1 << 18


def test_tensors_that_tensorflow_merged_from_two_files_are_read(made):
    bundle = open_checkpoint(made / "merged")

    assert {info.shard for info in bundle.list_tensors()} == {0, 1}
    for i in range(7):
        assert_same(bundle.read_tensor(f"t{i}"), np.full((i, 3), i, np.float32))


def test_bfloat16_has_the_values_that_tensorflow_cast_to(made):
    torch = pytest.importorskip("torch")
    expected = (torch.arange(7, dtype=torch.float64) / 3).bfloat16().float().numpy()

    assert_same(open_checkpoint(made / "bfloat16").read_tensor("x"), expected)


def test_a_checkpoint_of_objects_is_read_by_its_folder_but_for_its_strings(made):
    bundle = open_checkpoint(made / "objects")
    dtypes = {info.name: info.dtype for info in bundle.list_tensors()}

    assert dtypes.pop("_CHECKPOINTABLE_OBJECT_GRAPH") == "string"
    assert_same(bundle.read_tensor("w/.ATTRIBUTES/VARIABLE_VALUE"), np.array([[1.5, 2.5, 3.5]], np.float32))
    assert bundle.read_tensor("n/.ATTRIBUTES/VARIABLE_VALUE") == 7
    assert "_CHECKPOINTABLE_OBJECT_GRAPH" in bundle.summary()


@pytest.mark.parametrize(
    ("file", "expected"),
    [("ours_model.ckpt.npz", lambda: dict(gpt2_weights(TINY, seed=5))), ("ours_many.npz", lambda: MANY)],
)
def test_tensorflow_reads_what_our_writer_writes(made, file, expected):
    read = np.load(made / file)

    assert set(read) == set(expected())
    for name, array in expected().items():
        assert_same(read[name], array)
