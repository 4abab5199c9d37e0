"""Protocol buffers, as far as an index needs them: varints and the fields of a message.

A varint holds seven bits a byte, the lowest first; the eighth says that more follow. A message is a run of
fields, each a varint `number << 3 | wire type` and a value: wire type 0 is a varint, 1 is 8 bytes, 2 is a
varint length and so many bytes, 5 is 4 bytes, and the rest are long out of use (protobuf.dev, "Encoding").
"""

from collections.abc import Iterator, Mapping
from typing import Any

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WIDTHS = {FIXED64: 8, FIXED32: 4}

Schema = Mapping[int, tuple[str, int]]
"""A message's field numbers, with the name and the wire type of each."""


class MalformedError(Exception):
    """Bytes that break their format's rules. Who knows the file makes a CheckpointError of it."""


class UnsupportedError(Exception):
    """Bytes that follow their format in a way that is not read here; the message ends with a remedy."""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint at `data[at:]`, and where the next byte lies.

    It must fit 64 bits and be as short as writers make it, so that no byte can change without a trace.
    """
    value = 0
    for n_read, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * n_read
        if byte < 0x80:
            if value >= 1 << 64 or (byte == 0 and n_read > 0):
                break
            return value, at + n_read + 1
    raise MalformedError(f"the number at byte {at:,} has no end, more than 64 bits, or superfluous zeros")


def read_message(data: bytes, schema: Schema) -> dict[str, list[Any]]:
    """The values of each field of `schema`, an integer or bytes, in their order.

    Fields of other numbers are passed over, as every reader of protocol buffers must; a known one of
    another wire type than `schema` says is an error.
    """
    values: dict[str, list[Any]] = {name: [] for name, _ in schema.values()}
    for number, wire_type, value in _fields(data):
        if number not in schema:
            continue
        name, expected = schema[number]
        if wire_type != expected:
            raise MalformedError(f"field {name!r} has wire type {wire_type}, not {expected}")
        values[name].append(value)
    return values


def _fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Each field's number, wire type and value."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise MalformedError("a field has number 0")
        if wire_type == VARINT:
            value, at = read_varint(data, at)
            yield number, wire_type, value
            continue
        if wire_type == BYTES:
            length, at = read_varint(data, at)
        elif wire_type in WIDTHS:
            length = WIDTHS[wire_type]
        else:
            raise MalformedError(f"field {number} has wire type {wire_type}, which does not exist")
        if length > len(data) - at:
            raise MalformedError(f"field {number} has {length:,} bytes, where {len(data) - at:,} are left")
        chunk = data[at : at + length]
        at += length
        yield number, wire_type, chunk if wire_type == BYTES else int.from_bytes(chunk, "little")
