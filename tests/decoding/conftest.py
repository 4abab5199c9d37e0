import ctypes
import platform
from pathlib import Path

import pytest

from glassgpt.decoding import build
from tests.decoding.models import compiled_with

CPUINFO = Path("/proc/cpuinfo")
# Linux's words for what this processor has, where they are Linux's and x86's.
WORDS = CPUINFO.read_text().split() if platform.machine() == "x86_64" and CPUINFO.exists() else None
HAS_TILES = (
    WORDS is not None
    and {"amx_tile", "amx_int8", "amx_bf16", "avx512_bf16"} <= set(WORDS)
    and ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0  # arch_prctl: may this process have them?
)

# The compiler's flags, and how many keys there are in a panel then.
FEWER = {
    "256 bits": (["-mno-avx512f"], {16, 8}),
    "128 bits, AVX": (["-mno-avx2"], {8}),
    "128 bits, SSE": (["-mno-avx"], {8}),
}
FEWER = FEWER if platform.machine() == "x86_64" else {}
if HAS_TILES:
    FEWER["no tiles"] = (["-mno-amx-tile"], {64})


def panels_of_this_processor() -> set[int]:
    """How many keys there may be in a panel, with all registers: what Linux on x86 says, or any number."""
    if WORDS is None:
        return {64, 16, 8}
    return {64 if "avx512bw" in WORDS else 16 if "avx2" in WORDS else 8}


@pytest.fixture(scope="module", params=["all registers", *FEWER])
def registers(request):
    """Every test once with all that this processor has, and once with each shorter length of registers, and
    without tiles."""
    flags, panels = FEWER.get(request.param, ([], panels_of_this_processor()))
    with compiled_with(flags):
        assert build.library().glassgpt_panel() in panels
        assert build.library().glassgpt_has_tiles() == (HAS_TILES and request.param == "all registers")
        yield
