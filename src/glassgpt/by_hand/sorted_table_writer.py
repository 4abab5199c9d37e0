"""A sorted table written, byte for byte as TensorFlow does. Chapter 08.

The opposite of `glassgpt.pretrained.sorted_table`, whose docstring draws the format.
"""

from glassgpt.pretrained.crc32c import crc32c, mask
from glassgpt.pretrained.sorted_table import MAGIC

BLOCK_BYTES = 256 << 10  # TensorFlow's, for checkpoints; LevelDB's own is 4 KiB
RESTART_INTERVAL = 16


def table(
    entries: list[tuple[bytes, bytes]],
    block_bytes: int = BLOCK_BYTES,
    restart_interval: int = RESTART_INTERVAL,
) -> bytes:
    """The table of `entries`, whose keys ascend; a block ends once it has `block_bytes`."""
    written, index = bytearray(), []
    handle = b""
    builder, last = BlockBuilder(restart_interval), b""
    for position, (key, value) in enumerate(entries):
        if not builder.content and position:
            index.append((_separator(last, key), handle))
        builder.add(key, value)
        last = key
        if builder.n_bytes >= block_bytes:
            handle = _append_block(written, builder)
            builder = BlockBuilder(restart_interval)
    if builder.content:
        handle = _append_block(written, builder)
    index.append((_successor(last), handle))

    footer = _append_block(written, BlockBuilder(restart_interval))  # the metaindex
    index_builder = BlockBuilder(1)
    for key, value in index:
        index_builder.add(key, value)
    footer += _append_block(written, index_builder)
    return bytes(written) + footer.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


class BlockBuilder:
    """A block of a sorted table: keys without what they share with the one before."""

    def __init__(self, restart_interval: int) -> None:
        self.content = bytearray()
        self._restart_interval = restart_interval
        self._restarts = [0]
        self._n_since_restart = 0
        self._last = b""

    def add(self, key: bytes, value: bytes) -> None:
        if self._n_since_restart == self._restart_interval:
            self._restarts.append(len(self.content))
            self._n_since_restart = 0
        n_shared = _n_shared(self._last, key) if self._n_since_restart else 0
        self.content += varint(n_shared) + varint(len(key) - n_shared) + varint(len(value))
        self.content += key[n_shared:] + value
        self._n_since_restart += 1
        self._last = key

    @property
    def n_bytes(self) -> int:
        return len(self.content) + 4 * len(self._restarts) + 4

    def finished(self) -> bytes:
        numbers = [*self._restarts, len(self._restarts)]
        return bytes(self.content) + b"".join(number.to_bytes(4, "little") for number in numbers)


def block_with_trailer(content: bytes, compression: int = 0) -> bytes:
    """A block as it lies in the file."""
    checked = content + bytes([compression])
    return checked + mask(crc32c(checked)).to_bytes(4, "little")


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def _append_block(written: bytearray, builder: BlockBuilder) -> bytes:
    """Append a block to the file; return its handle."""
    content = builder.finished()
    handle = varint(len(written)) + varint(len(content))
    written += block_with_trailer(content)
    return handle


def _n_shared(one: bytes, other: bytes) -> int:
    n_most = min(len(one), len(other))
    return next((at for at in range(n_most) if one[at] != other[at]), n_most)


def _separator(last: bytes, following: bytes) -> bytes:
    """A short key that is not before `last`, but before `following`: it stands for a block in the index."""
    at = _n_shared(last, following)
    if at < min(len(last), len(following)) and last[at] + 1 < following[at]:
        return last[:at] + bytes([last[at] + 1])
    return last


def _successor(last: bytes) -> bytes:
    """A short key that is not before `last`."""
    return next((last[:at] + bytes([byte + 1]) for at, byte in enumerate(last) if byte < 0xFF), last)
