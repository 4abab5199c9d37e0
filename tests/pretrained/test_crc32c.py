"""CRC-32C equals its definition."""

import numpy as np
import pytest

from glassgpt.pretrained.crc32c import crc32c, mask


def remainder(data: bytes) -> int:
    """The definition, bit by bit: lowest bit first, all ones before the first, all inverted in the end."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_the_examples_of_rfc_3720_come_out(data, expected):
    assert crc32c(data) == expected


def test_random_bytes_of_every_short_length_give_the_remainder_by_hand():
    data = np.random.default_rng(0).bytes(67)

    assert [crc32c(data[:n]) for n in range(68)] == [remainder(data[:n]) for n in range(68)]


def test_an_array_counts_as_its_bytes_wherever_it_starts():
    array = np.random.default_rng(1).integers(0, 256, 10_007, np.uint8)

    assert [crc32c(array[n:]) for n in range(9)] == [crc32c(array[n:].tobytes()) for n in range(9)]


def test_the_mask_is_the_rotation_and_the_constant_of_leveldb():
    assert mask(0) == 0xA282EAD8
    assert mask(1) == (0x00020000 + 0xA282EAD8)
    assert mask(0xFFFFFFFF) == (0xFFFFFFFF + 0xA282EAD8) % 2**32
