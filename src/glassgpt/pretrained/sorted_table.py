"""The sorted table: LevelDB's file of keys and values, in which TensorFlow keeps a checkpoint's index.

    data block …         entries in the order of their keys
    metaindex block      empty here
    index block          one entry a data block: a key not before its last, and its handle
    footer, 48 bytes     handles of the metaindex and the index block, zeros, the magic number

A handle is two varints: where a block starts and how long it is. After each block stand a byte for its
compression (0 none, 1 snappy) and four for the masked CRC-32C of both.

A block's entry is three varints, then bytes: how much of the previous key it shares, how much key follows,
how long the value is. Every few entries nothing is shared; the block ends with the positions of those restart
points and their number, four bytes each (LevelDB, doc/table_format.md).
"""

from collections.abc import Iterator

from glassgpt.pretrained.crc32c import crc32c, mask
from glassgpt.pretrained.wire import MalformedError, UnsupportedError, read_varint

FOOTER_BYTES = 48
TRAILER_BYTES = 5
MAGIC = 0xDB4775248B80FB57
COMPRESSIONS = {1: "snappy", 2: "zstd"}


def read_table(data: bytes) -> dict[bytes, bytes]:
    """All keys of the table `data`, in ascending order, with their values.

    Every byte is checked: blocks by their checksums, the footer by the blocks it leads to. Raises
    MalformedError at the first that is wrong, and UnsupportedError for a compressed block.
    """
    if len(data) < FOOTER_BYTES:
        raise MalformedError(f"it has {len(data):,} bytes, and a table's footer alone has {FOOTER_BYTES}")
    footer = data[-FOOTER_BYTES:]
    magic = int.from_bytes(footer[-8:], "little")
    if magic != MAGIC:
        raise MalformedError(f"it ends with {magic:#018x}, not with a table's magic number {MAGIC:#018x}")
    metaindex, at = _read_handle(footer, 0)
    index, at = _read_handle(footer, at)
    if any(footer[at:-8]):
        raise MalformedError("the padding in its footer is not zero")

    table: dict[bytes, bytes] = {}
    last: bytes | None = None
    if list(_entries(_block(data, metaindex))):
        raise MalformedError("its metaindex names filters, which no checkpoint has")
    for _, place in _entries(_block(data, index)):
        handle, end = _read_handle(place, 0)
        if end != len(place):
            raise MalformedError(f"a block's handle has {len(place)} bytes, not {end}")
        for key, value in _entries(_block(data, handle)):
            if last is not None and key <= last:
                raise MalformedError(f"key {key!r} follows {last!r}: they are not in ascending order")
            table[key] = value
            last = key
    return table


def _read_handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """A block's (start, length), and where the next byte of `data` lies."""
    start, at = read_varint(data, at)
    length, at = read_varint(data, at)
    return (start, length), at


def _block(data: bytes, handle: tuple[int, int]) -> bytes:
    """What the block at `handle` holds, once its checksum was found right."""
    start, length = handle
    end = start + length
    if end + TRAILER_BYTES > len(data) - FOOTER_BYTES:
        raise MalformedError(f"a block at bytes {start:,} to {end:,} reaches beyond the blocks' end")
    checked, stored = data[start : end + 1], int.from_bytes(data[end + 1 : end + TRAILER_BYTES], "little")
    if mask(crc32c(checked)) != stored:
        raise MalformedError(f"the block at bytes {start:,} to {end:,} was altered: its CRC-32C differs")
    if compression := checked[-1]:
        name = COMPRESSIONS.get(compression, f"method {compression}")
        raise UnsupportedError(
            f"a block compressed with {name}, as TensorFlow never writes it. Write the table uncompressed."
        )
    return checked[:-1]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys of `block` in full, and their values."""
    n_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * n_restarts
    if end < 0:
        raise MalformedError(f"a block of {len(block):,} bytes cannot hold {n_restarts:,} restart points")
    key, at = b"", 0
    while at < end:
        n_shared, at = read_varint(block, at)
        n_own, at = read_varint(block, at)
        n_value, at = read_varint(block, at)
        if n_shared > len(key) or at + n_own + n_value > end:
            raise MalformedError(
                f"an entry shares {n_shared:,} bytes with a key of {len(key):,}, and has "
                f"{n_own + n_value:,} of its own, where {end - at:,} are left"
            )
        key = key[:n_shared] + block[at : at + n_own]
        at += n_own
        yield key, block[at : at + n_value]
        at += n_value
