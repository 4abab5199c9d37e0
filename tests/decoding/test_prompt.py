"""A prompt's attention and GELU in C++: PyTorch's numbers, and only where they may be computed so."""

import mmap
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from glassgpt.decoding import PromptKernels, gelu, prompt
from glassgpt.generation import SamplingConfig, generate
from tests.decoding.models import CountedLibrary, a_model, needs_library

pytestmark = needs_library


@pytest.fixture
def calls(monkeypatch):
    """The names of the library's functions that were called, but for the one that computes nothing."""
    names = []
    for module in (prompt, gelu):
        monkeypatch.setattr(module, "library", lambda: CountedLibrary(names))
    return names


IS_X86 = prompt.is_x86


@pytest.fixture(autouse=True)
def on_any_processor(monkeypatch):
    say_that_this_is_x86(monkeypatch, True)


def say_that_this_is_x86(monkeypatch, answer):
    for module in (prompt, gelu):
        monkeypatch.setattr(module, "is_x86", lambda: answer)


@pytest.fixture
def however_little(monkeypatch):
    monkeypatch.setattr(prompt, "_LEAST_MULTIPLICATIONS", 0)
    monkeypatch.setattr(gelu, "_LEAST_NUMBERS", 0)


def heads(B: int, T: int, n_heads: tuple[int, ...], Dh: int) -> list[torch.Tensor]:
    """Queries, keys and values of one matrix, as a model has them: strided, with gaps between tokens."""
    torch.manual_seed(T)
    parts = torch.randn(B, T, sum(n_heads) * Dh).split([n * Dh for n in n_heads], dim=-1)
    return [part.view(B, T, n, Dh).transpose(1, 2) for part, n in zip(parts, n_heads, strict=True)]


def exact(q, k, v):
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True, enable_gqa=True)


@pytest.mark.usefixtures("each_library")
@pytest.mark.parametrize("T", [1, 2, 5, 6, 7, 63, 64, 65, 200])
@pytest.mark.parametrize(("H", "G"), [(3, 3), (6, 2), (4, 1)])
@pytest.mark.parametrize("Dh", [16, 48, 64, 80, 128])
def test_attention_gives_the_same_numbers(T, H, G, Dh, calls, however_little):
    q, k, v = heads(2, T, (H, G, G), Dh)
    with torch.no_grad(), PromptKernels():
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=G < H)
    assert calls == ["glassgpt_attention"]
    torch.testing.assert_close(mixed.double(), exact(q, k, v), rtol=0, atol=5e-6)


@pytest.mark.usefixtures("each_library")
def test_the_shapes_of_gpt2_and_a_cache_with_room_behind_its_tokens(calls):
    q, k, v = heads(1, 900, (12, 12, 12), 64)
    cache = torch.full((2, 1, 12, 1024, 64), torch.nan)
    cache[0, :, :, :900], cache[1, :, :, :900] = k, v
    with torch.no_grad(), PromptKernels():
        mixed = F.scaled_dot_product_attention(q, *cache[:, :, :, :900], is_causal=True)
        wide = torch.randn(1, 12, 900, 192)[..., :64]  # values that lie otherwise than the keys
        other = F.scaled_dot_product_attention(q, cache[0, :, :, :900], wide, is_causal=True)
    assert calls == ["glassgpt_attention"] * 2
    torch.testing.assert_close(mixed.double(), exact(q, k, v), rtol=0, atol=5e-6)
    torch.testing.assert_close(other.double(), exact(q, k, wide), rtol=0, atol=5e-6)
    assert mixed.transpose(1, 2).is_contiguous()  # the output projection takes it as it is


@pytest.mark.usefixtures("each_library")
def test_no_token_sees_a_later_one_and_rows_and_threads_change_no_bit(calls, however_little):
    q, k, v = heads(3, 150, (4, 2, 2), 32)

    def attend(*tensors):
        with torch.no_grad(), PromptKernels():
            return F.scaled_dot_product_attention(*tensors, is_causal=True, enable_gqa=True)

    expected = attend(q, k, v)
    for row in range(3):
        assert torch.equal(attend(q[row, None], k[row, None], v[row, None])[0], expected[row])
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if n_threads > 1 else 2)
        assert torch.equal(attend(q, k, v), expected)
    finally:
        torch.set_num_threads(n_threads)
    for t in (0, 5, 6, 63, 64, 149):
        later = [part.clone() for part in (q, k, v)]
        for part in later:
            part[:, :, t + 1 :] = 1e4
        assert torch.equal(attend(*later)[:, :, : t + 1], expected[:, :, : t + 1])
    assert calls == ["glassgpt_attention"] * 11


