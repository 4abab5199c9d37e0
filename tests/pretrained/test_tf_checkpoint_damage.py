"""A checkpoint cut anywhere or altered anywhere is a CheckpointError: never a wrong tensor, never a crash."""

import re

import numpy as np
import pytest

from glassgpt.by_hand.sorted_table_writer import BLOCK_BYTES, BlockBuilder, block_with_trailer, table, varint
from glassgpt.by_hand.tf_checkpoint_writer import bundle_entry, write_bundle
from glassgpt.errors import CheckpointError
from glassgpt.pretrained import open_checkpoint
from glassgpt.pretrained.sorted_table import FOOTER_BYTES, MAGIC, read_table
from glassgpt.pretrained.wire import BYTES, FIXED32, VARINT, MalformedError, read_message, read_varint

ARRAYS = {
    "h0/b": np.arange(3, dtype=np.float32),
    "h0/w": np.arange(6, dtype=np.int16).reshape(2, 3),
    "h1/b": np.float64(0.5).reshape(()),
    "wte": np.array([True, False, True]),
}
HEADER = bytes.fromhex("08011a020801")  # one shard, version 1
MASKS = [1 << bit for bit in range(8)] + [0xFF]


@pytest.fixture
def prefix(tmp_path):
    """A checkpoint with two shards and an index of several blocks, small enough to be damaged everywhere."""
    write_bundle(tmp_path / "m", ARRAYS.items(), n_shards=2, block_bytes=40, restart_interval=2)
    return tmp_path / "m"


def index_of(prefix):
    return prefix.with_name("m.index")


def data_of(prefix, shard):
    return prefix.with_name(f"m.data-{shard:05d}-of-00002")


def read_all(prefix):
    bundle = open_checkpoint(prefix)
    bundle.summary()
    return {info.name: bundle.read_tensor(info.name) for info in bundle.list_tensors()}


def test_what_is_damaged_here_is_read_when_it_is_whole(prefix):
    tensors = read_all(prefix)

    assert len(index_of(prefix).read_bytes()) < 500
    assert {name: array.tobytes() for name, array in tensors.items()} == {
        name: array.tobytes() for name, array in ARRAYS.items()
    }


def test_an_index_cut_at_any_length_is_refused(prefix):
    whole = index_of(prefix).read_bytes()

    for length in range(len(whole)):
        index_of(prefix).write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"m\.index was altered or cut off"):
            open_checkpoint(prefix)


def test_an_index_that_lost_its_beginning_or_gained_an_end_is_refused(prefix):
    whole = index_of(prefix).read_bytes()

    for damaged in [
        whole[1:],
        whole[7:],
        whole[-FOOTER_BYTES:],
        whole + b"\0",
        b"\0" + whole,
        whole + whole[:48],
    ]:
        index_of(prefix).write_bytes(damaged)
        with pytest.raises(CheckpointError, match="altered or cut off"):
            open_checkpoint(prefix)


def test_an_index_altered_at_any_byte_is_refused(prefix):
    whole = index_of(prefix).read_bytes()

    for at in range(len(whole)):
        for flipped in MASKS:
            damaged = bytearray(whole)
            damaged[at] ^= flipped
            index_of(prefix).write_bytes(damaged)
            with pytest.raises(CheckpointError, match="altered or cut off"):
                open_checkpoint(prefix)


@pytest.mark.parametrize("shard", [0, 1])
def test_data_cut_at_any_length_are_refused(prefix, shard):
    whole = data_of(prefix, shard).read_bytes()

    for length in range(len(whole)):
        data_of(prefix, shard).write_bytes(whole[:length])
        with pytest.raises(
            CheckpointError, match=f"has {length} bytes, and its tensors reach to byte {len(whole)}"
        ):
            open_checkpoint(prefix)


@pytest.mark.parametrize("shard", [0, 1])
def test_data_altered_at_any_byte_spoil_the_tensor_there_and_no_other(prefix, shard):
    whole = data_of(prefix, shard).read_bytes()
    bundle = open_checkpoint(prefix)

    for at in range(len(whole)):
        for flipped in MASKS:
            damaged = bytearray(whole)
            damaged[at] ^= flipped
            data_of(prefix, shard).write_bytes(damaged)
            for info in bundle.list_tensors():
                if info.shard == shard and info.offset <= at < info.offset + info.n_bytes:
                    with pytest.raises(CheckpointError, match=f"{info.name} was altered"):
                        bundle.read_tensor(info.name)
                else:
                    assert bundle.read_tensor(info.name).tobytes() == ARRAYS[info.name].tobytes()


