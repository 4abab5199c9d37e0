"""`glassgpt train`: train a GPT, or go on with a run."""

from dataclasses import replace
from pathlib import Path

from glassgpt.cli.parsing import parse, take_option
from glassgpt.cli.streams import say
from glassgpt.errors import ConfigError
from glassgpt.training.config import TrainConfig

ABOUT = """\
Train a GPT on a corpus. Everything the run is goes into its folder: settings, metrics, samples, the loss
curve and checkpoints. Ctrl-C finishes the step and saves.

  --config FILE   start from the settings in a JSON file, or of another run folder; flags given here win
  --resume RUN    go on with the run in that folder, as if it had never stopped

Examples:
  glassgpt train                                              a small model of Python's documentation
  glassgpt train --data tinyshakespeare --tokenizer char --out runs/shakespeare
  glassgpt train --data ~/books --out runs/books --model.n-layers 8 --model.d-model 512 --model.n-heads 8
  glassgpt train --config runs/books --out runs/books-rope --model.positions rope --model.norm rmsnorm
  glassgpt train --resume runs/books --steps 5000             further than was planned
"""


def run(arguments: list[str]) -> int:
    """Parse `arguments`, train, and return the exit code."""
    resume, rest = take_option(arguments, "--resume")
    source, rest = take_option(rest, "--config")
    if resume is not None and source is not None:
        raise ConfigError("--resume has the settings of its own run; leave --config out.")
    for name, value in [("--resume", resume), ("--config", source)]:
        if value is not None and (value == "" or value.startswith("-")):
            raise ConfigError(f"{name} needs a path behind it: {name} runs/first")

    if resume is not None and not Path(resume).is_dir():
        raise ConfigError(f"There is no run folder {resume}. To begin one: glassgpt train --out {resume}")
    if source is not None and not Path(source).exists():
        raise ConfigError(
            f"There is neither a run folder nor a file {source}. Name a run, or its config.json: "
            f"--config runs/first"
        )

    default = None
    if resume is not None:
        default = replace(TrainConfig.load(Path(resume)), out=Path(resume))
    elif source is not None:
        default = TrainConfig.load(Path(source))
    config = parse(TrainConfig, rest, word="train", about=ABOUT, default=default)
    if resume is not None and config.out != Path(resume):
        raise ConfigError(f"--resume {resume} goes on in its own folder; leave --out {config.out} out.")

    from glassgpt.training import train

    result = train(config, resume=resume is not None, say=say)
    return 130 if result.stopped == "interrupted" else 0