@pytest.mark.usefixtures("each_library")
def test_scores_of_any_size(calls, however_little):
    q, k, v = heads(1, 70, (2, 2, 2), 16)
    for factor in (1e-20, 30, 1e15):  # of no size at all; a softmax that is all but one-hot; 1e30
        with torch.no_grad(), PromptKernels():
            mixed = F.scaled_dot_product_attention(q * factor, k * factor, v, is_causal=True)
        torch.testing.assert_close(mixed.double(), exact(q * factor, k * factor, v), rtol=0, atol=1e-3)
    k[:, :, 40] = torch.nan
    with torch.no_grad(), PromptKernels():
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert mixed[:, :, :40].isfinite().all()
    assert mixed[:, :, 40:].isnan().all()
    assert calls == ["glassgpt_attention"] * 4


@pytest.mark.usefixtures("each_library")
@pytest.mark.parametrize("shape", [(900, 3072), (3, 7, 4097), (2, 33000)])
def test_gelu_gives_the_same_numbers(shape, calls):
    torch.manual_seed(0)
    x = torch.randn(shape) * 4
    with torch.no_grad(), PromptKernels():
        y = F.gelu(x, approximate="tanh")
    assert calls == ["glassgpt_gelu"]
    torch.testing.assert_close(y.double(), F.gelu(x.double(), approximate="tanh"), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("each_library")
@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_gelu_of_any_length_and_with_nan(n, calls, however_little):
    x = torch.linspace(-1e38, 50, n)
    x[-1] = torch.nan
    with torch.no_grad(), PromptKernels():
        y = F.gelu(x, approximate="tanh")
    assert calls == ["glassgpt_gelu"]
    torch.testing.assert_close(y, F.gelu(x, approximate="tanh"), rtol=1e-5, atol=1e-6, equal_nan=True)


def test_what_the_library_cannot_or_should_not_do_is_left_to_pytorch(calls, monkeypatch):
    def attend(dtype=torch.float32, T=300, **options):
        q, k, v = (part.to(dtype) for part in heads(1, T, (4, 4, 4), 32))
        return F.scaled_dot_product_attention(q, k, v, **{"is_causal": True, **options})

    def gelu(approximate="tanh", dtype=torch.float32, n=2**17):
        return F.gelu(torch.linspace(-3, 3, n, dtype=dtype), approximate=approximate)

    with PromptKernels():
        attend(), gelu()  # they would have no gradient
        with torch.no_grad():
            attend(dtype=torch.float64), attend(dtype=torch.bfloat16), attend(T=3)
            attend(is_causal=False), attend(scale=0.1), attend(dropout_p=0.5)
            attend(is_causal=False, attn_mask=torch.ones(300, 300, dtype=torch.bool).tril())
            q, k, v = heads(1, 300, (4, 4, 4), 32)
            F.scaled_dot_product_attention(q[:, :, :150], k, v, is_causal=True)
            F.scaled_dot_product_attention(q, k, v[..., :16], is_causal=True)
            for place in range(3):  # the numbers of one token lie apart
                parts = [q, k, v]
                parts[place] = torch.ones(1, 4, 32, 300).mT
                F.scaled_dot_product_attention(*parts, is_causal=True)
            F.scaled_dot_product_attention(q[0], k[0], v[0], is_causal=True)
            with sdpa_kernel(SDPBackend.MATH):
                attend()
            F.scaled_dot_product_attention(q, k, v, torch.ones(300, 300), is_causal=True)
            with pytest.raises(RuntimeError):  # PyTorch's own complaint
                F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], is_causal=True)
            with pytest.raises(RuntimeError):
                F.scaled_dot_product_attention(q, k[:, :3], v[:, :3], is_causal=True, enable_gqa=True)
            F.scaled_dot_product_attention(q, k[:, :0], v[:, :0], is_causal=True, enable_gqa=True)
            F.scaled_dot_product_attention(q[..., :24], k[..., :24], v[..., :24], is_causal=True)
            gelu("none"), gelu(dtype=torch.float64), gelu(n=100)
            F.gelu(torch.ones(512, 512).T[1:], approximate="tanh")
            y = torch.empty(2**17)
            assert F.gelu(torch.ones(2**17), approximate="tanh", out=y) is y
            with torch.autocast("cpu", torch.bfloat16):
                attend(), gelu()
            monkeypatch.setenv("GLASSGPT_NATIVE", "0")
            attend(), gelu()
            assert not calls
            monkeypatch.delenv("GLASSGPT_NATIVE")
            say_that_this_is_x86(monkeypatch, False)
            attend(), gelu()
            assert not calls
            say_that_this_is_x86(monkeypatch, True)
            attend(), gelu()
            assert calls == ["glassgpt_attention", "glassgpt_gelu"]


