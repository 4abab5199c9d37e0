"""`glassgpt info`: what this machine, a model, a run or a dataset is, and what a model would cost."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from glassgpt.checks import is_count
from glassgpt.cli.parsing import parse
from glassgpt.errors import ConfigError, raise_problems
from glassgpt.model.config import GPT2_SIZES, ModelConfig, gpt2
from glassgpt.model.costs import estimate
from glassgpt.storage import cache_folder

if TYPE_CHECKING:
    from glassgpt.data import TokenShards

ABOUT = """\
Say what this machine is; or, given a TARGET, what that is: one of GPT-2's sizes, a model in any format, a
run folder, a checkpoint, or a prepared dataset. No model is loaded.

Examples:
  glassgpt info                               the machine, the cache, the named corpora
  glassgpt info 124M                          parameters, memory and arithmetic of GPT-2 124M
  glassgpt info 1558M --micro-batch-size 8    the same of the largest, with 8 sequences at once
  glassgpt info runs/demo                     a run: what it trained, how far it came
"""


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """What to look at."""

    target: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[TARGET]")] = None
    """124M, 355M, 774M, 1558M, gpt2, gpt2-medium, …, a folder, or a .pt file. Nothing: this machine."""
    micro_batch_size: int = 1
    """Sequences at once, for the memory that training takes."""
    tokens: int | None = None
    """Tokens a sequence. None: the model's context_length."""

    def __post_init__(self) -> None:
        problems = []
        if not is_count(self.micro_batch_size, 1):
            problems.append(f"micro_batch_size={self.micro_batch_size!r} must be at least 1.")
        if self.tokens is not None and not is_count(self.tokens, 1):
            problems.append(f"tokens={self.tokens!r} must be at least 1, or None.")
        raise_problems(ConfigError, problems, "What to look at")


def run(arguments: list[str]) -> int:
    """Parse `arguments`, describe, and return the exit code."""
    options = parse(InfoOptions, arguments, word="info", about=ABOUT)
    if options.target is None:
        print(describe_machine())
        return 0
    folder = Path(options.target)
    if options.target in GPT2_SIZES:
        print(f"GPT-2 {options.target}\n")
        print(describe_model(gpt2(options.target), options.micro_batch_size, options.tokens))
    elif (folder / "dataset.json").is_file():
        from glassgpt.data import TokenShards

        print(describe_dataset(TokenShards.open(folder)))
    elif (folder / "metrics.jsonl").is_file() or (folder / "checkpoints").is_dir():
        from glassgpt.training.config import TrainConfig

        print(describe_run(folder))
        model = _model_of(folder) or TrainConfig.load(folder).model
        if model.vocab_size:
            print("\n" + describe_model(model, options.micro_batch_size, options.tokens))
    else:
        print(describe_model(_config_of(options.target), options.micro_batch_size, options.tokens))
    return 0


def describe_machine() -> str:
    """A few lines on versions, the device, the precision that training would choose, and the cache."""
    import torch

    from glassgpt import __version__
    from glassgpt.data import CORPUS_NAMES
    from glassgpt.training.config import TrainConfig
    from glassgpt.training.precision import choose_execution

    cache = cache_folder()
    vocabulary = "there" if (cache / "openai" / "gpt2" / "vocab.bpe").is_file() else "not in the cache"
    return "\n".join(
        [
            f"glassgpt {__version__}, Python {platform.python_version()}, PyTorch {torch.__version__}",
            f"machine          {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            f"training runs on {choose_execution(TrainConfig()).describe()}",
            f"cache            {cache}",
            f"gpt2 vocabulary  {vocabulary}",
            f"corpora          {', '.join(CORPUS_NAMES)}",
        ]
    )


