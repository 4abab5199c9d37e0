"""Reading a TensorFlow checkpoint of GPT-2 124M: ours with its checksums, TensorFlow's reader, the bare file.

The file lies in the disk's cache. Ours maps every tensor and verifies its CRC-32C; TensorFlow's
`load_checkpoint` copies and verifies them; the raw read is one `read()` of the data file: its bytes in fresh
memory, and nothing else.
"""

import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.loading import folder, write_folders
from benchmarks.processes import seconds
from benchmarks.rows import OURS, Check, Ratio, Row, Setting, Side, Taken


def repeated(read: Callable[[], Any], output: Any, setting: Setting) -> Taken:
    """Seconds of three reads behind one that is not counted."""
    read()
    return Taken([seconds(read) for _ in range(1 if setting.quick else 3)], output)


def read_ours(setting: Setting) -> Taken:
    from glassgpt.pretrained import open_checkpoint

    def read() -> dict[str, Any]:
        bundle = open_checkpoint(folder(setting, "openai"))
        return {info.name: bundle.read_tensor(info.name) for info in bundle.list_tensors()}

    return repeated(read, sums(read()), setting)


def read_tensorflow(setting: Setting) -> Taken:
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}  # no greeting
    import tensorflow as tf

    def read() -> dict[str, Any]:
        reader = tf.train.load_checkpoint(str(folder(setting, "openai")))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}

    return repeated(read, sums(read()), setting)


def read_raw(setting: Setting) -> Taken:
    (path,) = folder(setting, "openai").glob("*.data-*")
    return repeated(path.read_bytes, None, setting)


def sums(tensors: Mapping[str, Any]) -> dict[str, int]:
    return {name: zlib.crc32(tensor.tobytes()) for name, tensor in tensors.items()}


def check_tensors(setting: Setting, outputs: Mapping[str, Any]) -> Check:
    theirs = outputs.get("TensorFlow", outputs[OURS])
    how = (
        f"{len(theirs)} tensors by name and CRC-32"
        if "TensorFlow" in outputs
        else "there is no TensorFlow here"
    )
    return Check(outputs[OURS] == theirs, f"compared: {how}.")


ROWS = [
    Row(
        name="tf-checkpoint",
        what="read a TensorFlow checkpoint of 124M",
        unit="s",
        how="every tensor of 498 MB, its checksum verified.",
        sides=(
            Side(OURS, read_ours),
            Side("TensorFlow", read_tensorflow, "tensorflow", "tensorflow-cpu"),
            Side("reading the file raw", read_raw),
        ),
        check=check_tensors,
        goals=(
            Ratio(beside=("TensorFlow",), at_least=1.0),
            Ratio(beside=("reading the file raw",), at_least=0.67),
        ),
        prepare=write_folders,
        rounds=3,
    )
]
