"""What weights in fewer bits cost: the perplexity of held-out text, for one trained model in three formats.

Random weights would not tell: in training some rows and columns grow large, and rounding hurts those.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rows import OURS, Check, Row, Setting, Side, Taken

CORPUS = "tinyshakespeare"
STEPS, QUICK_STEPS = 150, 3
MOST_LOST = 1.01
"""Times the perplexity of float32."""


def train_once(setting: Setting) -> None:
    """A model of 10M parameters, as `train-10m` trains it, for two minutes."""
    from glassgpt.model import ModelConfig
    from glassgpt.training import OptimizerConfig, TrainConfig, train

    steps = QUICK_STEPS if setting.quick else STEPS
    config = TrainConfig(
        data=CORPUS,
        out=run_folder(setting),
        tokenizer="char",
        model=ModelConfig(context_length=256, d_model=384, n_layers=6, n_heads=6),
        steps=steps,
        micro_batch_size=12,
        optimizer=OptimizerConfig(name="muon", lr=0.008, muon_lr=0.02),
        device="cpu",
        eval_every_steps=steps,
        sample_every_steps=None,
        checkpoint_every_steps=steps,
    )
    if not config.out.exists():
        train(config, say=lambda _: None)


def run_folder(setting: Setting) -> Path:
    return setting.folder / f"rounded-weights-{'quick' if setting.quick else 'run'}"


def perplexity(to: str | None, setting: Setting) -> Taken:
    import torch

    from glassgpt.data import TokenShards, eval_windows
    from glassgpt.decoding import quantize
    from glassgpt.model import KVCache
    from glassgpt.training import cross_entropy, load_for_use

    model, _ = load_for_use(run_folder(setting), "cpu")
    cached_in = torch.float32
    if to is not None:
        model, cached_in = quantize(model, to), torch.bfloat16  # as `generate` does it
    shards = TokenShards.open(run_folder(setting) / "data")
    n_windows = 24 if setting.quick else 400
    token_ids, targets = eval_windows(shards.val, model.config.context_length, n_windows)
    losses = []
    with torch.inference_mode():
        for rows in torch.arange(len(token_ids)).split(12):
            cache = KVCache(model.config, len(rows), model.config.context_length, dtype=cached_in)
            losses.append(cross_entropy(model(token_ids[rows], cache), targets[rows]).item() * len(rows))
    mean = math.fsum(losses) / len(token_ids)
    return Taken(values=[math.exp(mean)], output=mean)


def compare(setting: Setting, losses: Mapping[str, Any]) -> Check:
    lost = {name: math.exp(loss - losses["ours, float32"]) for name, loss in losses.items()}
    told = ", ".join(f"{name} {share:.5f} ×" for name, share in lost.items())
    return Check(lost[OURS] <= MOST_LOST, f"perplexity beside float32's, the same windows: {told}.")


ROWS = [
    Row(
        name="int8-perplexity",
        what="perplexity with weights in int8 and a cache in bfloat16, 10M characters model",
        unit="perplexity",
        how=f"Trained for {STEPS} steps of 12 × 256 characters of Shakespeare; 400 windows of held-out text.",
        sides=(
            Side(OURS, partial(perplexity, "int8")),
            Side("ours, bfloat16", partial(perplexity, "bfloat16")),
            Side("ours, float32", partial(perplexity, None)),
        ),
        check=compare,
        prepare=train_once,
        rounds=1,
    )
]
