"""Run by test_checkpoint.py in a process of its own: saves checkpoints in children that die while they do.

    killing.py FOLDER each     a child for each system call of a save, dying just before it
    killing.py FOLDER random   children killed with SIGKILL after a random while
    killing.py FOLDER small    a child that may write only files smaller than a checkpoint's

Prints a JSON list: for each child what the folder then held.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from glassgpt.errors import CheckpointError
from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT
from glassgpt.training.checkpoint import TrainState, newest_checkpoint, prune_checkpoints, save_checkpoint
from glassgpt.training.config import OptimizerConfig
from glassgpt.training.optimizer import make_optimizer

CALLS = ["fsync", "rename", "replace", "open", "mkdir", "chmod", "unlink", "rmdir"]
torch.set_num_threads(1)
torch.manual_seed(0)
model = GPT(ModelConfig(vocab_size=13, context_length=5, d_model=12, n_layers=2, n_heads=3))
optimizer = make_optimizer(model, OptimizerConfig())


def save(run, step):
    """A checkpoint whose every weight is its step, so that a mixture of two would show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(step)
            optimizer.state[parameter] = {"exp_avg": parameter.detach().clone()}
    save_checkpoint(run, model, None, optimizer, TrainState(step=step, val_loss=0, best_val_loss=0))
    prune_checkpoints(run, keep=1, best_step=0)


def die_before(run, n_calls, deadly):
    """Save step 2 in a child that counts its system calls and dies instead of making number `deadly`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def counted(call):
            def wrapped(*arguments, **keywords):
                nonlocal count
                count += 1
                if count == deadly:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **keywords)

            return wrapped

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        save(run, 2)
        os.write(writer, str(count).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    made = os.read(reader, 99)
    os.close(reader)
    return int(made) if made else None


def what_is_there(run):
    """The step of the newest whole checkpoint, if all its weights say the same."""
    newest = newest_checkpoint(run)
    state = json.loads((newest / "state.json").read_text())
    weights = {value.item() for tensor in _weights(newest) for value in tensor.unique()}
    assert weights == {state["step"]}, (newest, weights)
    visible = [path.name for path in (run / "checkpoints").iterdir() if not path.name.startswith(".")]
    return {"step": state["step"], "visible": sorted(visible)}


def _weights(folder):
    from safetensors.torch import load_file

    return [
        *load_file(folder / "model.safetensors").values(),
        *load_file(folder / "optimizer.safetensors").values(),
    ]


def kill_at_each_call(folder):
    found, deadly, n_calls = [], 0, None
    while n_calls is None:
        deadly += 1
        run = folder / f"{deadly}"
        save(run, 1)
        n_calls = die_before(run, n_calls, deadly)
        found.append(what_is_there(run))
        save(run, 3)  # life goes on, and what was left behind is cleared away
        leftovers = [path.name for path in (run / "checkpoints").iterdir()]
        assert leftovers == ["step_000003"], leftovers
        shutil.rmtree(run)
    return found


def kill_at_random(folder):
    found, luck = [], random.Random(0)
    save(folder, 1)
    for _ in range(12):
        before = what_is_there(folder)["step"]
        child = os.fork()
        if child == 0:
            for step in range(before + 1, before + 100_000):
                save(folder, step)
        time.sleep(luck.uniform(0.02, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found.append({"before": before, **what_is_there(folder)})
    return found


def save_with_little_room(folder):
    save(folder, 1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    try:
        save(folder, 2)
    except CheckpointError as fault:
        hidden = [path.name for path in (folder / "checkpoints").iterdir() if path.name.startswith(".")]
        return [{"message": str(fault), "hidden": hidden, **what_is_there(folder)}]
    return []


if __name__ == "__main__":
    act = {"each": kill_at_each_call, "random": kill_at_random, "small": save_with_little_room}[sys.argv[2]]
    print(json.dumps(act(Path(sys.argv[1]))))
