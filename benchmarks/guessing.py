"""Generating with guessed tokens that are read in the same step: at best, at worst, and as it comes.

At best a text repeats itself for ever, as GPT-2's initial weights have it; at worst nothing in it repeats,
and looking for what does is time lost. As it comes: a trained model of characters, drawn from.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.gpt2_weights import load_ours, write_gpt2
from benchmarks.rounded_weights import run_folder, train_once
from benchmarks.rows import OURS, Check, Row, Setting, Side, Taken
from benchmarks.texts import Task, Text, collect, time_texts

if TYPE_CHECKING:
    from glassgpt.generation import SamplingConfig
    from glassgpt.model import GPT

PROMPT = "QUEEN:\nMy lord, "


def write_repeating(numbers: Literal["float32", "int8"], speculate: bool, setting: Setting) -> Taken:
    """Always the likeliest token of GPT-2's initial weights: six different ones, in a circle."""
    import torch

    from glassgpt.decoding import quantize
    from glassgpt.generation import SamplingConfig
    from glassgpt.model import GPT, gpt2

    torch.manual_seed(0)
    model = GPT(gpt2("124M")).eval()
    model = model if numbers == "float32" else quantize(model, numbers)
    return write(model, Task(), SamplingConfig(temperature=0.0, speculate=speculate), setting)


def write_varied(speculate: bool, setting: Setting) -> Taken:
    """Drawn from scores that are all but even, so that hardly a token returns."""
    from glassgpt.generation import SamplingConfig

    sampling = SamplingConfig(seed=1, speculate=speculate)
    return write(load_ours(setting, "int8"), Task(), sampling, setting)


def write_characters(speculate: bool, setting: Setting) -> Taken:
    from glassgpt.generation import SamplingConfig
    from glassgpt.training import load_for_use

    model, tokenizer = load_for_use(run_folder(setting), "cpu")
    sampling = SamplingConfig(temperature=0.8, seed=1, speculate=speculate)
    task = Task(prompt=tuple(tokenizer.encode(PROMPT)), new_tokens=1000)
    return write(model, task, sampling, setting)


def write(model: "GPT", task: Task, sampling: "SamplingConfig", setting: Setting) -> Taken:
    from glassgpt.generation import generate

    def continued(prompts: list[list[int]], n_tokens: int) -> Text:
        settings = dataclasses.replace(sampling, max_new_tokens=n_tokens)
        return collect(generate(model, prompts, settings))

    return time_texts(continued, dataclasses.replace(task, warm_up_whole=True), setting)


def same_tokens(setting: Setting, outputs: Mapping[str, Any]) -> Check:
    ours, plain = outputs.values()
    n_tokens, n_different = len(ours[0]), len(set(ours[0]))
    told = "the same" if ours == plain else "not the same"
    return Check(ours == plain, f"{n_tokens:,} tokens, {n_different:,} different ones: {told}.")


def row(name: str, what: str, how: str, measure: Callable[..., Taken], **more: Any) -> Row:
    return Row(
        name=f"guess-{name}",
        what=what,
        unit="tokens/s",
        how=f"{how} The time runs from the first new token to the last. Every process writes 8 tokens "
        "or more to warm up, and is then timed twice.",
        sides=(Side(OURS, partial(measure, True)), Side("ours without guesses", partial(measure, False))),
        check=same_tokens,
        **more,
    )


ROWS = [
    *(
        row(
            f"repeating-{numbers}",
            f"decode 124M, batch 1, {numbers}, a text that repeats itself for ever",
            "64 random tokens, 128 new ones, always the likeliest; GPT-2's initial weights.",
            partial(write_repeating, numbers),
        )
        for numbers in ("float32", "int8")
    ),
    row(
        "varied-int8",
        "decode 124M, batch 1, int8, a text in which nothing repeats",
        "64 random tokens, 128 new ones, drawn.",
        write_varied,
        prepare=write_gpt2,
    ),
    row(
        "characters",
        "decode 10M characters model, batch 1, float32, drawn at temperature 0.8",
        "1,000 characters of Shakespeare from the model of `int8-perplexity`, its window of 256 sliding.",
        write_characters,
        prepare=train_once,
    ),
]
