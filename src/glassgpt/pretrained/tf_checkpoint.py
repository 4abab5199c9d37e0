"""TensorFlow's checkpoints (the V2 "tensor bundle"), read without TensorFlow.

    checkpoint                       text that names the prefix: model_checkpoint_path: "model.ckpt"
    model.ckpt.index                 a sorted table: "" → the header, each tensor's name → its entry
    model.ckpt.data-00000-of-00001   the tensors' bytes, one after another, little-endian
    model.ckpt.meta                  the graph that made them: not needed, never read

The header says in how many data files (shards) the tensors lie; an entry gives a tensor's dtype and shape,
its shard, offset and size there, and the masked CRC-32C of its bytes. Both are protocol buffers
(tensorflow/core/protobuf/tensor_bundle.proto). Chapter 08.
"""

import difflib
import math
import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassgpt.errors import CheckpointError, raise_problems
from glassgpt.pretrained.crc32c import crc32c, mask
from glassgpt.pretrained.sorted_table import read_table
from glassgpt.pretrained.tensor_summary import summarize
from glassgpt.pretrained.wire import (
    BYTES,
    FIXED32,
    VARINT,
    MalformedError,
    Schema,
    UnsupportedError,
    read_message,
)

POINTER = "checkpoint"
VERSION = 1  # of the bundle's format, the only one there has been

HEADER: Schema = {1: ("n_shards", VARINT), 2: ("endianness", VARINT), 3: ("version", BYTES)}
VERSIONS: Schema = {1: ("producer", VARINT), 2: ("min_consumer", VARINT)}
ENTRY: Schema = {
    1: ("dtype", VARINT),
    2: ("shape", BYTES),
    3: ("shard", VARINT),
    4: ("offset", VARINT),
    5: ("n_bytes", VARINT),
    6: ("crc32c", FIXED32),
    7: ("slices", BYTES),
}
SHAPE: Schema = {2: ("dim", BYTES), 3: ("unknown_rank", VARINT)}
DIM: Schema = {1: ("size", VARINT)}

# tensorflow/core/framework/types.proto, as far as NumPy has the same.
DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64", 9: "int64",
    10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
OTHER_DTYPES = {7: "string", 20: "resource", 21: "variant"}

