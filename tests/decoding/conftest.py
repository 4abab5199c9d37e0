import ctypes
import platform

import pytest

from glassgpt.decoding import build
from tests.decoding.models import OTHER_VENDOR, WORDS, compiled_with

HAS_TILES = (
    WORDS is not None
    and {"amx_tile", "amx_int8", "amx_bf16", "avx512_bf16"} <= set(WORDS)
    and ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0  # arch_prctl: may this process have them?
)


def panels_of_this_processor() -> set[int]:
    """How many keys there may be in a panel, with all registers: what Linux on x86 says, or any number."""
    if WORDS is None:
        return {64, 16, 8}
    return {64 if "avx512bw" in WORDS else 16 if "avx2" in WORDS else 8}


# The compiler's flags, and how many keys there are in a panel then.
LIBRARIES = {"as it is": ([], panels_of_this_processor())}
if platform.machine() == "x86_64":
    LIBRARIES |= {
        "the other vendor's": (OTHER_VENDOR, panels_of_this_processor()),
        "256 bits": (["-mno-avx512f"], {16, 8}),
        "128 bits, AVX": (["-mno-avx2"], {8}),
        "128 bits, SSE": (["-mno-avx"], {8}),
    }
if HAS_TILES:
    LIBRARIES["no tiles"] = (["-mno-amx-tile"], {64})


@pytest.fixture(scope="module", params=list(LIBRARIES))
def each_library(request):
    """Each test with the library as it is built here, as for the other vendor's processors, with each shorter
    length of registers, and without tiles."""
    flags, panels = LIBRARIES[request.param]
    with compiled_with(flags):
        library = build.library()
        assert library.glassgpt_panel() in panels
        has_tiles = HAS_TILES and request.param in ("as it is", "the other vendor's")
        assert library.glassgpt_has_tiles() == has_tiles
        if WORDS:
            assert library.glassgpt_reads_as_amd() == ("sse4a" in WORDS) ^ (flags == OTHER_VENDOR)
        yield
