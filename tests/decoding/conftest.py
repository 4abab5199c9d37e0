import platform

import pytest

from glassgpt.decoding import build, why_no_library

SHORTER = {"256 bits": ["-mno-avx512f"], "128 bits, AVX": ["-mno-avx2"], "128 bits, SSE": ["-mno-avx"]}
SHORTER = SHORTER if platform.machine() == "x86_64" else {}


@pytest.fixture(scope="module", params=["all registers", *SHORTER])
def registers(request):
    """Every test once with all that this processor has, and once with each shorter length of registers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_FLAGS", [*build._FLAGS, *SHORTER.get(request.param, [])])
        build._library.cache_clear()
        assert why_no_library() is None
        if request.param in SHORTER:
            assert build.library().glassgpt_panel() < 64
        yield
    build._library.cache_clear()