def describe_model(config: ModelConfig, micro_batch_size: int, tokens: int | None) -> str:
    """Parameters by part, memory and arithmetic of a model, from its configuration alone.

    Raises ConfigError for more tokens than the model's context has.
    """
    n_tokens = tokens or config.context_length
    if n_tokens > config.context_length:
        raise ConfigError(
            f"tokens={n_tokens:,} is above the model's context_length={config.context_length:,}. "
            f"Choose 1 to {config.context_length:,}."
        )
    costs = estimate(config, micro_batch_size=micro_batch_size, tokens=n_tokens)
    counts = costs.parameters
    parts = {
        "token embedding": counts.token_embedding,
        "position embedding": counts.position_embedding,
        "attention": counts.attention,
        "feed-forward": counts.feedforward,
        "norms": counts.norms,
        "head": counts.head,
    }
    lines = [
        f"{config.n_layers} layers of {config.n_heads} heads, d_model {config.d_model}, context_length "
        f"{config.context_length:,}, vocab_size {config.vocab_size:,}",
        f"{config.norm}, {config.positions} positions, {config.feedforward}, "
        f"{config.kv_heads} key/value heads"
        + (f", window {config.attention_window}" if config.attention_window else ""),
        "",
    ]
    for name, count in parts.items():
        share = f"{count / counts.total:6.1%}" if count else "  tied" if name == "head" else "  none"
        lines.append(f"  {name:<20}{count:>15,}  {share}")
    lines += [
        f"  {'parameters':<20}{counts.total:>15,}",
        "",
        f"  weights, float32            {_bytes(costs.weights_bytes)}",
        f"  weights, bfloat16           {_bytes(costs.weights_bytes // 2)}",
        f"  training, {micro_batch_size} × {n_tokens:,} tokens  {_bytes(costs.training_bytes)}   "
        "(float32, AdamW)",
        f"  key/value cache, {n_tokens:,} tokens  {_bytes(costs.cache_bytes_per_token * n_tokens)}",
        f"  a token read                {costs.forward_flops_per_token / 1e9:.3g} GFLOP",
        f"  a token trained on          {costs.training_flops_per_token / 1e9:.3g} GFLOP",
    ]
    return "\n".join(lines)


def describe_dataset(shards: "TokenShards") -> str:
    """What was tokenised, and how much of it lies on each side of the split."""
    info = shards.info
    lines = [f"{shards.folder}: {info.corpus} in {info.vocab_size:,} tokens, split {info.split}"]
    for name, side in [("to learn from", info.train), ("held out", info.val)]:
        ratio = f", {side.n_bytes / side.n_tokens:.2f} bytes a token" if side.n_tokens else ""
        lines.append(
            f"  {name:<14}{side.n_tokens:>15,} tokens  {side.n_bytes:>15,} bytes  "
            f"{side.n_documents:>9,} documents{ratio}"
        )
    return "\n".join(lines)


def describe_run(folder: Path) -> str:
    """How far a run came, and which of its checkpoints are whole."""
    from glassgpt.storage import folder_problems
    from glassgpt.training.checkpoint import checkpoints_of
    from glassgpt.training.config import TrainConfig
    from glassgpt.training.metrics import read_metrics

    config = TrainConfig.load(folder)
    lines = [f"A run on {config.data}, planned for {config.steps:,} steps."]
    measured = [row for row in read_metrics(folder) if "val_loss" in row]
    if measured:
        last, best = measured[-1], min(measured, key=lambda row: row["val_loss"])
        lines.append(
            f"Last measured at step {last['step']:,}: validation loss {last['val_loss']:.4f} nats a token."
        )
        lines.append(f"Best measured at step {best['step']:,}: {best['val_loss']:.4f}.")
    for path in checkpoints_of(folder).values():
        problems = folder_problems(path)
        lines.append(f"{path}: {'whole' if not problems else '; '.join(problems)}")
    return "\n".join(lines)


def _model_of(run: Path) -> ModelConfig | None:
    from glassgpt.training.checkpoint import newest_checkpoint

    newest = newest_checkpoint(run)
    return None if newest is None else _read_model_config(newest / "config.json")


def _config_of(target: str) -> ModelConfig:
    """What the model `target`, of any format, is. One of ours need not be whole: its settings are enough."""
    from glassgpt.pretrained.loading import NAMES, open_model
    from glassgpt.pretrained.stored import read_json

    path = Path(target)
    if not path.exists() and target in NAMES:
        return gpt2(NAMES[target])
    if not path.exists():
        raise ConfigError(
            f"{target!r} is neither one of GPT-2's sizes ({', '.join(GPT2_SIZES)}) or names "
            f"({', '.join(NAMES)}) nor a model, run or dataset. Check the path."
        )
    settings = path / "config.json"
    if settings.is_file() and "model_type" not in read_json(settings):
        return _read_model_config(settings)
    return open_model(target).config


def _read_model_config(path: Path) -> ModelConfig:
    from glassgpt.model.folder import read_description

    return read_description(path)[0]


def _bytes(n: int) -> str:
    return f"{n / 2**30:.2f} GiB" if n >= 2**30 else f"{n / 2**20:.1f} MiB"
