"""Checkpoints: everything that going on exactly needs, whole or not there.

    runs/first/checkpoints/step_000500/
        model.safetensors  config.json  tokenizer.json    a model folder, like any other
        optimizer.safetensors                             its averages, by the parameter's name
        state.json                                        the step and what was reached by it
        manifest.json                                     size and checksums of each of these

No state of a random generator is among them: batches, dropout and samples are functions of (seed, step).
"""

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from glassgpt.errors import CheckpointError
from glassgpt.model.folder import load_model, write_model_files, write_tensors
from glassgpt.model.gpt import GPT
from glassgpt.storage import folder_problems, recover_folder, staged_folder
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.metrics import METRICS
from glassgpt.training.precision import choose_device

OPTIMIZER, STATE = "optimizer.safetensors", "state.json"


@dataclass
class TrainState:
    """How far a run has come: what the loop itself remembers from one step to the next."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    val_loss: float = math.inf
    best_val_loss: float = math.inf
    best_step: int = 0
    evals_since_best: int = 0
    tokens_sha256: str = ""
    """Which tokens the run reads; empty in a checkpoint of an earlier version."""


def checkpoints_of(run: Path) -> dict[int, Path]:
    """The checkpoints of the run folder `run` by step, the oldest first, whole or not."""
    folder = Path(run) / "checkpoints"
    if not folder.is_dir():
        return {}
    for hidden in folder.glob(".step_*.previous"):  # a process died while it replaced this one
        recover_folder(folder / hidden.name[1 : -len(".previous")])
    matches = {path: re.fullmatch(r"step_(\d{6,})", path.name) for path in folder.iterdir()}
    return dict(sorted((int(match[1]), path) for path, match in matches.items() if match))


def _to_standard_error(line: str) -> None:
    print(line, file=sys.stderr)


def newest_checkpoint(run: Path, say: Callable[[str], None] = _to_standard_error) -> Path | None:
    """The newest checkpoint of `run` that verifies; None when the run has none yet.

    A damaged one is named through `say` and passed over. Raises CheckpointError when all are damaged.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints_of(run).values()):
        problems = folder_problems(path)
        if not problems:
            for line in damaged:
                say(f"Passed over a damaged checkpoint: {line}")
            return path
        damaged.append(f"{path}: {'; '.join(problems)}")
    if damaged:
        raise CheckpointError(
            f"No checkpoint in {Path(run) / 'checkpoints'} is whole:\n  "
            + "\n  ".join(damaged)
            + "\nCopy the run again from where it was made, or start a new one with another --out."
        )
    return None


def save_checkpoint(
    run: Path, model: GPT, tokenizer: Tokenizer | None, optimizer: torch.optim.Optimizer, state: TrainState
) -> Path:
    """Write the checkpoint of `state.step` into the run folder `run`, and return its folder.

    Raises CheckpointError, leaving nothing behind and the earlier checkpoints as they were, when the disk
    is full or the folder cannot be written.
    """
    folder = Path(run) / "checkpoints" / f"step_{state.step:06d}"
    with staged_folder(folder, CheckpointError) as staging:
        write_model_files(model, tokenizer, staging)
        write_tensors(_optimizer_tensors(optimizer, model), staging / OPTIMIZER)
        (staging / STATE).write_text(
            json.dumps(asdict(state), indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
    return folder


def load_for_use(folder: str | Path, device: str = "auto") -> tuple[GPT, Tokenizer | None]:
    """The model and tokenizer of a model folder, or of the newest whole checkpoint of a run folder.

    Raises CheckpointError when there is none or it is not whole, ConfigError for a device that is not here.
    """
    return load_model(model_folder_of(Path(folder)), choose_device(device))


def model_folder_of(folder: Path) -> Path:
    """The newest whole checkpoint where `folder` is a run folder; `folder` itself where it is not.

    Raises CheckpointError for a run that has none.
    """
    newest = newest_checkpoint(folder)
    if newest is None and (folder / METRICS).exists():
        raise CheckpointError(f"The run in {folder} has saved no checkpoint yet. Wait for its first.")
    return newest or folder


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
    """Give `optimizer` what it had averaged when `folder` was saved, and return the state of the run.

    `model` is the one that `load_model(folder)` returned and `optimizer` steps. Raises CheckpointError
    when the files do not fit them.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = load_file(folder / OPTIMIZER)
        state.setdefault("tokens_sha256", "")
        if state.keys() != {field.name for field in fields(TrainState)}:
            raise ValueError(f"{STATE} has the fields {', '.join(state)}")
    except (OSError, ValueError, AttributeError, SafetensorError) as fault:
        raise CheckpointError(
            f"{folder} is no checkpoint to go on from: {fault}. A model folder alone does not hold a run."
        ) from fault
    _fill_optimizer(optimizer, model, tensors, folder)
    return TrainState(**state)


def set_aside_damaged(run: Path, newest_whole: Path, say: Callable[[str], None]) -> None:
    """Rename the checkpoints behind `newest_whole`, all damaged, so that the run can save those steps again.

    They stay beside the others as step_001000.damaged, for whoever wants to look at them; `say` names each.
    """
    by_step = list(checkpoints_of(run).values())
    for path in by_step[by_step.index(newest_whole) + 1 :]:
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)  # one of an earlier time
        os.rename(path, aside)
        say(f"Set aside: {aside}")


def prune_checkpoints(run: Path, keep: int, best_step: int) -> None:
    """Remove all but the `keep` newest checkpoints and that of `best_step`; also what a crash left behind."""
    checkpoints = checkpoints_of(run)
    for step in [step for step in list(checkpoints)[:-keep] if step != best_step]:
        # Out of sight first: a process that dies half-way leaves no half checkpoint under a real name.
        hidden = checkpoints[step].with_name(f".step_{step:06d}.removed.tmp")
        os.rename(checkpoints[step], hidden)
    remove_leftovers(run)


def remove_leftovers(run: Path) -> None:
    """Remove the temporary folders of processes that died while writing or removing a checkpoint."""
    for leftover in (Path(run) / "checkpoints").glob(".step_*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)  # hidden and never read; the next start tries again


def _optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.detach().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _fill_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor], folder: Path
) -> None:
    parameters = dict(model.named_parameters())
    states: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    problems = []
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition(".")
        if name not in parameters:
            problems.append(f"unexpected  {full_name}")
        elif tensor.dim() and tensor.shape != parameters[name].shape:
            problems.append(
                f"shape       {full_name}: {tuple(tensor.shape)}, not {tuple(parameters[name].shape)}"
            )
        else:
            states[name][key] = tensor
    states = {name: state for name, state in states.items() if state or parameters[name].requires_grad}
    problems += [f"missing     {name}" for name, state in states.items() if not state]
    if problems:
        raise CheckpointError(f"{folder / OPTIMIZER} does not fit the model:\n  " + "\n  ".join(problems))
    for name, state in states.items():
        device = parameters[name].device
        optimizer.state[parameters[name]] = {key: tensor.to(device) for key, tensor in state.items()}
