"""Windows that the C++ step reads, beside the same windows read whole by PyTorch."""

from itertools import pairwise

import pytest
import torch

from glassgpt.decoding import quantize
from glassgpt.generation.window import CachedWindowReader, WindowReader
from glassgpt.model.gpt import GPT
from tests.decoding.models import KINDS, a_model, needs_library

PROMPTS = [[3, 5, 8, 2, 44, 1, 9, 30, 12], [7], [11, 6, 2]]
N_NEW = 30


def logits_of(reader: WindowReader) -> torch.Tensor:
    """What follows each window, (N, B, V), while tokens are added that depend on nothing."""
    found = []
    for step in range(N_NEW):
        with torch.inference_mode():
            found.append(reader.next_logits().clone())
        reader.append([(step * (row + 5) + 1) % 53 for row in range(len(PROMPTS))])
    return torch.stack(found)


@needs_library
@pytest.mark.parametrize("kind", KINDS[::3], ids=lambda kind: "-".join(map(str, kind.values())))
@pytest.mark.parametrize(("to", "rounding"), [(None, 2e-5), ("bfloat16", 0.1), ("int8", 0.1)])
def test_the_step_finds_behind_prompts_and_shortened_windows_what_whole_windows_give(kind, to, rounding):
    """To twice or four times what rounding was seen to do: of float32 sums, or of activations and a cache in
    bfloat16, among logits with a deviation of about 1."""
    model = a_model(context_length=17, **kind)
    model = quantize(model, to) if to else model
    reader = CachedWindowReader(model, PROMPTS, N_NEW)
    assert reader.step is not None
    found, expected = logits_of(reader), logits_of(WindowReader(model, PROMPTS))
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding)
    assert all((one - other).abs().max() > 0.3 for one, other in pairwise(expected))


@needs_library
def test_only_where_nobody_listens_is_the_end_of_the_last_block_left_out(monkeypatch):
    prefilled, prefill = [], GPT.prefill

    def spy(model, token_ids, cache):
        prefilled.append(tuple(token_ids.shape))
        prefill(model, token_ids, cache)

    monkeypatch.setattr(GPT, "prefill", spy)
    model = a_model(context_length=17)
    logits_of(CachedWindowReader(model, PROMPTS, N_NEW))
    assert prefilled[:2] == [(3, 8), (1, 8)]  # the prompts but for their newest tokens, the first full window

    heard, last = [], model.blocks[-1].feedforward
    last.register_forward_hook(lambda _, inputs, __: heard.append(inputs[0].shape[:2]))
    prefilled.clear()
    logits_of(CachedWindowReader(model, PROMPTS, N_NEW))
    assert prefilled == []
    assert heard[0] == (3, 9)
