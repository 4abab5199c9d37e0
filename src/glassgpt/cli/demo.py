"""`glassgpt demo`: the whole path from raw text to a GPT that writes, on text that is already here."""

import tempfile
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path

from glassgpt.cli.parsing import parse
from glassgpt.cli.streams import say
from glassgpt.errors import ConfigError
from glassgpt.model.config import ModelConfig
from glassgpt.training.config import OptimizerConfig, ScheduleConfig, TrainConfig

ABOUT = """\
The whole path on real text, offline: gather English that this Python carries in its own documentation,
train a tokenizer on it, train a GPT, watch it learn, let it write.

Examples:
  glassgpt demo                  about three minutes on two cores
  glassgpt demo --minutes 10     the same, longer: it writes better
"""

SENTENCE = "The function returns a dictionary of unhashable hippopotamuses."
PROMPT = "This method returns"
_DROPOUTS = {0.0: 6.0, 0.1: 13.0, 0.2: float("inf")}
"""How often the text may be read with each; `_fitted` says why."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """How long, and where to."""

    minutes: float = 2.0
    """How long to train. The number of steps is chosen for this machine's speed."""
    out: Path = Path("runs/demo")
    """The run folder; a number is added when that run exists already."""
    seed: int = 0
    """Same seed, as many steps and the same dropout: the same model."""

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf"):
            raise ConfigError(f"minutes={self.minutes!r} must be a positive number.")


