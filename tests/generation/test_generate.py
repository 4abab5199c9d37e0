"""Token ids: with the cache as without, in a batch as alone, and equal to a loop by hand."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel

from glassgpt.by_hand import sampling as by_hand
from glassgpt.errors import GenerationError
from glassgpt.generation import SamplingConfig, generate, window
from glassgpt.generation.sampling import row_generators

GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=17)
SAMPLED = SamplingConfig(
    seed=5, max_new_tokens=17, temperature=1.3, top_k=11, top_p=0.95, min_p=0.01, repetition_penalty=1.2
)
BOTH = pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])

# Of every length up to the context's 13, so that the windows fill at different steps.
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8], [4, 6, 2, 6, 4, 3, 3]]

CHOICES = {
    "learned": {"positions": "learned"},
    "rope": {"positions": "rope"},
    "none": {"positions": "none"},
    "grouped queries": {"positions": "rope", "n_heads": 6, "n_kv_heads": 3},
    "sliding window": {"positions": "learned", "attention_window": 3},
    "sliding window, rope": {"positions": "rope", "attention_window": 5, "n_kv_heads": 1},
    "odd": {"context_length": 7},
    "tiny": {"context_length": 2},
    "one token": {"context_length": 1},
}
EVERY_CHOICE = pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES.keys())


def with_logits(*arguments) -> tuple[list, torch.Tensor]:
    """What generate(*arguments) yields, and the logits that it chose from."""
    seen = []
    hook = arguments[0].head.register_forward_hook(lambda _, inputs, logits: seen.append(logits.clone()))
    steps = list(generate(*arguments))
    hook.remove()
    return steps, torch.stack(seen)


@BOTH
@EVERY_CHOICE
def test_a_batch_of_unequal_prompts_equals_each_alone_without_a_cache(make_model, choice, sampling):
    model = make_model(**choice)
    prompts = [prompt[-model.config.context_length :] for prompt in PROMPTS]
    together, logits_together = with_logits(model, prompts, sampling)
    for row, prompt in enumerate(prompts):
        seed = None if sampling.seed is None else sampling.seed + row
        plain = dataclasses.replace(sampling, seed=seed, use_cache=False)
        alone, logits_alone = with_logits(model, prompt, plain)
        assert [step[row] for step in together] == alone
        # float64, logits up to about 10: the same sums in another order
        torch.testing.assert_close(logits_together[:, row], logits_alone[:, 0], rtol=0, atol=1e-12)
        assert len(alone) == 17


@BOTH
def test_one_prompt_with_the_cache_equals_it_without(make_model, sampling):
    model = make_model()
    for prompt in PROMPTS:
        cached, logits_cached = with_logits(model, prompt, sampling)
        plain, logits_plain = with_logits(model, prompt, dataclasses.replace(sampling, use_cache=False))
        assert cached == plain
        torch.testing.assert_close(logits_cached, logits_plain, rtol=0, atol=1e-12)  # as above


def test_a_batch_without_the_cache_equals_one_with_it(make_model):
    model = make_model()
    plain = dataclasses.replace(SAMPLED, use_cache=False)
    assert list(generate(model, PROMPTS, plain)) == list(generate(model, PROMPTS, SAMPLED))


@BOTH
def test_ids_equal_the_loop_by_hand(make_model, sampling):
    model = make_model(positions="rope", attention_window=7).eval()

    @torch.no_grad()
    def next_logits(window):
        return model(torch.tensor([window]))[0, -1].tolist()

    for row, prompt in enumerate(PROMPTS):
        seed = None if sampling.seed is None else sampling.seed + row
        generator = row_generators(seed, 1)[0]
        expected = by_hand.generate(
            next_logits,
            prompt,
            [torch.rand(1, generator=generator, dtype=torch.double).item() for _ in range(17)],
            context_length=model.config.context_length,
            repetition_penalty=sampling.repetition_penalty,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
        )
        assert list(generate(model, prompt, dataclasses.replace(sampling, seed=seed))) == expected


def test_a_full_window_is_read_again_once_in_half_a_context(make_model):
    model = make_model(context_length=8)
    lengths = []
    model.token_embedding.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    list(generate(model, [1, 2, 3], dataclasses.replace(GREEDY, max_new_tokens=15)))
    #          the prompt, 5 more to fill 8, then the newer 4 again, then 4 more to fill 8, …
    assert lengths == [3, *[1] * 5, 4, *[1] * 4, 4, *[1] * 4, 4, 1]


def test_nothing_is_read_again_while_the_window_has_room(make_model):
    model = make_model(context_length=8)
    lengths = []
    model.token_embedding.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape))
    list(generate(model, [[1, 2, 3], [4]], dataclasses.replace(GREEDY, max_new_tokens=6)))
    assert lengths == [(2, 3), *[(2, 1)] * 5]  # and the last token is never read at all


def test_greedy_ids_equal_those_of_transformers(make_model):
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install transformers")
    model = make_model(context_length=37, d_model=12, tied_embeddings=True)
    ours = model.config
    peer = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=ours.vocab_size,
            n_positions=ours.context_length,
            n_embd=ours.d_model,
            n_layer=ours.n_layers,
            n_head=ours.n_heads,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    weights = {"wte.weight": model.token_embedding.weight, "wpe.weight": model.position_embedding.weight}
    names = {
        "ln_1": "attention_norm",
        "attn.c_attn": "attention.qkv_proj",
        "attn.c_proj": "attention.o_proj",
        "ln_2": "feedforward_norm",
        "mlp.c_fc": "feedforward.up_proj",
        "mlp.c_proj": "feedforward.down_proj",
    }
    for layer, block in enumerate(model.blocks):
        for theirs, name in names.items():
            module = block.get_submodule(name)
            transposed = isinstance(module, torch.nn.Linear)  # GPT-2 stores its matrices as (in, out)
            weights[f"h.{layer}.{theirs}.weight"] = module.weight.T if transposed else module.weight
            weights[f"h.{layer}.{theirs}.bias"] = module.bias
    weights |= {"ln_f.weight": model.final_norm.weight, "ln_f.bias": model.final_norm.bias}
    peer.transformer.load_state_dict(weights)
    peer.double().eval()

    for penalty in (1.0, 1.5):
        sampling = dataclasses.replace(GREEDY, max_new_tokens=23, repetition_penalty=penalty)
        expected = peer.generate(
            torch.tensor([PROMPTS[0]]),
            attention_mask=torch.ones(1, 5),
            max_new_tokens=23,
            do_sample=False,
            repetition_penalty=penalty,
            pad_token_id=0,
        )
        assert list(generate(model, PROMPTS[0], sampling)) == expected[0, 5:].tolist()


def test_prompts_may_be_tensors(make_model):
    model = make_model()
    expected = list(generate(model, PROMPTS, GREEDY))
    assert list(generate(model, [torch.tensor(prompt) for prompt in PROMPTS], GREEDY)) == expected
    assert list(generate(model, torch.tensor(PROMPTS[0]), GREEDY)) == [step[0] for step in expected]
    assert list(generate(model, torch.tensor(PROMPTS[1:2]), GREEDY)) == [[step[1]] for step in expected]


def test_a_row_ends_before_its_stop_token_and_the_others_go_on(make_model):
    model = make_model()
    free = list(generate(model, PROMPTS, SAMPLED))
    stop = free[4][1]
    stopped = list(generate(model, PROMPTS, SAMPLED, stop_token_ids=[stop]))
    for row in range(len(PROMPTS)):
        ids = [step[row] for step in free]
        end = ids.index(stop) if stop in ids else len(ids)
        seen = [step[row] for step in stopped]
        assert seen == ids[:end] + [None] * (len(seen) - end)
        assert (
            len(
                list(
                    generate(
                        model, PROMPTS[row], dataclasses.replace(SAMPLED, seed=5 + row), stop_token_ids=[stop]
                    )
                )
            )
            == end
        )
    assert any(token_id is not None for token_id in stopped[-1])  # it ends with the last of its rows


def test_only_ids_below_vocab_size_are_drawn(make_model):
    model = make_model()
    wild = SamplingConfig(temperature=50.0, max_new_tokens=300, seed=1)
    assert max(generate(model, [0], wild)) == 30
    assert max(generate(model, [0], wild, vocab_size=7)) == 6


def test_a_seed_repeats_and_equal_prompts_differ(make_model):
    model = make_model()
    first = list(generate(model, [[1, 2]] * 2, SAMPLED))
    assert first == list(generate(model, [[1, 2]] * 2, SAMPLED))
    assert [step[0] for step in first] != [step[1] for step in first]


def test_top_k_of_one_is_greedy(make_model):
    model = make_model()
    top_1 = SamplingConfig(top_k=1, max_new_tokens=17)
    assert list(generate(model, PROMPTS, top_1)) == list(generate(model, PROMPTS, GREEDY))


def test_zero_new_tokens_yield_nothing(make_model):
    assert list(generate(make_model(), [1], SamplingConfig(max_new_tokens=0))) == []


@pytest.mark.parametrize("n_taken", [1, 17])
def test_between_tokens_the_model_and_the_gradient_mode_are_the_callers(make_model, n_taken):
    model = make_model()
    model.blocks[0].eval()  # someone may have frozen a part
    before = [module.training for module in model.modules()]
    stream = generate(model, PROMPTS[0], GREEDY)
    for _ in range(n_taken):
        next(stream)
        assert [module.training for module in model.modules()] == before
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    model(torch.tensor([PROMPTS[0]])).sum().backward()  # training can go on while the stream waits


def test_an_error_on_the_way_leaves_the_mode_as_it_was(make_model):
    model = make_model()
    model.final_norm.weight.data[0] = torch.nan
    with pytest.raises(GenerationError, match="31 of 31 logits of new token 1 are nan or infinite"):
        next(generate(model, [1], GREEDY))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_model_runs_in_its_own_dtype(make_model, dtype):
    model = make_model().to(dtype)
    seen = []
    model.head.register_forward_hook(lambda _, inputs, logits: seen.append(logits.dtype))
    assert len(list(generate(model, PROMPTS, SAMPLED))) == 17
    assert set(seen) == {dtype}


def test_a_float64_model_is_not_rounded_to_float32(make_model):
    model = make_model(tied_embeddings=False)
    top = next(generate(model, [1], GREEDY))
    model.head.weight.data[0] = model.head.weight[top] * (1 - 1e-12)  # as good as `top` in float32, and first
    assert next(generate(model, [1], GREEDY)) == top != 0


def message_of(*arguments, **keywords) -> str:
    with pytest.raises(GenerationError) as caught:
        generate(*arguments, **keywords)  # at the call, before anything is drawn
    return str(caught.value)


def test_a_prompt_longer_than_the_context_is_refused_or_truncated(make_model):
    model = make_model(context_length=1024, vocab_size=2)
    prompt = [0, 1] * 650
    assert message_of(model, prompt) == (
        "The prompt has 1,300 tokens; this model's context_length is 1,024. "
        'Shorten it, or choose truncate="left" (--truncate left), which reads its end only.'
    )
    model = make_model()
    long = [*range(20), *PROMPTS[2]]
    left = dataclasses.replace(SAMPLED, truncate="left")
    assert list(generate(model, long, left)) == list(generate(model, PROMPTS[2], SAMPLED))
    assert message_of(model, [[1], long]).startswith(
        "Prompt 1 has 33 tokens; this model's context_length is 13."
    )


def test_bad_prompts_are_refused_with_their_values_all_at_once(make_model):
    model = make_model()
    assert message_of(model, [31]) == (
        "Token id 31 is outside vocab_size=31 (valid: 0–30). Was another tokenizer used?"
    )
    assert message_of(model, [1, -1]).startswith("Token id -1 is outside vocab_size=31")
    assert message_of(model, [6, 7], vocab_size=7).startswith("Token id 7 is outside vocab_size=7")
    assert message_of(model, []).startswith("The prompt has no tokens, and a model continues at least one.")
    assert message_of(model, [[1], []]).startswith("Prompt 1 has no tokens")
    assert message_of(model, torch.zeros(0, 3, dtype=torch.long)).startswith("The prompt has no tokens")
    assert message_of(model, [1], stop_token_ids=[50]).startswith("Stop token id 50 is outside vocab_size=31")
    both = message_of(model, [[40], [], [1] * 14])
    assert both.startswith("What is to be continued has 3 problems:\n  Prompt 0: token id 40 is outside")
    assert message_of(model, [1], SamplingConfig(top_k=32)) == (
        "top_k=32 is above vocab_size=31. Choose 1 to 31, or None."
    )
    assert message_of(model, [1], SamplingConfig(top_k=8), vocab_size=7).startswith(
        "top_k=8 is above vocab_size=7"
    )
    assert message_of(model, [1], vocab_size=32) == "vocab_size=32 must be 1 to 31, the model's own."


@pytest.mark.parametrize("use_cache", [True, False])
def test_on_a_gpu_cudnn_plans_no_attention_for_each_length(make_model, use_cache, monkeypatch):
    model, kernels, seen = make_model(), window.kernels_for, []
    sampling = dataclasses.replace(GREEDY, use_cache=use_cache)
    expected = list(generate(model, PROMPTS, sampling))
    monkeypatch.setattr(window, "kernels_for", lambda _: kernels(torch.device("cuda")))
    monkeypatch.setattr(window, "_faster_step", lambda *_: None)
    model.final_norm.register_forward_hook(
        lambda *_: seen.append((cuda.cudnn_sdp_enabled(), cuda.flash_sdp_enabled()))
    )
    assert list(generate(model, PROMPTS, sampling)) == expected
    assert set(seen) == {(False, True)}
    assert cuda.cudnn_sdp_enabled()


def test_kernels_for_attention_that_the_caller_switched_off_stay_off():
    kinds = [SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]
    for allowed, cudnn, math in ((kinds, False, True), (kinds[:1], True, False)):  # one of them must be left
        with sdpa_kernel(allowed):
            with window.kernels_for(torch.device("cuda")):
                assert (cuda.cudnn_sdp_enabled(), cuda.math_sdp_enabled()) == (cudnn, math)
                assert not cuda.flash_sdp_enabled()
            assert cuda.cudnn_sdp_enabled()


def test_kernels_are_as_they_were_when_the_last_thread_leaves():
    first, second = (window.kernels_for(torch.device("cuda")) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not cuda.cudnn_sdp_enabled()
    second.__exit__(None, None, None)
    assert cuda.cudnn_sdp_enabled()


@BOTH
def test_random_numbers_come_from_the_cpu_whatever_the_default_device_is(make_model, sampling):
    model = make_model()
    expected = list(generate(model, PROMPTS, sampling))
    with torch.device("meta"):  # as torch.set_default_device would
        assert list(generate(model, PROMPTS, sampling)) == expected


UNCHECKED = inspect.unwrap(generate)
"""Without the check of types that only tests have: what those who pass something else get."""


@pytest.mark.parametrize(
    ("token_ids", "message"),
    [
        (None, "token_ids is None; needed are whole numbers, or a list of them for each prompt"),
        (3, "token_ids is 3; needed are"),
        ("a text", "token_ids is 'a text'; needed are"),
        (torch.tensor(3), "token_ids is 3; needed are"),
        ([1.0], "1.0 in the prompt is no token id"),
        ([2, True], "True in the prompt is no token id"),
        (["a"], "'a' in the prompt is no token id"),
        (torch.tensor([0.5]), "0.5 in the prompt is no token id"),
        ([[1], 2], "Prompt 1 is 2; needed are"),
        ([[1], [2, None]], "None in prompt 1 is no token id"),
        ([[[1]]], r"\[1\] in prompt 0 is no token id"),
        (torch.zeros(2, 3, 5, dtype=torch.long), r"\[0, 0, 0, 0, 0\] in prompt 0 is no token id"),
    ],
    ids=str,
)
def test_what_is_no_list_of_whole_numbers_is_no_prompt(make_model, token_ids, message):
    with pytest.raises(GenerationError, match=message):
        UNCHECKED(make_model(), token_ids)


@pytest.mark.parametrize(
    "as_given", [torch.tensor, np.array, lambda ids: [torch.tensor(i) for i in ids], iter, set]
)
def test_stop_ids_are_heeded_in_any_form(make_model, as_given):
    model = make_model()
    whole = list(generate(model, [3, 1], GREEDY))
    stop = whole[5]
    assert (
        list(UNCHECKED(model, [3, 1], GREEDY, stop_token_ids=as_given([stop]))) == whole[: whole.index(stop)]
    )


def test_stop_ids_that_are_no_whole_numbers_are_refused(make_model):
    for stop_token_ids, message in [
        ([2.0], "2.0 in stop_token_ids is no token id"),
        (torch.tensor([2.5]), "2.5 in stop_token_ids is no token id"),
        (3, "stop_token_ids is 3; needed are"),
    ]:
        with pytest.raises(GenerationError, match=message):
            UNCHECKED(make_model(), [1], stop_token_ids=stop_token_ids)


def test_a_model_whose_last_norm_has_no_weights_writes_like_a_loop_without_a_cache(make_model):
    model = make_model()
    model.final_norm = torch.nn.LayerNorm(model.config.d_model, elementwise_affine=False)
    without_cache = dataclasses.replace(GREEDY, use_cache=False)
    assert list(generate(model, [3, 1], GREEDY)) == list(generate(model, [3, 1], without_cache))
