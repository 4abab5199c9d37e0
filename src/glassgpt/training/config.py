"""What a training run is: every setting, checked together before anything is read or built.

The command line's flags and their help are derived from these classes, and a run's `config.json` is
`TrainConfig.to_dict()`: a flag, a field and a saved setting can never disagree.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from glassgpt.checks import is_count, is_number, is_positive, not_one_of
from glassgpt.errors import ConfigError, GlassGPTError, raise_problems
from glassgpt.model.config import ModelConfig
from glassgpt.storage import write_atomically

RUN_CONFIG = "config.json"

OptimizerName = Literal["adamw", "muon"]
ScheduleKind = Literal["cosine", "linear", "constant", "wsd"]
Precision = Literal["auto", "float32", "bfloat16"]
Compile = Literal["auto", "on", "off"]

Section = TypeVar("Section", "OptimizerConfig", "ScheduleConfig", "TrainConfig")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients become steps. Chapter 06."""

    name: OptimizerName = "adamw"
    """adamw (arXiv:1711.05101) for everything, or muon for the matrices inside the blocks."""
    lr: float = 1e-3
    """Highest learning rate: where the warm-up ends."""
    muon_lr: float = 0.02
    """The same for the matrices that muon steps; read only with name=muon."""
    weight_decay: float = 0.1
    """Share of a matrix that is taken away a step, times lr; vectors (biases, norms) are spared."""
    betas: tuple[float, float] = (0.9, 0.95)
    """How slowly the averages of the gradient and of its square forget; muon uses the first."""
    eps: float = 1e-8
    """Added to AdamW's denominator."""
    grad_clip: float | None = 1.0
    """Gradients are scaled down to at most this norm, all parameters together. None: never."""

    def problems(self) -> Iterator[str]:
        """A sentence for each setting that is out of range."""
        if self.name not in get_args(OptimizerName):
            yield not_one_of("optimizer.name", self.name, OptimizerName)
        for name in ("lr", "muon_lr", "eps"):
            if not is_positive(getattr(self, name)):
                yield f"optimizer.{name}={getattr(self, name)!r} must be a positive number."
        if not is_number(self.weight_decay) or self.weight_decay < 0:
            yield f"optimizer.weight_decay={self.weight_decay!r} must be at least 0."
        is_pair = isinstance(self.betas, tuple | list) and len(self.betas) == 2
        if not is_pair or not all(is_number(beta) and 0 <= beta < 1 for beta in self.betas):
            yield f"optimizer.betas={self.betas!r} must be two numbers of at least 0 and below 1."
        if self.grad_clip is not None and not is_positive(self.grad_clip):
            yield f"optimizer.grad_clip={self.grad_clip!r} must be a positive number, or None."


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate goes up and down. Chapter 06."""

    kind: ScheduleKind = "cosine"
    """After the warm-up: half a cosine, a straight line, constant, or wsd (constant, then a line down)."""
    warmup_steps: int | None = None
    """Steps over which the rate rises from 0. None: a twentieth of all steps."""
    min_lr_ratio: float = 0.1
    """The rate at the end, as a share of the highest."""
    decay_fraction: float = 0.2
    """wsd only: the share of all steps over which the rate falls."""

    def problems(self) -> Iterator[str]:
        """A sentence for each setting that is out of range."""
        if self.kind not in get_args(ScheduleKind):
            yield not_one_of("schedule.kind", self.kind, ScheduleKind)
        if self.warmup_steps is not None and not is_count(self.warmup_steps, 0):
            yield f"schedule.warmup_steps={self.warmup_steps!r} must be a whole number from 0, or None."
        for name in ("min_lr_ratio", "decay_fraction"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value <= 1:
                yield f"schedule.{name}={value!r} must lie between 0 and 1."


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: data, model, how long, how often to look. Chapter 06.

    Raises ConfigError naming every problem at once.
    """

    data: str = "embedded"
    """A named corpus, a file, a folder, a pattern, "-" (standard input), or a folder made by prepare."""
    out: Path = Path("runs/first")
    """The run folder: settings, metrics, samples, the curve and the checkpoints go there."""
    tokenizer: str = "bpe"
    """bpe or char (trained on the data), gpt2, or the path of a tokenizer.json. Prepared data has its own."""
    tokenizer_vocab_size: int = 4096
    """How many tokens a bpe tokenizer trained here gets."""
    val_fraction: float = 0.1
    """Share of the text that is held out to measure the loss on."""

    model: ModelConfig = field(
        default_factory=lambda: ModelConfig(context_length=256, d_model=256, n_layers=4, n_heads=4)
    )
    """The shape of the model."""

    steps: int = 1000
    """Optimizer steps in all."""
    micro_batch_size: int = 16
    """Sequences that go through the model at once: memory is what limits it."""
    tokens_per_step: int | None = None
    """Tokens behind each optimizer step, gathered over micro-batches. None: one micro-batch."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How gradients become steps."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """How the learning rate goes up and down."""
    seed: int = 0
    """Same seed, same run: it sets the initial weights, the order of the data, dropout and samples."""

    device: str = "auto"
    """auto (the fastest there is), cpu, cuda, cuda:1, mps, …"""
    precision: Precision = "auto"
    """float32, bfloat16 (the arithmetic; weights stay float32), or what is faster on this machine."""
    compile: Compile = "auto"
    """Whether torch.compile builds kernels first: off, on, or only where it pays."""

    log_every_steps: int = 10
    """How often loss and speed are written to metrics.jsonl."""
    eval_every_steps: int = 100
    """How often the held-out loss is measured."""
    eval_windows: int | None = 64
    """How many stretches of held-out text that takes, always the same. None: all of it."""
    early_stop_evals: int | None = None
    """Stop when this many evaluations in a row brought no better held-out loss. None: never."""
    sample_every_steps: int | None = 200
    """How often the model writes a few words. None: never."""
    sample_prompt: str = ""
    """What the samples begin with. Empty: the start of a document."""
    sample_tokens: int = 48
    """How long a sample is."""
    checkpoint_every_steps: int = 500
    """How often everything needed to go on is saved; the last step always is."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay. With early_stop_evals, the best one is saved and stays too."""
    max_minutes: float | None = None
    """Save and stop after this long, counted from this start. None: when the steps are done."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard, to the folder tensorboard of the run."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", Path(self.out))
        problems = [*self.optimizer.problems(), *self.schedule.problems(), *self._problems()]
        raise_problems(ConfigError, problems, "The training configuration")

    def _problems(self) -> Iterator[str]:
        if not self.data:
            yield 'data="" names no corpus: give a name, a path, or "-" for standard input.'
        if not self.tokenizer:
            yield 'tokenizer="" names none: bpe, char, gpt2, or the path of a tokenizer.json.'
        for name, choices in [("precision", Precision), ("compile", Compile)]:
            if getattr(self, name) not in get_args(choices):
                yield not_one_of(name, getattr(self, name), choices)
        counts = ["tokenizer_vocab_size", "steps", "micro_batch_size", "log_every_steps", "eval_every_steps"]
        counts += ["sample_tokens", "checkpoint_every_steps", "keep_checkpoints"]
        for name in counts:
            if not is_count(getattr(self, name), 1):
                yield f"{name}={getattr(self, name)!r} must be a whole number of at least 1."
        for name in ("tokens_per_step", "eval_windows", "early_stop_evals", "sample_every_steps"):
            if getattr(self, name) is not None and not is_count(getattr(self, name), 1):
                yield f"{name}={getattr(self, name)!r} must be a whole number of at least 1, or None."
        if not is_count(self.seed, 0) or self.seed >= 2**63:
            yield f"seed={self.seed!r} must be a whole number of at least 0 and below 2⁶³."
        if not is_number(self.val_fraction) or not 0 < self.val_fraction < 1:
            yield f"val_fraction={self.val_fraction!r} must lie between 0 and 1."
        if self.max_minutes is not None and not is_positive(self.max_minutes):
            yield f"max_minutes={self.max_minutes!r} must be a positive number, or None."
        if is_count(self.micro_batch_size, 1) and is_count(self.tokens_per_step, 1):
            micro = self.micro_batch_size * self.model.context_length
            below = self.tokens_per_step // micro * micro
            if below != self.tokens_per_step:
                nearest = " or ".join(f"{n:,}" for n in (below, below + micro) if n)
                yield (
                    f"tokens_per_step={self.tokens_per_step:,} is not a multiple of micro_batch_size × "
                    f"context_length = {micro:,}; nearest: {nearest}."
                )

    @property
    def n_micro_batches(self) -> int:
        """How many micro-batches make up one optimizer step."""
        micro = self.micro_batch_size * self.model.context_length
        return 1 if self.tokens_per_step is None else self.tokens_per_step // micro

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `from_dict` is the inverse."""
        values = asdict(self)
        values["out"] = str(self.out)
        values["optimizer"]["betas"] = list(self.optimizer.betas)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Build a configuration from `to_dict`'s form.

        Raises ConfigError for a field that does not exist here, rather than dropping it.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"A training configuration is an object of settings, not {values!r}.")
        values = dict(values)
        if "model" in values:
            values["model"] = ModelConfig.from_dict(values["model"])
        if "optimizer" in values:
            optimizer = dict(values["optimizer"])
            if "betas" in optimizer:
                optimizer["betas"] = tuple(optimizer["betas"])
            values["optimizer"] = _section(OptimizerConfig, optimizer, "optimizer configuration")
        if "schedule" in values:
            values["schedule"] = _section(ScheduleConfig, values["schedule"], "schedule configuration")
        return _section(cls, values, "training configuration")

    def save(self, path: Path) -> None:
        """Write the configuration to the JSON file `path`; `load` is the inverse."""
        write_atomically(path, json.dumps(self.to_dict(), indent=1) + "\n", ConfigError)

    @classmethod
    def load(cls, path: Path) -> "TrainConfig":
        """Read a configuration from a JSON file, or from the run folder that holds one.

        Raises ConfigError when there is none, or it is not one.
        """
        path = Path(path) / RUN_CONFIG if Path(path).is_dir() else Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.get("format") == "glassgpt":
                raise ConfigError("it describes a model, not a run. Name the folder that holds checkpoints/.")
            return cls.from_dict(values)
        except FileNotFoundError as fault:
            raise ConfigError(f"There is no file {path}. A run folder holds its settings there.") from fault
        except (OSError, ValueError, TypeError, AttributeError) as fault:
            raise ConfigError(f"{path} is not a training configuration: {fault}.") from fault
        except GlassGPTError as fault:
            raise ConfigError(f"{path}: {fault}") from fault


def _section(section: type[Section], values: dict[str, Any], what: str) -> Section:
    known = {field.name for field in fields(section)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ConfigError(
            f"The {what} has unknown fields: {', '.join(unknown)}. Known: {', '.join(sorted(known))}."
        )
    return section(**values)
