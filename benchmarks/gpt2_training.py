"""GPT-2 124M trained on the CPU: tokens/s and peak memory, ours beside `transformers` as it comes.

A step is forward, backward and an optimizer step on random token ids. Theirs is what a first script does:
`GPT2LMHeadModel(GPT2Config())` in training mode, in float32, with its own loss and `torch.optim.AdamW` at its
defaults. (The configuration brings dropout 0.1, of which ours has none; --dropout sets it for both.) Ours are
the parts that `glassgpt.training.train` puts together: the precision chosen for the machine, the loss that
never holds all logits, clipping, AdamW.

Each measurement has a process of its own, theirs and ours in turn, --rounds times. The first two steps of
each are not counted: memory is touched for the first time in them.
"""

import argparse
import statistics
import sys
import time
import warnings

from _side_by_side import alone, peak_gigabytes, print_machine, print_table, verdict

SPEED_TARGET = 2.2
WARMUP_STEPS = 2


def main() -> int:
    options = read_options()
    print_machine()
    rounds = [(alone(train_theirs, options), alone(train_ours, options)) for _ in range(options.rounds)]
    names = ["transformers, float32", f"glassgpt, {rounds[0][1]['precision']}"]
    speeds, peaks, rows = [], [], []
    for name, runs in zip(names, zip(*rounds, strict=True), strict=True):
        seconds = statistics.median(second for run in runs for second in run["seconds"])
        speeds.append(options.batch * options.tokens / seconds)
        peaks.append(max(run["gigabytes"] for run in runs))
        rows.append([name, f"{seconds:.2f}", f"{speeds[-1]:.0f}", f"{peaks[-1]:.2f}"])
    print_table(["124M parameters", "s a step", "tokens/s", "peak GB"], rows)
    ratio = speeds[1] / speeds[0]
    fast = verdict(f"{ratio:.2f} × the tokens/s; wanted {SPEED_TARGET} ×", ratio >= SPEED_TARGET)
    small = verdict(f"{peaks[1] / peaks[0]:.2f} × the memory; wanted no more", peaks[1] <= peaks[0])
    return 0 if fast and small else 1


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Quick: --rounds 1 --steps 3, about a minute on two cores.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="steps counted in each (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="sequences in a batch (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=256, help="tokens in a sequence (default: %(default)s)")
    parser.add_argument("--dropout", type=float, help="for both (default: 0.1 for theirs, 0 for ours)")
    return parser.parse_args()


def train_theirs(options: argparse.Namespace) -> dict:
    warnings.filterwarnings("ignore")
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.manual_seed(0)
    config = GPT2Config()
    if options.dropout is not None:
        config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = options.dropout
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters())
    token_ids = torch.randint(config.vocab_size, (options.batch, options.tokens))

    def step() -> None:
        model(token_ids, labels=token_ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"seconds": time_steps(step, options.steps), "gigabytes": peak_gigabytes()}


def train_ours(options: argparse.Namespace) -> dict:
    from dataclasses import replace

    import torch

    from glassgpt.model import GPT, gpt2
    from glassgpt.training import TrainConfig, linear_cross_entropy, make_optimizer
    from glassgpt.training.optimizer import clip_gradients
    from glassgpt.training.precision import choose_execution, keep_freed_memory

    torch.manual_seed(0)
    keep_freed_memory()
    config = TrainConfig(model=replace(gpt2("124M"), dropout=options.dropout or 0.0), device="cpu")
    execution = choose_execution(config)
    model = GPT(config.model).train()
    optimizer = make_optimizer(model, config.optimizer)
    ids = torch.randint(config.model.vocab_size, (options.batch, options.tokens + 1))
    token_ids, targets = ids[:, :-1], ids[:, 1:]

    def step() -> None:
        with execution.autocast():
            loss = linear_cross_entropy(model.hidden(token_ids), model.head.weight, targets)
        loss.backward()
        clip_gradients(model.parameters(), config.optimizer.grad_clip)
        optimizer.step()
        optimizer.zero_grad()

    seconds = time_steps(step, options.steps)
    precision = str(execution.dtype).removeprefix("torch.")
    return {"seconds": seconds, "gigabytes": peak_gigabytes(), "precision": precision}


def time_steps(step, n_steps: int) -> list[float]:
    seconds = []
    for _ in range(WARMUP_STEPS + n_steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds[WARMUP_STEPS:]


if __name__ == "__main__":
    sys.exit(main())
