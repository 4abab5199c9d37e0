"""A small character model on Shakespeare: time to a held-out loss of 1.88, ours beside a plain loop.

4 layers, 4 heads, d_model 128, context 64, batch 12 on tinyshakespeare, the last tenth held out. Theirs is
the same model in float32, in the loop that everyone writes: random windows, cross-entropy, clipping and
`torch.optim.AdamW`, whose learning rate falls from 1e-3 to 1e-4 along a cosine in 2,000 steps. That comes to
about 1.88. Ours is `glassgpt.training.train` with Muon, which needs a quarter of the steps.

Their time is that of the loop alone; ours that of the whole call, with the text prepared, checkpoint and
picture written. Losses are measured afterwards, in float32 on all that is held out. Every run has a process
of its own, and theirs stands between two of ours. Then ours trains once for three minutes.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

from _side_by_side import alone, print_machine, print_table, verdict

TARGET_LOSS, TARGET_SHARE = 1.88, 1 / 3
LONG_MINUTES, LONG_LOSS = 3.0, 1.70
THEIR_STEPS, OUR_STEPS = 2000, 500


def main() -> int:
    options = read_options()
    print_machine()
    ours = [alone(train_ours, options.data, OUR_STEPS)]
    theirs = alone(train_theirs, options.data, options.their_steps)
    ours.append(alone(train_ours, options.data, OUR_STEPS))
    seconds = statistics.median(run["seconds"] for run in ours)
    loss = max(run["loss"] for run in ours)
    their_seconds = theirs["seconds"] * THEIR_STEPS / options.their_steps
    rows = [
        ["AdamW loop, float32", *cells(THEIR_STEPS, their_seconds, theirs["loss"])],
        [f"glassgpt, muon, {ours[0]['precision']}", *cells(OUR_STEPS, seconds, loss)],
    ]
    if options.long:
        steps = round(60 * LONG_MINUTES * OUR_STEPS / seconds)
        long = alone(train_ours, options.data, steps)
        rows.append(
            [f"glassgpt, {LONG_MINUTES:g} minutes", *cells(long["steps"], long["seconds"], long["loss"])]
        )
    print_table(["", "steps", "seconds", "ms a step", "held-out loss"], rows)
    if options.their_steps < THEIR_STEPS:
        print(
            f"Their time is that of {options.their_steps} steps, times {THEIR_STEPS / options.their_steps:g}."
        )

    share = seconds / their_seconds
    claim = f"{TARGET_LOSS} in {share:.2f} of their time; wanted {TARGET_SHARE:.2f}"
    reached = [verdict(claim, loss <= TARGET_LOSS and share <= TARGET_SHARE)]
    if options.long:
        claim = f"{long['loss']:.3f} after {long['seconds'] / 60:.1f} minutes; wanted below {LONG_LOSS:.2f}"
        reached.append(verdict(claim, long["loss"] < LONG_LOSS))
    return 0 if all(reached) else 1


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Quick: --their-steps 200 --no-long, about a minute on two cores.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", default="tinyshakespeare", help="corpus or text file (default: %(default)s)"
    )
    parser.add_argument(
        "--their-steps",
        type=int,
        default=THEIR_STEPS,
        help="stop theirs early and extrapolate (default: all)",
    )
    parser.add_argument(
        "--long", action=argparse.BooleanOptionalAction, default=True, help="also train for three minutes"
    )
    return parser.parse_args()


def cells(steps: int, seconds: float, loss: float) -> list[str]:
    return [f"{steps:,}", f"{seconds:.1f}", f"{1000 * seconds / steps:.1f}", f"{loss:.4f}"]


def our_config(data: str, out: Path, steps: int):
    from glassgpt.model import ModelConfig
    from glassgpt.training import OptimizerConfig, ScheduleConfig, TrainConfig

    return TrainConfig(
        data=data,
        out=out,
        tokenizer="char",
        model=ModelConfig(context_length=64, d_model=128, n_layers=4, n_heads=4),
        steps=steps,
        micro_batch_size=12,
        optimizer=OptimizerConfig(name="muon", lr=0.016, muon_lr=0.03),
        schedule=ScheduleConfig(kind="wsd", warmup_steps=20, decay_fraction=0.95, min_lr_ratio=0.0),
        device="cpu",
        eval_every_steps=steps,
        sample_every_steps=None,
        checkpoint_every_steps=steps,
        max_minutes=LONG_MINUTES,
    )


def train_ours(data: str, steps: int) -> dict:
    from glassgpt.data import TokenShards
    from glassgpt.training import load_for_use, train
    from glassgpt.training.precision import choose_execution

    with tempfile.TemporaryDirectory() as folder:
        config = our_config(data, Path(folder) / "run", steps)
        started = time.perf_counter()
        result = train(config, say=lambda _: None)
        seconds = time.perf_counter() - started
        model, _ = load_for_use(result.run, "cpu")
        loss = held_out_loss(model, TokenShards.open(result.run / "data"))
    precision = str(choose_execution(config).dtype).removeprefix("torch.")
    return {"steps": result.step, "seconds": seconds, "loss": loss, "precision": precision}


def train_theirs(data: str, steps: int) -> dict:
    import torch
    import torch.nn.functional as F

    from glassgpt.data import make_tokenizer, prepare, read_corpus
    from glassgpt.model import GPT, ModelConfig

    B, T = 12, 64
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer("char", read_corpus(data), vocab_size=0, val_fraction=0.1)
        shards = prepare(data, Path(folder) / "data", tokenizer, progress=False)
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
        for step in range(steps):
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
        return {"seconds": time.perf_counter() - started, "loss": held_out_loss(model, shards)}


def their_learning_rate(step: int) -> float:
    """100 steps up to 1e-3, then along a cosine to 1e-4."""
    progress = max(0, step - 100) / (THEIR_STEPS - 100)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return (1e-4 + (1e-3 - 1e-4) * cosine) * min(1, (step + 1) / 100)


def held_out_loss(model, shards) -> float:
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


if __name__ == "__main__":
    sys.exit(main())
