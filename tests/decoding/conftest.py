import platform
from pathlib import Path

import pytest

from glassgpt.decoding import build
from tests.decoding.models import compiled_with

# The compiler's flags, and how many keys there are in a panel then.
SHORTER = {
    "256 bits": (["-mno-avx512f"], {16, 8}),
    "128 bits, AVX": (["-mno-avx2"], {8}),
    "128 bits, SSE": (["-mno-avx"], {8}),
}
SHORTER = SHORTER if platform.machine() == "x86_64" else {}


def panels_of_this_processor() -> set[int]:
    """How many keys there may be in a panel, with all registers: what Linux on x86 says, or any number."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpuinfo.exists():
        return {64, 16, 8}
    flags = cpuinfo.read_text().split()
    return {64 if "avx512bw" in flags else 16 if "avx2" in flags else 8}


@pytest.fixture(scope="module", params=["all registers", *SHORTER])
def registers(request):
    """Every test once with all that this processor has, and once with each shorter length of registers."""
    flags, panels = SHORTER.get(request.param, ([], panels_of_this_processor()))
    with compiled_with(flags):
        assert build.library().glassgpt_panel() in panels
        yield
