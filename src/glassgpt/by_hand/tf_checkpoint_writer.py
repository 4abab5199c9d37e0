"""A TensorFlow checkpoint written, byte for byte as TensorFlow does. Chapter 08.

The opposite of `glassgpt.pretrained.tf_checkpoint`, whose docstring describes the format. Tensors are taken
one at a time, so a checkpoint may be larger than memory.
"""

from collections.abc import Container, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassgpt.by_hand.sorted_table_writer import BLOCK_BYTES, RESTART_INTERVAL, table, varint
from glassgpt.pretrained.crc32c import crc32c, mask
from glassgpt.pretrained.tf_checkpoint import DTYPES

NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


def write_bundle(
    prefix: Path,
    tensors: Iterable[tuple[str, NDArray[Any]]],
    *,
    n_shards: int = 1,
    block_bytes: int = BLOCK_BYTES,
    restart_interval: int = RESTART_INTERVAL,
    as_bfloat16: Container[str] = (),
) -> None:
    """Write `tensors`, names and arrays, as `prefix`.index and `prefix`.data-…, dealt to shards in turn.

    NumPy has no bfloat16: the uint16 arrays named in `as_bfloat16` hold the bits of such numbers.
    """
    entries = {b"": bundle_header(n_shards)}
    with ExitStack() as stack:
        files = [
            stack.enter_context(open(f"{prefix}.data-{shard:05d}-of-{n_shards:05d}", "wb"))
            for shard in range(n_shards)
        ]
        for position, (name, array) in enumerate(tensors):
            shard = position % n_shards
            data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            offset = files[shard].tell()
            files[shard].write(data)
            dtype = "bfloat16" if name in as_bfloat16 else array.dtype.name
            entries[name.encode("utf-8")] = bundle_entry(dtype, array.shape, shard, offset, data)
    Path(f"{prefix}.index").write_bytes(table(sorted(entries.items()), block_bytes, restart_interval))


def bundle_header(n_shards: int) -> bytes:
    """A BundleHeaderProto: the number of shards, and version 1 of the format."""
    return _number(1, n_shards) + _chunk(3, _number(1, 1))


def bundle_entry(dtype: str, shape: tuple[int, ...], shard: int, offset: int, data: bytes) -> bytes:
    """A BundleEntryProto. Protocol buffers leave out what is zero, but for the fixed-width checksum."""
    dims = b"".join(_chunk(2, _number(1, size)) for size in shape)
    return (
        _number(1, NUMBERS[dtype])
        + _chunk(2, dims)
        + _number(3, shard)
        + _number(4, offset)
        + _number(5, len(data))
        + varint(6 << 3 | 5)
        + mask(crc32c(data)).to_bytes(4, "little")
    )


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def _chunk(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content
