"""Writes TensorFlow checkpoints, byte for byte as TensorFlow does, and GPT-2's from random weights.

The opposite of `glassgpt.pretrained.tf_checkpoint` and `sorted_table`, whose docstrings describe the format.
Tensors are taken one at a time, so a checkpoint may be larger than memory.
"""

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassgpt.pretrained.crc32c import crc32c, mask
from glassgpt.pretrained.sorted_table import MAGIC
from glassgpt.pretrained.tf_checkpoint import DTYPES

NUMBERS = {dtype: number for number, dtype in DTYPES.items()}
BLOCK_BYTES = 256 << 10  # TensorFlow's, for checkpoints; LevelDB's own is 4 KiB
RESTART_INTERVAL = 16

HPARAMS = {
    size: {"n_vocab": 50257, "n_ctx": 1024, "n_embd": n_embd, "n_head": n_head, "n_layer": n_layer}
    for size, n_embd, n_head, n_layer in [
        ("124M", 768, 12, 12),
        ("355M", 1024, 16, 24),
        ("774M", 1280, 20, 36),
        ("1558M", 1600, 25, 48),
    ]
}


def write_gpt2_checkpoint(folder: Path, size: str | Mapping[str, int], seed: int = 0) -> Path:
    """Fill `folder` with the files that OpenAI publishes for a GPT-2, its weights random; return `folder`.

    `size` is one of `HPARAMS`, or a dictionary with the same five keys. The vocabulary's two files are not
    written; model.ckpt.meta is a placeholder, as nothing reads it.
    """
    hparams = HPARAMS[size] if isinstance(size, str) else dict(size)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hparams.json").write_text(json.dumps(hparams), encoding="utf-8")
    (folder / "model.ckpt.meta").write_text("Where OpenAI keeps the graph.\n", encoding="utf-8")
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n', encoding="utf-8"
    )
    write_bundle(folder / "model.ckpt", gpt2_weights(hparams, seed))
    return folder


def gpt2_shapes(hparams: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of GPT-2's tensors, in the order of TensorFlow's files."""
    D = hparams["n_embd"]
    block = {
        "attn/c_attn/b": (3 * D,), "attn/c_attn/w": (1, D, 3 * D),
        "attn/c_proj/b": (D,), "attn/c_proj/w": (1, D, D),
        "ln_1/b": (D,), "ln_1/g": (D,), "ln_2/b": (D,), "ln_2/g": (D,),
        "mlp/c_fc/b": (4 * D,), "mlp/c_fc/w": (1, D, 4 * D),
        "mlp/c_proj/b": (D,), "mlp/c_proj/w": (1, 4 * D, D),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        f"model/h{layer}/{name}": shape
        for layer in range(hparams["n_layer"])
        for name, shape in block.items()
    }
    shapes |= {"model/ln_f/b": (D,), "model/ln_f/g": (D,)}
    shapes |= {"model/wpe": (hparams["n_ctx"], D), "model/wte": (hparams["n_vocab"], D)}
    return dict(sorted(shapes.items()))


def gpt2_weights(hparams: Mapping[str, int], seed: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """GPT-2's tensors by name, about as large as in its initialisation, but none of them constant."""
    random = np.random.default_rng(seed)
    for name, shape in gpt2_shapes(hparams).items():
        values = random.standard_normal(shape, np.float32) * np.float32(0.02)
        yield name, values + np.float32(name.endswith("/g"))


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
    entries = {b"": _number(1, n_shards) + _chunk(3, _number(1, 1))}
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


def table(
    entries: list[tuple[bytes, bytes]], block_bytes: int, restart_interval: int = RESTART_INTERVAL
) -> bytes:
    """The sorted table of `entries`, whose keys ascend; a block ends once it has `block_bytes`."""
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


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def _chunk(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content