@pytest.mark.parametrize("function", [prompt._attention, prompt._gelu])
def test_names_of_arguments_are_those_of_pytorch(function, calls, however_little):
    x = torch.randn(1, 2, 70, 16)
    with torch.no_grad(), PromptKernels():
        if function is prompt._gelu:
            F.gelu(input=x, approximate="tanh")
        else:
            F.scaled_dot_product_attention(
                query=x, key=x, value=x, attn_mask=None, dropout_p=0.0, is_causal=True, scale=None
            )
    assert len(calls) == 1


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of vmap's attention
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_tensors_that_are_more_than_their_memory_are_left_to_pytorch(calls, however_little):
    class Special(torch.Tensor):
        pass

    x = torch.randn(2, 4, 70, 16)

    def both(x):
        attended = F.scaled_dot_product_attention(x, x, x, is_causal=True)
        return attended + F.gelu(x, approximate="tanh")

    negative = torch._neg_view(x)
    with torch.no_grad():
        expected = both(x)
        of_negative = both(negative)
        with PromptKernels():
            assert type(both(x.as_subclass(Special))) is Special
            assert torch.equal(both(negative), of_negative)
            torch.testing.assert_close(torch.vmap(both)(x[:, None])[:, 0], expected)
            with forward_ad.dual_level():
                dual = forward_ad.make_dual(x, torch.ones_like(x))
                assert forward_ad.unpack_dual(F.gelu(dual, approximate="tanh")).tangent is not None
                assert forward_ad.unpack_dual(F.linear(dual, torch.randn(16, 16))).tangent is not None
            traced = torch.jit.trace(both, x, check_trace=False)
        assert torch.equal(traced(x), expected)
    assert not calls


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs x86, where it is known to be faster")
def test_x86_has_it():
    assert IS_X86()


@pytest.mark.usefixtures("each_library")
@pytest.mark.parametrize("fields", [{}, {"n_kv_heads": 2, "positions": "rope"}, {"attention_window": 40}])
def test_generate_reads_a_prompt_with_them(fields, calls, monkeypatch):
    model = a_model(context_length=400, **fields)
    prompt_ids = torch.randint(53, (300,)).tolist()
    sampling = SamplingConfig(max_new_tokens=20, temperature=0.0)
    tokens = list(generate(model, prompt_ids, sampling))
    assert ("glassgpt_attention" in calls) == ("attention_window" not in fields)
    assert "glassgpt_gelu" in calls
    monkeypatch.setenv("GLASSGPT_NATIVE", "0")
    assert list(generate(model, prompt_ids, sampling)) == tokens


LAYERS = """
import resource, torch
from glassgpt.decoding import PromptKernels
def layer():
    return [torch.ones(900, 3072) for _ in range(5)]
with PromptKernels():
    for _ in range(3):
        layer()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(12):
        layer()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="needs glibc, whose way of keeping memory this is about"
)
@pytest.mark.skipif(
    LARGE_PAGES.exists() and "[always]" in LARGE_PAGES.read_text(),
    reason=f"needs small pages, to see them come: echo madvise > {LARGE_PAGES}",
)
def test_one_layer_leaves_its_memory_to_the_next():
    """Without, most processes give it back to the system, and get four fifths of its pages anew."""
    untuned = {name: text for name, text in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    faults = []
    for _ in range(3):
        told = subprocess.run([sys.executable, "-c", LAYERS], env=untuned, check=True, stdout=subprocess.PIPE)
        faults.append(int(told.stdout))
    n_pages = 12 * 5 * 900 * 3072 * 4 // mmap.PAGESIZE
    assert max(faults) < n_pages // 10
