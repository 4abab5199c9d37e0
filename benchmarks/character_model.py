"""A small character model on Shakespeare: time to a held-out loss of 1.88, ours beside a plain loop.

4 layers, 4 heads, d_model 128, context 64, batch 12 on tinyshakespeare, the last tenth held out. Theirs is
the same model in float32, in the loop that everyone writes: random windows, cross-entropy, clipping and
`torch.optim.AdamW`, whose learning rate falls from 1e-3 to 1e-4 along a cosine in 2,000 steps. That comes to
1.91 here. Ours is `glassgpt.training.train` with Muon, which needs a quarter of the steps.

Their time is that of the loop alone; ours that of the whole call, with the text prepared, checkpoint and
picture written. Losses are measured afterwards, in float32 on all that is held out.
"""

import math
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rows import OURS, AtMost, Check, Ratio, Row, Setting, Side, Taken

CORPUS = "tinyshakespeare"
TARGET_LOSS, LONG_LOSS = 1.88, 1.70
THEIR_STEPS, OUR_STEPS, LONG_STEPS, QUICK_STEPS = 2000, 500, 6500, 20
LOSS = "held-out loss"


def our_config(out: Path, n_steps: int) -> Any:
    from glassgpt.model import ModelConfig
    from glassgpt.training import OptimizerConfig, ScheduleConfig, TrainConfig

    return TrainConfig(
        data=CORPUS,
        out=out,
        tokenizer="char",
        model=ModelConfig(context_length=64, d_model=128, n_layers=4, n_heads=4),
        steps=n_steps,
        micro_batch_size=12,
        optimizer=OptimizerConfig(name="muon", lr=0.016, muon_lr=0.03),
        schedule=ScheduleConfig(kind="wsd", warmup_steps=20, decay_fraction=0.95, min_lr_ratio=0.0),
        device="cpu",
        eval_every_steps=n_steps,
        sample_every_steps=None,
        checkpoint_every_steps=n_steps,
    )


def train_ours(n_steps: int, setting: Setting) -> Taken:
    from glassgpt.data import TokenShards
    from glassgpt.training import load_for_use, train
    from glassgpt.training.precision import choose_execution

    n_steps = QUICK_STEPS if setting.quick else n_steps
    with tempfile.TemporaryDirectory() as folder:
        config = our_config(Path(folder) / "run", n_steps)
        started = time.perf_counter()
        result = train(config, say=lambda _: None)
        taken = time.perf_counter() - started
        model, _ = load_for_use(result.run, "cpu")
        loss = held_out_loss(model, TokenShards.open(result.run / "data"))
    precision = str(choose_execution(config).dtype).removeprefix("torch.")
    return Taken([taken], output=loss, beside={LOSS: loss, "steps": result.step}, note=precision)


def train_theirs(setting: Setting) -> Taken:
    import torch
    import torch.nn.functional as F

    from glassgpt.data import make_tokenizer, prepare, read_corpus
    from glassgpt.model import GPT, ModelConfig

    B, T = 12, 64
    n_steps = QUICK_STEPS if setting.quick else THEIR_STEPS
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer("char", read_corpus(CORPUS), vocab_size=0, val_fraction=0.1)
        shards = prepare(CORPUS, Path(folder) / "data", tokenizer, progress=False)
        tokens = torch.from_numpy(shards.train[:].astype("int64"))
        torch.manual_seed(0)
        model = GPT(
            ModelConfig(vocab_size=tokenizer.vocab_size, context_length=T, d_model=128, n_layers=4, n_heads=4)
        )
        matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
        vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))

        started = time.perf_counter()
        for step in range(n_steps):
            for group in optimizer.param_groups:
                group["lr"] = their_learning_rate(step)
            starts = torch.randint(len(tokens) - T, (B,))
            token_ids = torch.stack([tokens[start : start + T] for start in starts])
            targets = torch.stack([tokens[start + 1 : start + 1 + T] for start in starts])
            loss = F.cross_entropy(model(token_ids).flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        taken = time.perf_counter() - started
        held_out = held_out_loss(model, shards)
    return Taken([taken], output=held_out, beside={LOSS: held_out, "steps": n_steps})


def their_learning_rate(step: int) -> float:
    """100 steps up to 1e-3, then along a cosine to 1e-4."""
    progress = max(0, step - 100) / (THEIR_STEPS - 100)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return (1e-4 + (1e-3 - 1e-4) * cosine) * min(1, (step + 1) / 100)


def held_out_loss(model: Any, shards: Any) -> float:
    import torch
    import torch.nn.functional as F

    from glassgpt.data import eval_windows

    model.eval()
    windows = eval_windows(shards.val, model.config.context_length)
    total = 0.0
    with torch.no_grad():
        for token_ids, targets in zip(*(part.split(128) for part in windows), strict=True):
            logits = model(token_ids).flatten(0, 1)
            total += F.cross_entropy(logits, targets.flatten(), reduction="sum").item()
    return total / windows[1].numel()


def check_losses(wanted: float, setting: Setting, outputs: Mapping[str, Any]) -> Check:
    said = ", ".join(f"{name} {loss:.4f}" for name, loss in outputs.items())
    return Check(
        setting.quick or outputs[OURS] <= wanted,
        f"the loss on all that is held out, in float32: {said}; ours may be {wanted:.2f} at most.",
    )


def no_corpus() -> str | None:
    from glassgpt.data import read_corpus
    from glassgpt.errors import GlassGPTError

    try:
        read_corpus(CORPUS)
    except GlassGPTError as error:
        return f"needs {CORPUS}. {error}"
    return None


ROWS = [
    Row(
        name="shakespeare",
        what=f"characters of Shakespeare, ours to a held-out loss of {TARGET_LOSS} at most",
        unit="s",
        how=f"{THEIR_STEPS:,} steps of theirs, {OUR_STEPS} of ours.",
        sides=(
            Side(OURS, partial(train_ours, OUR_STEPS)),
            Side("plain AdamW loop", train_theirs),
        ),
        check=partial(check_losses, TARGET_LOSS),
        goals=(Ratio(beside=("plain AdamW loop",), at_least=3.0),),
        rounds=1,
        in_default_set=False,
        unable=no_corpus,
    ),
    Row(
        name="shakespeare-long",
        what="the same for about three minutes",
        unit="s",
        how=f"{LONG_STEPS:,} steps of ours.",
        sides=(Side(OURS, partial(train_ours, LONG_STEPS)),),
        check=partial(check_losses, LONG_LOSS),
        goals=(AtMost(at_most=LONG_LOSS, of=LOSS),),
        rounds=1,
        in_default_set=False,
        unable=no_corpus,
    ),
]
