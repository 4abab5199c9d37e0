import platform

import pytest

from glassgpt.decoding import build, why_no_library

# The compiler's flags, and how many keys there are in a panel then.
SHORTER = {
    "256 bits": (["-mno-avx512f"], 16),
    "128 bits, AVX": (["-mno-avx2"], 8),
    "128 bits, SSE": (["-mno-avx"], 8),
}
SHORTER = SHORTER if platform.machine() == "x86_64" else {}


@pytest.fixture(scope="module", params=["all registers", *SHORTER])
def registers(request):
    """Every test once with all that this processor has, and once with each shorter length of registers."""
    with pytest.MonkeyPatch.context() as patch:
        flags, panel = SHORTER.get(request.param, ([], 64))
        patch.setattr(build, "_FLAGS", [*build._FLAGS, *flags])
        build._library.cache_clear()
        assert why_no_library() is None
        assert build.library().glassgpt_panel() <= panel
        yield
    build._library.cache_clear()
