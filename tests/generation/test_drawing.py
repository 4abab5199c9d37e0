"""Reading ahead, as a CUDA GPU does: the same tokens, asked for before the last have come back."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from glassgpt.errors import GenerationError
from glassgpt.generation import SamplingConfig, drawing, generate, window
from tests.decoding.models import a_model, needs_library, record_by_running

PROMPTS = [[3, 5, 7], [2], [9, 1, 4, 4, 8, 8, 1, 3, 2, 6, 7]]


@pytest.fixture(autouse=True)
def by_pytorch(monkeypatch):
    monkeypatch.setenv("GLASSGPT_NATIVE", "0")  # the C++ step is for a CPU only


def read_ahead(monkeypatch):
    """Let a CPU do what only a CUDA GPU does."""
    for module in (window, drawing):
        monkeypatch.setattr(module, "runs_ahead", lambda device: True)


@pytest.mark.parametrize("n_new", [0, 1, 2, 30])
@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.0}, {"seed": 1}, {"seed": 2, "repetition_penalty": 1.3, "top_p": 0.9}],
    ids=["greedy", "drawn", "penalised"],
)
@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_the_tokens_are_the_same_also_when_windows_slide_and_rows_differ(
    n_new, settings, positions, monkeypatch
):
    model = a_model(context_length=11, positions=positions)
    sampling = SamplingConfig(max_new_tokens=n_new, **settings)
    expected = list(generate(model, PROMPTS, sampling))
    read_ahead(monkeypatch)
    assert list(generate(model, PROMPTS, sampling)) == expected
    assert len(expected) == n_new


def test_with_the_compiled_step_too(monkeypatch):
    model = a_model(context_length=41)
    sampling = SamplingConfig(max_new_tokens=50, seed=1)
    expected = list(generate(model, PROMPTS, sampling))
    read_ahead(monkeypatch)

    recordings = record_by_running(monkeypatch)
    monkeypatch.setattr(window, "why_not_compiled", lambda model: None)
    assert list(generate(model, PROMPTS, sampling)) == expected
    assert len(recordings) == 1


def test_a_text_that_stops_has_asked_for_one_token_too_many_at_most(monkeypatch):
    model = a_model()
    sampling = SamplingConfig(max_new_tokens=20, seed=1)
    whole = list(generate(model, [3, 5], sampling))
    stop = whole[7]
    read_ahead(monkeypatch)
    asked = []
    model.final_norm.register_forward_hook(lambda *_: asked.append(1))
    assert list(generate(model, [3, 5], sampling, stop_token_ids=[stop])) == whole[: whole.index(stop)]
    assert len(asked) == whole.index(stop) + 2  # for those shown, for the stop, and for one behind it


def test_the_next_token_is_asked_for_before_this_one_is_waited_for(monkeypatch):
    model, order = a_model(), []
    read_ahead(monkeypatch)
    waited_for = drawing._Drawn.tolist
    model.final_norm.register_forward_hook(lambda *_: order.append("asked"))
    monkeypatch.setattr(
        drawing._Drawn, "tolist", lambda drawn: (order.append("waited"), waited_for(drawn))[1]
    )
    list(generate(model, [3, 5], SamplingConfig(max_new_tokens=4, temperature=0.0)))
    assert order == ["asked", *["asked", "waited"] * 3, "waited"]


def test_logits_that_are_no_numbers_are_an_error_at_their_token(monkeypatch):
    model = a_model()
    read_ahead(monkeypatch)
    steps = generate(model, [3, 5], SamplingConfig(max_new_tokens=9, temperature=0.0))
    next(steps)  # the second is under way
    model.final_norm.weight.data.fill_(torch.nan)
    next(steps)
    with pytest.raises(GenerationError, match="53 of 53 logits of new token 3 are nan"):
        next(steps)


def test_on_a_cpu_nothing_is_drawn_from_no_numbers():
    model = a_model()
    model.final_norm.weight.data.fill_(torch.nan)
    # the penalty looks up the token that was drawn, which would lie outside the vocabulary
    sampling = SamplingConfig(max_new_tokens=9, seed=1, repetition_penalty=1.3)
    with pytest.raises(GenerationError, match="53 of 53 logits of new token 1 are nan"):
        next(generate(model, [3, 5], sampling))


def test_threads_that_share_a_model_see_no_dropout_and_leave_it_in_its_mode():
    model = a_model(dropout=0.5).train()
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    here, seen, midway, others_are_done = threading.get_ident(), [], threading.Event(), threading.Event()

    def wait_midway(*_):
        if threading.get_ident() != here and not midway.is_set():
            midway.set()
            assert others_are_done.wait(30)

    model.blocks[0].register_forward_pre_hook(wait_midway)
    model.final_norm.register_forward_hook(lambda *_: seen.append([m.training for m in model.modules()]))
    sampling = SamplingConfig(max_new_tokens=3, temperature=0.0)
    with ThreadPoolExecutor() as pool:
        other = pool.submit(lambda: list(generate(model, [3, 5], sampling)))
        assert midway.wait(30)
        steps = generate(model, [3, 5], sampling)
        mine = [next(steps)]
        model.train()  # as a caller may between two tokens
        mine += steps
        others_are_done.set()
        assert other.result(30) == mine
    assert len(seen) == 6
    assert not any(map(any, seen))
    assert model.training
    assert all(module.training for module in model.blocks[1].modules())
    model.blocks[1].eval()
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_head_too_is_in_eval_mode_whatever_it_does(use_cache):
    class Head(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * (torch.nan if self.training else 1)

    model = a_model()
    sampling = SamplingConfig(max_new_tokens=5, temperature=0.0, use_cache=use_cache)
    expected = list(generate(model, [3, 5], sampling))
    weight = model.head.weight
    model.head = Head(weight.shape[1], weight.shape[0], bias=False)
    model.head.weight = weight
    assert list(generate(model.train(), [3, 5], sampling)) == expected
    assert all(module.training for module in model.modules())


@needs_library
def test_weights_are_laid_in_rows_before_another_thread_may_be_reading_them(monkeypatch):
    monkeypatch.delenv("GLASSGPT_NATIVE")
    model = a_model()
    weight = model.blocks[0].attention.o_proj.weight
    weight.data = weight.data.T.contiguous().T
    next(generate(model, [3], SamplingConfig(max_new_tokens=1, use_cache=False)))
    assert weight.is_contiguous()


def test_the_sum_of_float16_logits_is_not_too_large_for_a_number():
    total = drawing._total(torch.full((1, 50_257), -33.0, dtype=torch.float16))
    assert total.isfinite()  # or each token would be counted through


TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_logit_that_is_no_number_is_found_wherever_it_is(bad, dtype, ahead, monkeypatch):
    if ahead:
        read_ahead(monkeypatch)
    logits = torch.linspace(-3, 3, 2 * 53, dtype=dtype).reshape(2, 53)
    drawing._Drawn(logits, 7).check()
    for place in [(0, 0), (0, 30), (1, 52)]:
        spoilt = logits.clone()
        spoilt[place] = bad
        with pytest.raises(GenerationError, match="1 of 106 logits of new token 7 are nan or infinite"):
            drawing._Drawn(spoilt, 7).check()


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_large_logits_are_numbers_though_their_sum_is_none(dtype, ahead, monkeypatch):
    if ahead:
        read_ahead(monkeypatch)
    drawing._Drawn(torch.full((2, 53), torch.finfo(dtype).max, dtype=dtype), 7).check()


@pytest.mark.parametrize("ahead", [False, True])
def test_logits_are_looked_through_once(ahead, monkeypatch):
    if ahead:
        read_ahead(monkeypatch)
    scans, seem_finite = [], drawing._Drawn._seem_finite
    monkeypatch.setattr(
        drawing._Drawn, "_seem_finite", lambda drawn: (scans.append(1), seem_finite(drawn))[1]
    )
    list(generate(a_model(), [3, 5], SamplingConfig(max_new_tokens=5, seed=1)))
    assert len(scans) == 5


ON_A_GPU = [
    {"temperature": 0.0},
    {"seed": 1, "repetition_penalty": 1.3},
    {"seed": 2, "temperature": 0.8, "top_k": 9, "top_p": 0.9, "min_p": 0.02},
]


@pytest.mark.parametrize("settings", ON_A_GPU)
def test_a_gpu_waits_only_for_its_own_copies(gpu, nothing_waits, settings):
    model = a_model(context_length=41)
    expected = list(generate(model, PROMPTS, SamplingConfig(max_new_tokens=25, **settings)))
    steps = generate(model.to(gpu), PROMPTS, SamplingConfig(max_new_tokens=25, **settings))
    first = next(steps)  # the prompts have to be carried there
    with nothing_waits():
        assert [first, *steps] == expected


@pytest.mark.parametrize("settings", ON_A_GPU)
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_gpu_writes_what_a_cpu_does_when_windows_slide(gpu, settings, use_cache):
    model = a_model(context_length=13, positions="rope", n_kv_heads=2)
    sampling = SamplingConfig(max_new_tokens=25, use_cache=use_cache, **settings)
    expected = list(generate(model, PROMPTS, sampling))
    assert list(generate(model.to(gpu), PROMPTS, sampling)) == expected
