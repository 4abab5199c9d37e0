"""Generating with GPT-2 124M on the CPU: one token at a time, always the likeliest one.

Nobody guesses tokens here, and so everybody reads all weights for each; `guessing.py` measures what guesses
bring.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks import decoding_peers as peers
from benchmarks.gpt2_weights import load_ours, write_gpt2
from benchmarks.limits import READ
from benchmarks.onnx_gpt2 import onnxruntime_side, write_onnx_model
from benchmarks.rows import OURS, Bound, Ratio, Row, Setting, Share, Side, Taken
from benchmarks.texts import ONE, Task, Text, collect, referee, time_texts
from glassgpt.model import gpt2
from glassgpt.model.costs import count_parameters

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
PACKED = {"float32": 28, "bfloat16": 12}
"""Bits of a weight in the copy that ours may read."""
ALLOWED = {"float32": 1e-3, "bfloat16": 0.3, "int8": 0.5}
"""How far behind the highest score a token may be; the scores' deviation is 1.7."""


def write_ours(numbers: Any, task: Task, setting: Setting) -> Taken:
    from glassgpt.generation import SamplingConfig, generate

    model = load_ours(setting, numbers)

    def write(prompts: list[list[int]], n_tokens: int) -> Text:
        sampling = SamplingConfig(max_new_tokens=n_tokens, temperature=0.0, speculate=False)
        return collect(generate(model, prompts, sampling))

    return time_texts(write, task, setting)


def prepare(setting: Setting, formats: Sequence[Callable[[Setting], None]] = ()) -> None:
    write_gpt2(setting)
    for write in formats:
        write(setting)


def weights_read(numbers: str) -> Bound:
    """All weights but the position embeddings; the token embeddings are the head, too."""
    parameters = count_parameters(gpt2("124M"))
    n_read = parameters.total - parameters.position_embedding
    what = f"{n_read / 1e6:.1f}M weights a token in {numbers}"
    if numbers in PACKED:
        what += f", as {8 * BYTES[numbers]} bits each: ours may pack them into {PACKED[numbers]} before the "
        what += "first token, and that is not timed"
    return Bound(READ, n_read * BYTES[numbers], what)


def row(name: str, what: str, numbers: str, task: Task, sides: tuple[Side, ...], **more: Any) -> Row:
    timed = (
        "the time runs from the call to the first new token"
        if task.only_first
        else f"{task.new_tokens} new ones; the time runs from the first new token to the last"
    )
    return Row(
        name=name,
        what=f"{what}, {numbers}",
        unit="s" if task.only_first else "tokens/s",
        how=f"{task.n_prompts} × {task.prompt_tokens} random tokens, {timed}. Every process writes "
        "8 tokens or more to warm up, and is then timed more than once.",
        sides=(Side(OURS, partial(write_ours, numbers, task)), *sides),
        check=partial(referee, task, ALLOWED[numbers]),
        **more,
    )


def transformers_side(task: Task) -> Side:
    return Side("transformers", partial(peers.write_transformers, task), "transformers")


MANY = Task(n_prompts=32)
LONG = Task(prompt_tokens=900, new_tokens=8, only_first=True)

ROWS = [
    row(
        "decode-float32",
        "decode 124M, batch 1",
        "float32",
        ONE,
        (transformers_side(ONE), peers.ctranslate2_side("float32")),
        prepare=partial(prepare, formats=(peers.write_ctranslate2_folder,)),
        goals=(
            Ratio(beside=("transformers",), at_least=2.8, aim=3.5),
            Ratio(beside=("ctranslate2 float32",), at_least=1.3),
            Share(aim=0.8),
        ),
        bound=weights_read("float32"),
    ),
    row(
        "decode-bfloat16",
        "decode 124M, batch 1",
        "bfloat16",
        ONE,
        (peers.llama_side("f16"),),
        prepare=partial(prepare, formats=(peers.write_gguf_files,)),
        goals=(Ratio(beside=("llama.cpp f16",), at_least=1.4, aim=1.8), Share(aim=0.8)),
        bound=weights_read("bfloat16"),
    ),
    row(
        "decode-int8",
        "decode 124M, batch 1",
        "int8",
        ONE,
        (peers.llama_side("q8_0"), onnxruntime_side(), peers.ctranslate2_side("int8")),
        prepare=partial(
            prepare,
            formats=(peers.write_ctranslate2_folder, peers.write_gguf_files, write_onnx_model),
        ),
        goals=(
            Ratio(beside=("llama.cpp q8_0", "onnxruntime int8", "ctranslate2 int8"), at_least=1.6, aim=2.3),
            Share(aim=0.7),
        ),
        bound=weights_read("int8"),
    ),
    *(
        row(
            f"decode-batch-32-{numbers}",
            "decode 124M, batch 32",
            numbers,
            MANY,
            (transformers_side(MANY),),
            prepare=prepare,
            goals=(Ratio(beside=("transformers",), at_least=2.0, aim=3.0),),
            rounds=2,
        )
        for numbers in BYTES
    ),
    *(
        row(
            f"prompt-{numbers}",
            "124M reads a prompt of 900 tokens",
            numbers,
            LONG,
            (transformers_side(LONG),),
            prepare=prepare,
            goals=(Ratio(beside=("transformers",), at_least=1.8, aim=2.5),),
            rounds=5,
        )
        for numbers in BYTES
    ),
]