def run(arguments: list[str]) -> int:
    """Parse `arguments`, walk the path, and return the exit code."""
    options = parse(DemoOptions, arguments, word="demo", about=ABOUT)
    out = _free_folder(options.out)

    _heading("Text")
    say("Reading the English in this Python's own documentation …")
    from glassgpt.data import make_tokenizer, prepare, read_corpus

    corpus = read_corpus("embedded")
    documents = list(corpus.documents())
    say(f"{len(documents):,} documents, {sum(map(len, documents)):,} characters. One of them begins:\n")
    say(_quoted(max(documents, key=len)[:300] + " …"))

    _heading("Tokens")
    config = demo_config(out, options.seed)
    started = time.perf_counter()
    tokenizer = make_tokenizer(
        "bpe", corpus, vocab_size=config.tokenizer_vocab_size, val_fraction=config.val_fraction
    )
    from glassgpt.tokenizers import pieces

    say(
        f"A byte-pair vocabulary of {tokenizer.vocab_size:,} tokens, learnt in "
        f"{time.perf_counter() - started:.1f} s. How it cuts a sentence:\n"
    )
    say("    " + "|".join(pieces(tokenizer, SENTENCE)) + "\n")
    shards = prepare(corpus, out / "data", tokenizer, val_fraction=config.val_fraction)
    say(
        f"{len(shards.train):,} tokens to learn from; {len(shards.val):,} are held out, from documents that "
        "training never sees."
    )

    _heading("Training")
    from glassgpt.training import train

    config = replace(config, data=str(out / "data"))
    fitted = _fitted(config, options.minutes, len(shards.train))
    if fitted is None:
        say("Interrupted before the training began. To begin again: glassgpt demo")
        return 130
    config, steps = fitted, fitted.steps
    every = -(-steps // 5)  # five times, the last at the end
    config = replace(
        config,
        eval_every_steps=every,
        sample_every_steps=every,
        checkpoint_every_steps=every,
        max_minutes=1.5 * options.minutes,  # should the machine have more to do than when it was tried
    )
    say(f"{steps:,} steps will take about {options.minutes:g} minutes here.")
    if config.model.dropout:
        say(
            f"They read the text {_passes(config, len(shards.train)):.0f} times: a dropout of "
            f"{config.model.dropout:.0%} keeps the model from learning it by heart so soon."
        )
    result = train(config, say=say)
    if result.stopped == "interrupted":  # and it has said how to go on
        return 130

    _heading("What it came to")
    from glassgpt.training import gzip_bits_per_byte, read_metrics

    measured_at = max(record["step"] for record in read_metrics(result.run) if "val_loss" in record)
    where = "" if measured_at == result.step else f" at step {measured_at:,}, the last to be measured"
    held_out = tokenizer.decode_bytes(shards.val[:].tolist())
    say(f"held-out text, bits per byte:   this model {result.val_bits_per_byte:.3f}{where}")
    say(f"                                gzip       {gzip_bits_per_byte(held_out):.3f}")
    say(f"the loss as it fell:            {result.run / 'loss.png'}")

    _heading("A passage")
    from glassgpt.generation import SamplingConfig, generate_text
    from glassgpt.training import load_for_use

    model, _ = load_for_use(result.run)
    sampling = SamplingConfig(max_new_tokens=120, temperature=0.8, top_p=0.95, seed=options.seed)
    print(PROMPT, end="")
    for piece in generate_text(model, tokenizer, PROMPT, sampling):
        print(piece, end="", flush=True)
    say("\n")
    say("Try next:")
    say(f'  glassgpt generate {result.run} --prompt "A generator is"')
    say(f"  glassgpt info {result.run}")
    say("  glassgpt train --help")
    return 0


def demo_config(out: Path, seed: int) -> TrainConfig:
    """The demo's run, but for its data and its length: small enough to learn something in minutes."""
    return TrainConfig(
        data="embedded",
        out=out,
        tokenizer_vocab_size=2048,
        model=ModelConfig(context_length=128, d_model=192, n_layers=4, n_heads=6),
        micro_batch_size=16,
        optimizer=OptimizerConfig(name="muon", lr=0.01, muon_lr=0.03),
        schedule=ScheduleConfig(kind="linear", min_lr_ratio=0.0),
        eval_windows=None,
        sample_prompt=PROMPT,
        seed=seed,
    )


def _fitted(config: TrainConfig, minutes: float, n_train_tokens: int) -> TrainConfig | None:
    """`config` with as many steps as this machine takes in `minutes`; None where Ctrl-C came first.

    A machine that is fast, or has long, reads the text often, and would learn it by heart. Held-out bits per
    byte, by how often, with a dropout of

        times    0      0.1    0.2
            4    1.61   1.64
            7    1.62   1.58
           10    1.70   1.56   1.58
           18           1.58   1.55
    """
    fewest, shorter = 0.0, config
    for dropout, most in _DROPOUTS.items():
        config = replace(config, model=replace(config.model, dropout=dropout))
        seconds_per_step = _seconds_per_step(config)
        if seconds_per_step is None:
            return None
        config = replace(config, steps=max(20, round(60 * minutes / seconds_per_step)))
        passes = _passes(config, n_train_tokens)
        if passes <= fewest:  # more dropout takes longer, and leaves too few for it
            return shorter
        if passes <= most:
            return config
        fewest, shorter = most, replace(config, steps=max(1, int(config.steps * most / passes)))
    raise AssertionError("the last of them has no limit")


def _passes(config: TrainConfig, n_train_tokens: int) -> float:
    """How often all of `config`'s steps read the text."""
    return config.steps * config.micro_batch_size * config.model.context_length / n_train_tokens


def _seconds_per_step(config: TrainConfig) -> float | None:
    """How long a step takes on this machine, by taking a few in a folder that is thrown away.

    None: Ctrl-C came first.
    """
    from glassgpt.training import read_metrics, train

    with tempfile.TemporaryDirectory() as folder:
        trial = replace(config, out=Path(folder), steps=12, log_every_steps=6, eval_windows=1)
        result = train(replace(trial, sample_every_steps=None), say=lambda _: None)
        if result.stopped == "interrupted":
            return None
        speeds = [record["tokens_per_second"] for record in read_metrics(Path(folder)) if "loss" in record]
    # The last of them: the first steps are slower, as they find their memory.
    return config.micro_batch_size * config.model.context_length / speeds[-1]


def _free_folder(wanted: Path) -> Path:
    folder, number = wanted, 1
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _heading(text: str) -> None:
    say(f"\n── {text} " + "─" * (76 - len(text)))


def _quoted(text: str) -> str:
    return textwrap.indent(textwrap.fill(" ".join(text.split()), 76), "    ")