def file_of_block(content: bytes, compression: int = 0, metaindex: bytes | None = None) -> bytes:
    """A table of one data block that holds `content`, whatever that is; all checksums are right."""
    written = block_with_trailer(content, compression)
    index = BlockBuilder(1)
    index.add(b"~", varint(0) + varint(len(content)))
    handles = b""
    for block in (BlockBuilder(1).finished() if metaindex is None else metaindex, index.finished()):
        handles += varint(len(written)) + varint(len(block))
        written += block_with_trailer(block)
    return written + handles.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def test_any_byte_of_an_entry_may_be_wrong_under_a_right_checksum_without_a_crash(tmp_path):
    """Such a file is forged, not damaged: nobody can know that it is wrong, but it must do no harm."""
    entries = {b"": HEADER, b"h0/b": bundle_entry("float32", (3,), 0, 0, bytes(12))}
    entries[b"h0/w"] = bundle_entry("int16", (2, 3), 0, 12, bytes(12))
    builder = BlockBuilder(2)
    for key, value in entries.items():
        builder.add(key, value)
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(24))
    whole = builder.finished()
    (tmp_path / "m.index").write_bytes(file_of_block(whole))
    assert set(read_all(tmp_path / "m")) == {"h0/b", "h0/w"}

    refused = 0
    for at in range(len(whole)):
        for flipped in MASKS:
            forged = bytearray(whole)
            forged[at] ^= flipped
            (tmp_path / "m.index").write_bytes(file_of_block(bytes(forged)))
            try:
                read_all(tmp_path / "m")
            except CheckpointError:
                refused += 1
    assert refused > len(whole) * len(MASKS) // 2


def refusal(tmp_path, content: bytes) -> str:
    """What is said of an index with the bytes `content`."""
    (tmp_path / "m.index").write_bytes(content)
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(100))
    with pytest.raises(CheckpointError) as caught:
        read_all(tmp_path / "m")
    return str(caught.value)


def bundle_of(entry: bytes, header: bytes = HEADER, name: bytes = b"a") -> bytes:
    return table([(b"", header), (name, entry)], BLOCK_BYTES)


def entry_of(
    *, dtype: int = 1, shape: bytes = b"", shard: int = 0, offset: int = 0, n_bytes: int = 4
) -> bytes:
    fields = [(1, dtype), (3, shard), (4, offset), (5, n_bytes)]
    return (
        b"\x12" + varint(len(shape)) + shape + b"".join(varint(n << 3) + varint(value) for n, value in fields)
    )


def dims(*sizes: int) -> bytes:
    return b"".join(b"\x12" + varint(1 + len(varint(size))) + b"\x08" + varint(size) for size in sizes)


GOOD = bundle_entry("float32", (3,), 0, 0, bytes(12))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes, and a table's footer alone has 48"),
        (bytes(100), "ends with 0x0000000000000000, not with a table's magic number 0xdb4775248b80fb57"),
        (file_of_block(BlockBuilder(1).finished()), "no header"),
        (table([(b"a", GOOD)], BLOCK_BYTES), "no header"),
        (table([(b"", HEADER), (b"b", GOOD), (b"a", GOOD)], BLOCK_BYTES), "not in ascending order"),
        (table([(b"", HEADER), (b"a", GOOD), (b"a", GOOD)], BLOCK_BYTES), "not in ascending order"),
        (file_of_block(b"\x01\x01\0a" + bytes(4)), "shares 1 bytes with a key of 0"),
        (file_of_block(b"\0\x02\0a" + bytes(4)), "2 of its own, where 1 are left"),
        (file_of_block(b"\0\0\x09a" + bytes(4)), "9 of its own, where 1 are left"),
        (file_of_block(b"\0\0" + bytes(4)), "shares|no end"),
        (file_of_block(b""), "0 bytes cannot hold|0 restart points|no header"),
        (file_of_block(b"\xff\xff\xff\xff"), "cannot hold 4,294,967,295 restart points"),
        (bundle_of(GOOD, header=b"\x08\x01\x10\x01"), "big-endian machine. Save it again"),
        (bundle_of(GOOD, header=b"\x08\x01\x1a\x02\x10\x02"), "format 2, where 1 is the newest"),
        (bundle_of(GOOD, header=b"\x1a\x02\x08\x01"), "shard 0 of 0"),
        (bundle_of(GOOD, header=b"\x0a\x01\x01"), "'n_shards' has wire type 2, not 0"),
        (bundle_of(GOOD, name=b"\xff"), "not UTF-8"),
        (bundle_of(GOOD + b"\x3a\0"), "a, a partitioned variable. Save it again in one piece"),
        (bundle_of(b"\x80"), "a: the number at byte 0 has no end"),
        (bundle_of(b"\x08" + b"\x80" * 9 + b"\x02"), "more than 64 bits"),
        (bundle_of(b"\x08" + b"\x80" * 10 + b"\x01"), "more than 64 bits"),
        (bundle_of(b"\x08\x81\x00"), "superfluous zeros"),
        (bundle_of(b"\x00\x01"), "field has number 0"),
        (bundle_of(b"\x0b"), "field 1 has wire type 3, which does not exist"),
        (bundle_of(b"\x12\x05ab"), "field 2 has 5 bytes, where 2 are left"),
        (bundle_of(b"\x35\x01\x02\x03"), "field 6 has 4 bytes, where 3 are left"),
        (bundle_of(entry_of(n_bytes=8)), "takes 4 bytes, and it has 8"),
        (bundle_of(entry_of(shape=dims(2**64 - 1))), "no tensor has the shape"),
        (bundle_of(entry_of(shape=dims(2**32, 2**32))), "no tensor has the shape"),
        (bundle_of(entry_of(shape=dims(0, 2**62), n_bytes=0)), "no tensor has the shape"),
        (bundle_of(entry_of(shape=dims(*[1] * 33))), "no tensor has the shape"),
        (bundle_of(entry_of(shape=b"\x18\x01")), "shape is not known"),
        (bundle_of(entry_of(shard=1)), "shard 1 of 1"),
        (bundle_of(entry_of(offset=2**63)), "its tensors reach to byte 9,223,372,036,854,775,812"),
        (bundle_of(entry_of(offset=97)), "has 100 bytes, and its tensors reach to byte 101"),
        (bundle_of(entry_of()), "a was altered: the CRC-32C of bytes 0 to 4"),
        (bundle_of(entry_of(dtype=7)), "a in .* holds string values"),
        (bundle_of(entry_of(dtype=99)), "a in .* holds type 99 values"),
    ],
)  # fmt: skip
def test_a_forged_index_is_refused_with_the_reason(tmp_path, content, reason):
    message = refusal(tmp_path, content)

    assert re.search(reason, message), message


