"""The run folder before the first step: whose it is, and the data and tokenizer the run works with.

runs/first/
    config.json      everything needed to repeat the run
    data/            the corpus as token ids, where the run prepared it
    metrics.jsonl    one JSON object a line
    loss.png         the same as a picture
    samples/         step_000200.txt: what the model wrote by then
    checkpoints/     step_000500/: a model folder plus what going on needs
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from glassgpt.data import TokenShards, make_tokenizer, prepare, read_corpus
from glassgpt.data.locking import exclusive
from glassgpt.data.shards import DATASET_FILE
from glassgpt.errors import CheckpointError, ConfigError, DataError, TokenizerError
from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT
from glassgpt.storage import explained, remove_folder
from glassgpt.tokenizers import BPETokenizer, Tokenizer, load_tokenizer
from glassgpt.training.checkpoint import (
    checkpoints_of,
    newest_checkpoint,
    remove_leftovers,
    set_aside_damaged,
)
from glassgpt.training.config import RUN_CONFIG, TrainConfig
from glassgpt.training.progress import Say

_DATA = "data"
_FIXED = [
    "data",
    "tokenizer",
    "tokenizer_vocab_size",
    "val_fraction",
    "model",
    "micro_batch_size",
    "tokens_per_step",
    "seed",
]
"""What cannot change when a run goes on: the weights, the batches or the meaning of the losses hang on it."""


@contextlib.contextmanager
def only_trainer(folder: Path) -> Iterator[None]:
    """Hold the run folder for this process alone, and make it if need be.

    Raises ConfigError while another process trains in it, CheckpointError when it cannot be written.
    """

    def refuse() -> None:
        raise ConfigError(
            f"Another process is training in {folder}. Wait until it ends, or give this run another folder "
            f"with --out."
        )

    with contextlib.ExitStack() as stack:
        with explained(CheckpointError, folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(folder / "train.lock", refuse))
        yield


def claim_run_folder(config: TrainConfig, resume: bool, say: Say) -> Path | None:
    """Make `config.out` the folder of this run; return the checkpoint to go on from, if there is one.

    Raises ConfigError when the folder holds another run, or settings that cannot change were changed;
    CheckpointError when checkpoints are there but none is whole.
    """
    saved = checkpoints_of(config.out)
    if saved and not resume:
        raise ConfigError(
            f"{config.out} already holds a run that has reached step {max(saved):,}. Go on with it: "
            f"glassgpt train --resume {config.out}. Or give this one another folder with --out."
        )
    before = None
    if (config.out / RUN_CONFIG).exists():
        before = TrainConfig.load(config.out)  # also refuses a folder whose config.json is something else
        if resume:
            _check_same_run(before, config)
    checkpoint = newest_checkpoint(config.out, say)
    if checkpoint is None:
        if before is not None and _changes(before, config):
            _forget_data(before, config)
        config.save(config.out / RUN_CONFIG)  # a folder that cannot be written fails here, not hours later
    else:
        set_aside_damaged(config.out, checkpoint, say)
        remove_leftovers(config.out)
    return checkpoint


def _changes(before: TrainConfig, now: TrainConfig) -> list[str]:
    old, new = before.to_dict(), now.to_dict()
    return [f"{name}: {old[name]!r}, now {new[name]!r}" for name in _FIXED if old[name] != new[name]]


def _forget_data(before: TrainConfig, now: TrainConfig) -> None:
    """Remove the data that the run prepared under its settings of `before`, lest it go on with them under
    those of `now`."""
    folder = now.out / _DATA
    if (folder / DATASET_FILE).is_file() and not any(
        Path(config.data).resolve() == folder.resolve() for config in (before, now)
    ):
        remove_folder(folder, DataError)


def _check_same_run(before: TrainConfig, now: TrainConfig) -> None:
    changed = _changes(before, now)
    if before.optimizer.name != now.optimizer.name:
        changed.append(f"optimizer.name: {before.optimizer.name!r}, now {now.optimizer.name!r}")
    if changed:
        raise ConfigError(
            f"The run in {now.out} cannot go on with other settings than it began with:\n  "
            + "\n  ".join(changed)
            + "\nLeave these as they were, or start a new run with another --out."
        )


def open_data(config: TrainConfig, going_on: bool, say: Say) -> TokenShards:
    """The token ids to train on: a prepared folder as it is, anything else prepared into the run folder.

    A run that goes on finds what it prepared before. Raises what reading a corpus raises, and
    TokenizerError when a prepared folder was made with another tokenizer than the one asked for.
    """
    if (Path(config.data) / DATASET_FILE).is_file():
        shards = TokenShards.open(Path(config.data))
        _check_tokenizer(config, shards)
        return shards
    folder = config.out / _DATA
    if not (going_on and (folder / DATASET_FILE).is_file()):
        corpus = read_corpus(config.data)  # once: standard input cannot be opened again
        if config.tokenizer == "bpe":
            say(f"Training a tokenizer of {config.tokenizer_vocab_size:,} tokens on {corpus.name}.")
        tokenizer = make_tokenizer(
            config.tokenizer, corpus, vocab_size=config.tokenizer_vocab_size, val_fraction=config.val_fraction
        )
        prepare(corpus, folder, tokenizer, val_fraction=config.val_fraction, overwrite=True)
    return TokenShards.open(folder)


def model_config_for(config: TrainConfig, shards: TokenShards) -> ModelConfig:
    """`config.model` with a vocabulary for these tokens; a larger one than needed is padding.

    Raises ConfigError when it is smaller.
    """
    vocab_size = config.model.vocab_size or shards.vocab_size
    if vocab_size < shards.vocab_size:
        raise ConfigError(
            f"model.vocab_size={vocab_size:,} is smaller than the tokenizer's {shards.vocab_size:,}. "
            f"Leave it at 0 to take that, or give at least as much."
        )
    return replace(config.model, vocab_size=vocab_size)


def check_belongs(
    checkpoint: Path,
    model: GPT,
    tokenizer: Tokenizer | None,
    model_config: ModelConfig,
    shards: TokenShards,
) -> None:
    """Raise TokenizerError or ConfigError unless a checkpoint is of this model and reads these tokens."""
    fingerprint = tokenizer.fingerprint if tokenizer else "none"
    if fingerprint != shards.tokenizer_fingerprint:
        raise TokenizerError(
            f"The data in {shards.folder} was made with a tokenizer that does not belong to the model: its "
            f"fingerprint is {shards.tokenizer_fingerprint[:12]}, that of {checkpoint} {fingerprint[:12]}. "
            f"Prepare the data with the tokenizer.json of the checkpoint."
        )
    if model.config != model_config:
        raise ConfigError(
            f"{checkpoint} holds another model than the settings say:\n  {model.config}\n  {model_config}\n"
            f"Put the run's own {RUN_CONFIG} back, or start a new run with another --out."
        )


def tokens_sha256(shards: TokenShards) -> str:
    """A digest of all the token ids in `shards`, made from those of its files."""
    sides = [[shard.sha256 for shard in side.shards] for side in (shards.info.train, shards.info.val)]
    return hashlib.sha256(json.dumps(sides).encode()).hexdigest()


def check_same_tokens(checkpoint: Path, before: str, shards: TokenShards) -> None:
    """Raise ConfigError unless `before`, the `tokens_sha256` of a checkpoint, is that of `shards`."""
    now = tokens_sha256(shards)
    if before not in ("", now):
        raise ConfigError(
            f"The tokens in {shards.folder} are others than the run began with: their digest is {now[:12]}, "
            f"that in {checkpoint} {before[:12]}. Put the data back as they were, or start a new run with "
            f"another --out."
        )


def _check_tokenizer(config: TrainConfig, shards: TokenShards) -> None:
    if config.tokenizer in ("bpe", "char"):
        return  # "trained on the data": the data brings the one that was
    asked = BPETokenizer.gpt2() if config.tokenizer == "gpt2" else load_tokenizer(Path(config.tokenizer))
    if asked.fingerprint != shards.tokenizer_fingerprint:
        raise TokenizerError(
            f"{config.data} was prepared with another tokenizer (fingerprint "
            f"{shards.tokenizer_fingerprint[:12]}) than {config.tokenizer} ({asked.fingerprint[:12]}). "
            f"Prepare it again with this tokenizer, or leave --tokenizer out to use the data's own."
        )
