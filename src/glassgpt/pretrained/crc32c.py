"""CRC-32C: the checksum that TensorFlow and LevelDB keep beside their bytes.

A message is a polynomial over GF(2); its checksum is the remainder modulo Castagnoli's polynomial of degree
32 (0x1EDC6F41), which finds every burst of up to 32 wrong bits and misses one in 2³² of all other damage
(RFC 3720 §12.1 and B.4). Processors have an instruction for it, which `google_crc32c` uses.
"""

import google_crc32c
import numpy as np
from numpy.typing import NDArray

MASK_DELTA = 0xA282EAD8


def crc32c(data: bytes | NDArray[np.uint8]) -> int:
    """The CRC-32C of `data`: bytes, or a contiguous array of them, which is not copied."""
    return google_crc32c.value(data)


def mask(checksum: int) -> int:
    """`checksum` as it is stored: rotated right by 15 bits, plus a constant, modulo 2³².

    The CRC of bytes that hold their own CRC says little, so a stored one is disguised (LevelDB, crc32c.h).
    """
    rotated = checksum >> 15 | checksum << 17
    return (rotated + MASK_DELTA) & 0xFFFFFFFF