@pytest.mark.parametrize(("compression", "name"), [(1, "snappy"), (2, "zstd"), (7, "method 7")])
def test_a_compressed_index_is_refused_by_the_name_of_its_compression(tmp_path, compression, name):
    message = refusal(tmp_path, file_of_block(b"abc", compression))

    assert f"a block compressed with {name}" in message
    assert message.endswith("Write the table uncompressed.")


def test_a_table_with_filters_is_refused(tmp_path):
    builder = BlockBuilder(1)
    builder.add(b"filter.leveldb.BuiltinBloomFilter2", b"\0\0")

    assert "filters" in refusal(
        tmp_path, file_of_block(BlockBuilder(1).finished(), metaindex=builder.finished())
    )


def test_an_index_that_names_a_block_beyond_the_file_is_refused():
    index = BlockBuilder(1)
    index.add(b"~", varint(5) + varint(2**63))
    blocks = [BlockBuilder(1).finished(), index.finished()]
    written, handles = b"", b""
    for block in blocks:
        handles += varint(len(written)) + varint(len(block))
        written += block_with_trailer(block)

    with pytest.raises(MalformedError, match="reaches beyond"):
        read_table(written + handles.ljust(40, b"\0") + MAGIC.to_bytes(8, "little"))


def test_strings_are_listed_but_not_read(tmp_path):
    entries = [(b"", HEADER), (b"graph", entry_of(dtype=7, n_bytes=9)), (b"w", GOOD)]
    (tmp_path / "m.index").write_bytes(table(entries, BLOCK_BYTES))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(12))
    bundle = open_checkpoint(tmp_path / "m")

    assert [(info.name, info.dtype) for info in bundle.list_tensors()] == [
        ("graph", "string"),
        ("w", "float32"),
    ]
    assert (bundle.read_tensor("w") == 0).all()
    with pytest.raises(CheckpointError, match=r"graph in .* holds string values"):
        bundle.read_tensor("graph")


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2**32, 2**63, 2**64 - 1])
def test_a_varint_is_read_back(value):
    assert read_varint(b"x" + varint(value) + b"y", 1) == (value, 1 + len(varint(value)))


def test_unknown_fields_are_passed_over_and_repeated_ones_kept_in_order():
    schema = {1: ("n", VARINT), 2: ("text", BYTES), 6: ("crc", FIXED32)}
    unknown = b"\x78\x05" + b"\x79" + bytes(8) + b"\x7a\x02ab" + b"\x7d" + bytes(4)

    message = read_message(b"\x08\x07" + unknown + b"\x12\x01a\x12\0\x35\x01\x02\0\0", schema)

    assert message == {"n": [7], "text": [b"a", b""], "crc": [0x0201]}
