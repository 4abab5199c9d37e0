"""Training and generating on a CUDA GPU, everybody in bfloat16 and compiled.

Training: weights in float32, products in bfloat16, fused AdamW. A measurement is some steps, waited for at
their end; the steps before, in which all is compiled, do not count. Generating: all weights in bfloat16.

Compiling takes most of the time, in each process anew. So there is one round, and several measurements in it.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.decoding import ALLOWED, prepare
from benchmarks.decoding_peers import write_transformers
from benchmarks.gpt2_weights import our_folder
from benchmarks.limits import CUDA_BFLOAT16, CUDA_READ
from benchmarks.processes import seconds
from benchmarks.rows import OURS, Bound, Row, Setting, Side, Taken
from benchmarks.texts import Task, Text, collect, referee, time_texts
from benchmarks.training import check_losses, same_start, their_model
from glassgpt.model import ModelConfig, gpt2
from glassgpt.model.costs import count_parameters, estimate

WARMUP_STEPS = 3
MEASUREMENTS = 4


def group_speeds(step: Callable[[], object], n_steps: int, n_tokens: int, setting: Setting) -> list[float]:
    """Tokens/s of groups of `n_steps`, between which alone the processor waits for the GPU."""
    import torch

    def several(n_steps: int) -> None:
        for _ in range(n_steps):
            step()
        torch.cuda.synchronize()

    several(WARMUP_STEPS)
    taken = [seconds(partial(several, n_steps)) for _ in range(1 if setting.quick else MEASUREMENTS)]
    return [n_steps * n_tokens / second for second in taken]


def peak_memory() -> dict[str, float]:
    import torch

    return {"peak GB of the GPU": torch.cuda.max_memory_allocated() / 1e9}


def train_ours(config: ModelConfig, B: int, T: int, n_steps: int, setting: Setting) -> Taken:
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
        group_speeds(lambda: step([batch]), n_steps, B * T, setting),
        output={"float32": exact, "as trained": rounded},
        beside=peak_memory(),
        note=str(execution.dtype).removeprefix("torch."),
    )


def train_theirs(config: ModelConfig, B: int, T: int, n_steps: int, setting: Setting) -> Taken:
    import torch

    with torch.device("cuda"):
        ours, ids = same_start(config, B, T)
        model = their_model(ours, 0.0)
    token_ids = ids[:, :-1].contiguous()
    del ours
    model.eval()
    with torch.no_grad():
        exact = model(token_ids, labels=token_ids).loss.item()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    # Of the loss alone: what else it returns would get gradients, too, all of them zeros.
    loss_of = torch.compile(lambda ids: model(ids, labels=ids, use_cache=False).loss)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_of(token_ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Taken(group_speeds(step, n_steps, B * T, setting), {"float32": exact}, beside=peak_memory())


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


def training_row(name: str, B: int, n_steps: int) -> Row:
    config = gpt2(name)
    T = config.context_length
    ours, theirs = (partial(train, config, B, T, n_steps) for train in (train_ours, train_theirs))
    operations = estimate(config, tokens=T).training_flops_per_token
    return Row(
        name=f"gpu-train-{name.lower()}",
        what=f"train {name} on the GPU, batch {B} × {T}",
        unit="tokens/s",
        how=f"a step is forward, backward and fused AdamW on {B} × {T} tokens, without dropout, in bfloat16 "
        f"by autocast and compiled, ours with gradients clipped; {WARMUP_STEPS} steps, in which all is "
        f"compiled, do not count; then come {MEASUREMENTS} measurements of {n_steps} steps.",
        sides=(Side(OURS, ours), Side("transformers", theirs, "transformers")),
        check=check_losses,
        bound=Bound(
            CUDA_BFLOAT16, operations, f"6N + 12·L·H·Q·T = {operations / 1e9:.3g} G operations a token"
        ),
        rounds=1,
        device="cuda",
    )


def decoding_row(n_rows: int) -> Row:
    task = Task(n_prompts=n_rows, prompt_tokens=64, new_tokens=192, warm_up_whole=True)
    theirs: dict[str, Any] = {"device": "cuda", "numbers": "bfloat16"}
    return Row(
        name=f"gpu-decode-{n_rows}",
        what=f"decode 124M on the GPU, batch {n_rows}, bfloat16",
        unit="tokens/s",
        how=f"{task.n_prompts} × {task.prompt_tokens} random tokens, {task.new_tokens} new ones; the time "
        "runs from the first new token to the last, so that what is compiled or recorded before does not "
        "count. Every process writes all of them once to warm up, as what is compiled may depend on how many "
        "they are, and is then timed twice.",
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
        rounds=1,
        device="cuda",
    )


ROWS = [
    training_row("124M", B=32, n_steps=5),
    training_row("1558M", B=8, n_steps=2),
    decoding_row(1),
    decoding_row(256),
]
