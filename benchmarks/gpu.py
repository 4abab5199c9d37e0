"""Training and generating on a CUDA GPU, everybody in bfloat16 and compiled.

Training: weights in float32, products in bfloat16, fused AdamW. A measurement is some steps, waited for at
their end; the first one, in which all is compiled, does not count. Generating: all weights in bfloat16.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.decoding import ALLOWED, prepare
from benchmarks.decoding_peers import write_transformers
from benchmarks.gpt2_weights import our_folder
from benchmarks.limits import CUDA_BFLOAT16, CUDA_READ
from benchmarks.rows import OURS, Bound, Row, Setting, Side, Taken
from benchmarks.texts import Task, Text, collect, referee, time_texts
from benchmarks.training import check_losses, same_start, speeds, their_model
from glassgpt.model import ModelConfig, gpt2
from glassgpt.model.costs import count_parameters, estimate

STEPS = 5
MEASUREMENTS = 4


def group_speeds(step: Callable[[], object], n_tokens: int, setting: Setting) -> list[float]:
    """Tokens/s of groups of steps, between which alone the processor waits for the GPU."""
    import torch

    def several() -> None:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()

    return speeds(several, STEPS * n_tokens, MEASUREMENTS, setting)


def peak_memory() -> dict[str, float]:
    import torch

    return {"peak GB of the GPU": torch.cuda.max_memory_allocated() / 1e9}


def train_ours(config: ModelConfig, B: int, T: int, setting: Setting) -> Taken:
    import torch

    from glassgpt.training import TrainConfig, linear_cross_entropy
    from glassgpt.training.loss import IGNORED
    from glassgpt.training.precision import choose_execution
    from glassgpt.training.step import TrainStep

    settings = TrainConfig(model=config, device="cuda", compile="on", micro_batch_size=B)
    execution = choose_execution(settings)
    with torch.device("cuda"):
        model, ids = same_start(config, B, T)
    token_ids, targets = ids[:, :-1].contiguous(), ids[:, 1:].clone()
    targets[:, -1] = IGNORED  # theirs does not see the last target
    with torch.no_grad():
        exact = linear_cross_entropy(model.hidden(token_ids), model.head.weight, targets).item()
    step = TrainStep(model.train(), settings, execution)
    batch = token_ids.cpu(), targets.cpu()  # as the loop has it
    rounded = step([batch])[0].item()
    return Taken(
        group_speeds(lambda: step([batch]), B * T, setting),
        output={"float32": exact, "as trained": rounded},
        beside=peak_memory(),
        note=str(execution.dtype).removeprefix("torch."),
    )


def train_theirs(config: ModelConfig, B: int, T: int, setting: Setting) -> Taken:
    import torch

    with torch.device("cuda"):
        ours, ids = same_start(config, B, T)
    token_ids = ids[:, :-1].contiguous()
    model = their_model(ours, 0.0).to("cuda")
    del ours
    model.eval()
    with torch.no_grad():
        exact = model(token_ids, labels=token_ids).loss.item()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    compiled = torch.compile(model)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = compiled(token_ids, labels=token_ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Taken(group_speeds(step, B * T, setting), {"float32": exact}, beside=peak_memory())


def write_ours(compiled: bool, task: Task, setting: Setting) -> Taken:
    import torch

    from glassgpt.decoding import compile_decoding
    from glassgpt.generation import SamplingConfig, generate
    from glassgpt.model import GPT

    # Where compiling fails, text is generated without, and a warning says so: no figure for this row.
    warnings.filterwarnings("error", message="The decoding step could not be compiled")
    model = GPT.from_pretrained(our_folder(setting), device="cuda", dtype=torch.bfloat16)
    if compiled:
        compile_decoding(model)

    def write(prompts: list[list[int]], n_tokens: int) -> Text:
        return collect(generate(model, prompts, SamplingConfig(max_new_tokens=n_tokens, temperature=0.0)))

    return time_texts(write, task, setting)


def bytes_read(task: Task) -> Bound:
    """Weights once for all rows, and of each row the keys and values that it has half way."""
    config = gpt2("124M")
    parameters = count_parameters(config)
    weights = 2 * (parameters.total - parameters.position_embedding)
    cached_tokens = task.prompt_tokens + task.new_tokens / 2
    cached = 2 * 2 * config.n_layers * config.kv_heads * config.d_head * cached_tokens
    amount = weights / task.n_prompts + cached
    return Bound(
        CUDA_READ, amount, f"weights and cached keys and values in bfloat16, {amount / 1e6:.1f} MB a token"
    )


def training_row(name: str, B: int, rounds: int) -> Row:
    config = gpt2(name)
    T = config.context_length
    operations = estimate(config, tokens=T).training_flops_per_token
    return Row(
        name=f"gpu-train-{name.lower()}",
        what=f"train {name} on the GPU, batch {B} × {T}",
        unit="tokens/s",
        how=f"a step is forward, backward and fused AdamW on {B} × {T} tokens, without dropout, in bfloat16 "
        f"by autocast and compiled; {STEPS} steps are one measurement.",
        sides=(
            Side(OURS, partial(train_ours, config, B, T)),
            Side("transformers", partial(train_theirs, config, B, T), "transformers"),
        ),
        check=check_losses,
        bound=Bound(
            CUDA_BFLOAT16, operations, f"6N + 12·L·H·Q·T = {operations / 1e9:.3g} G operations a token"
        ),
        rounds=rounds,
        device="cuda",
    )


def decoding_row(n_rows: int, rounds: int) -> Row:
    task = Task(n_prompts=n_rows, prompt_tokens=64, new_tokens=192)
    theirs: dict[str, Any] = {"device": "cuda", "numbers": "bfloat16"}
    return Row(
        name=f"gpu-decode-{n_rows}",
        what=f"decode 124M on the GPU, batch {n_rows}, bfloat16",
        unit="tokens/s",
        how=f"{task.n_prompts} × {task.prompt_tokens} random tokens, {task.new_tokens} new ones; the time "
        "runs from the first new token to the last, so that what is compiled or recorded before does not "
        "count. Every process writes 8 tokens to warm up, and is then timed twice.",
        sides=(
            Side(OURS, partial(write_ours, True, task)),
            Side("ours as it comes, not compiled", partial(write_ours, False, task)),
            Side("transformers", partial(write_transformers, task, **theirs), "transformers"),
            Side(
                "transformers, static cache and compiled",
                partial(write_transformers, task, **theirs, cache_implementation="static"),
                "transformers",
            ),
        ),
        check=partial(referee, task, ALLOWED["bfloat16"]),
        prepare=prepare,
        bound=bytes_read(task),
        rounds=rounds,
        device="cuda",
    )


ROWS = [
    training_row("124M", B=32, rounds=2),
    training_row("1558M", B=8, rounds=1),
    decoding_row(1, rounds=2),
    decoding_row(256, rounds=1),
]