COPY_AGAIN = "Download or copy the checkpoint again."


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """What the index says of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """As NumPy and PyTorch call it; or "bfloat16", which NumPy lacks; or what is not read here: "string"."""
    shard: int
    """The number of its data file."""
    offset: int
    """Where it starts in that file."""
    n_bytes: int
    crc32c: int
    """Of its bytes, masked, as it is stored."""

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)


class TensorBundle:
    """A checkpoint, opened: its index was read and checked, its tensors wait on the disk."""

    def __init__(self, prefix: Path, n_shards: int, tensors: Mapping[str, TensorInfo]) -> None:
        self.prefix = prefix
        self.n_shards = n_shards
        self._tensors = tensors

    def list_tensors(self) -> list[TensorInfo]:
        """All tensors, in the order of the index: by the bytes of their names, so h10 stands before h2."""
        return list(self._tensors.values())

    def read_tensor(self, name: str) -> NDArray[Any]:
        """The tensor `name`, whose checksum was found right.

        The array is the file, mapped into memory for it alone and privately: no bytes are copied, what the
        caller writes into it stays in memory, and it is unmapped when the array goes. As with every mapped
        file, nobody should write to it meanwhile. Two kinds are copied: those that lie at an offset their
        dtype does not like, and bfloat16, which NumPy lacks and which becomes float32 (exactly).

        Raises CheckpointError when there is no such tensor, when its bytes were altered or cut off, and for
        dtypes that hold no numbers.
        """
        info = self._require(name)
        if info.dtype not in DTYPES.values():
            raise CheckpointError(
                f"{name} in {self.prefix} holds {info.dtype} values, which are not read here. "
                f"Choose one of the tensors with numbers; list_tensors() tells their dtypes."
            )
        data = self._map(info)
        if (found := mask(crc32c(data))) != info.crc32c:
            path = _shard_path(self.prefix, info.shard, self.n_shards)
            raise CheckpointError(
                f"{name} was altered: the CRC-32C of bytes {info.offset:,} to "
                f"{info.offset + info.n_bytes:,} of {path} is {found:#010x}, and the index says "
                f"{info.crc32c:#010x}. {COPY_AGAIN}"
            )
        if info.dtype == "bfloat16":  # the upper half of a float32
            return (data.view("<u2").astype("<u4") << 16).view(np.float32).reshape(info.shape)
        array = data.view(np.dtype(info.dtype).newbyteorder("<")).reshape(info.shape)
        return array if array.flags.aligned else array.copy()

    def summary(self) -> str:
        """A table of the tensors, layer by layer; layers in a row that are alike are written once."""
        tensors = [(info.name, info.shape, info.dtype, info.n_bytes) for info in self.list_tensors()]
        return f"{self.prefix}, {self.n_shards} shard{'s' * (self.n_shards != 1)}\n\n{summarize(tensors)}"

    def _require(self, name: str) -> TensorInfo:
        if name not in self._tensors:
            near = difflib.get_close_matches(name, self._tensors, n=3) or list(self._tensors)[:3]
            raise CheckpointError(
                f"{self.prefix} has no tensor {name!r} among its {len(self._tensors):,}. "
                f"Did you mean one of these? {', '.join(near)}"
            )
        return self._tensors[name]

    def _map(self, info: TensorInfo) -> NDArray[np.uint8]:
        """The bytes of a tensor, in a private map of their own."""
        if info.n_bytes == 0:
            return np.empty(0, np.uint8)  # an empty range cannot be mapped
        path = _shard_path(self.prefix, info.shard, self.n_shards)
        before = info.offset % mmap.ALLOCATIONGRANULARITY  # maps start at pages only
        try:
            with open(path, "rb") as file:
                mapped = mmap.mmap(
                    file.fileno(), before + info.n_bytes, access=mmap.ACCESS_COPY, offset=info.offset - before
                )
        except (OSError, ValueError) as fault:  # ValueError: the file has become shorter
            raise CheckpointError(f"{path} cannot be read: {fault}. {COPY_AGAIN}") from fault
        return np.frombuffer(mapped, np.uint8, count=info.n_bytes, offset=before)


def open_checkpoint(folder_or_prefix: Path | str) -> TensorBundle:
    """Open the TensorFlow checkpoint in a folder, or the one whose files begin with a prefix.

    A folder's file `checkpoint` names the prefix. The whole index is checked, and that the data files are
    there and long enough; a tensor's bytes are checked when it is read.

    Raises CheckpointError when anything is missing, altered, cut off, or of a kind that is not read here
    (TensorFlow's old V1 format, big-endian data, partitioned variables).
    """
    prefix = _find_prefix(Path(folder_or_prefix))
    index = Path(f"{prefix}.index")
    try:
        n_shards, tensors = _read_index(index.read_bytes())
    except (OSError, ValueError) as fault:  # ValueError: a name with a null character
        raise CheckpointError(
            f"{index} cannot be read: {getattr(fault, 'strerror', None) or fault}. Give the folder of a "
            f"TensorFlow checkpoint, in which a file {POINTER!r} lies, or the path of its .index."
        ) from fault
    except MalformedError as fault:
        raise CheckpointError(f"{index} was altered or cut off: {fault}. {COPY_AGAIN}") from fault
    except UnsupportedError as fault:
        raise CheckpointError(f"{index} holds what is not read here: {fault}") from fault
    _require_data(prefix, n_shards, tensors)
    return TensorBundle(prefix, n_shards, tensors)


def _find_prefix(place: Path) -> Path:
    if not os.path.isdir(place):  # False, not an error, where a name is too long or access is denied
        return Path(str(place).removesuffix(".index"))
    pointer = place / POINTER
    try:
        line = rb'^\s*model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)+)"'
        named = re.search(line, pointer.read_bytes(), re.MULTILINE)
        if named is None:
            raise ValueError('it has no line model_checkpoint_path: "…"')
        return place / _unescape(named[1])
    except (OSError, ValueError) as fault:
        raise CheckpointError(
            f"{pointer}, which names a folder's checkpoint, cannot be read: {fault}. "
            f"If another file of {place} ends with .index, give its path; else copy the folder again."
        ) from fault


def _unescape(text: bytes) -> str:
    """A string of protocol buffers' text form, which writes bytes beyond ASCII in octal, as \\303."""
    plain = re.sub(rb"\\([0-7]{3}|.)", lambda m: bytes([int(m[1], 8)]) if len(m[1]) == 3 else m[1], text)
    return plain.decode("utf-8")


def _shard_path(prefix: Path, shard: int, n_shards: int) -> Path:
    return Path(f"{prefix}.data-{shard:05d}-of-{n_shards:05d}")


def _read_index(data: bytes) -> tuple[int, dict[str, TensorInfo]]:
    """The number of shards, and each tensor by its name. Raises MalformedError."""
    table = read_table(data)
    if b"" not in table:
        raise MalformedError("it has no header (the entry with an empty name)")
    n_shards = _read_header(table.pop(b""))
    tensors = {}
    for key, value in table.items():
        try:
            name = key.decode("utf-8")
            tensors[name] = _read_entry(name, value, n_shards)
        except UnicodeDecodeError as fault:
            raise MalformedError(f"the name {key!r} is not UTF-8") from fault
        except MalformedError as fault:
            raise MalformedError(f"{name}: {fault}") from fault
    return n_shards, tensors


def _read_header(data: bytes) -> int:
    """The number of shards, once the format was found to be one that is read here."""
    header = read_message(data, HEADER)
    if _last(header["endianness"]) != 0:
        raise UnsupportedError("numbers of a big-endian machine. Save it again on another.")
    version = read_message(_last(header["version"], b""), VERSIONS)
    if (needed := _last(version["min_consumer"])) > VERSION:
        raise UnsupportedError(f"format {needed}, where {VERSION} is the newest known. Update glassgpt.")
    return _last(header["n_shards"])


def _read_entry(name: str, data: bytes, n_shards: int) -> TensorInfo:
    entry = read_message(data, ENTRY)
    if entry["slices"]:
        raise UnsupportedError(f"{name}, a partitioned variable. Save it again in one piece.")
    number = _last(entry["dtype"])
    info = TensorInfo(
        name=name,
        shape=_read_shape(_last(entry["shape"], b"")),
        dtype=DTYPES.get(number) or OTHER_DTYPES.get(number) or f"type {number}",
        shard=_last(entry["shard"]),
        offset=_last(entry["offset"]),
        n_bytes=_last(entry["n_bytes"]),
        crc32c=_last(entry["crc32c"]),
    )
    if info.shard >= n_shards:
        raise MalformedError(f"it lies in shard {info.shard:,} of {n_shards:,}, counted from 0")
    if number in DTYPES:
        needed = info.n_elements * (2 if info.dtype == "bfloat16" else np.dtype(info.dtype).itemsize)
        if info.n_bytes != needed:
            raise MalformedError(
                f"{info.dtype} of shape {info.shape} takes {needed:,} bytes, and it has {info.n_bytes:,}"
            )
    return info


def _read_shape(data: bytes) -> tuple[int, ...]:
    message = read_message(data, SHAPE)
    if _last(message["unknown_rank"]):
        raise MalformedError("its shape is not known")
    shape = tuple(_last(read_message(dim, DIM)["size"]) for dim in message["dim"])
    # More than an array can have: a damaged number, or a negative one, since those are stored as very large.
    if len(shape) > 32 or math.prod(max(size, 1) for size in shape) >= 1 << 48:
        raise MalformedError(f"no tensor has the shape {shape}")
    return shape


def _last(values: list[Any], default: Any = 0) -> Any:
    """A field that was not written has its default; of one written twice, the last counts."""
    return values[-1] if values else default


def _require_data(prefix: Path, n_shards: int, tensors: Mapping[str, TensorInfo]) -> None:
    """Raise CheckpointError unless each data file is there and reaches to the end of its last tensor."""
    ends: dict[int, int] = {}
    for info in tensors.values():
        ends[info.shard] = max(ends.get(info.shard, 0), info.offset + info.n_bytes)
    problems = []
    for shard, end in sorted(ends.items()):
        path = _shard_path(prefix, shard, n_shards)
        if not path.is_file():
            problems.append(f"{path} is missing. {COPY_AGAIN}")
        elif (size := path.stat().st_size) < end:
            problems.append(f"{path} has {size:,} bytes, and its tensors reach to byte {end:,}. {COPY_AGAIN}")
    raise_problems(CheckpointError, problems, f"The checkpoint {prefix}")
