"""Ctrl-C and SIGTERM reach a run as a person or a machine sends them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.training.conftest import TEXT

ENDLESS = """
import sys, torch
from pathlib import Path
from glassgpt.model.config import ModelConfig
from glassgpt.training import TrainConfig, train
torch.set_num_threads(1)
config = TrainConfig(
    data=sys.argv[1], out=Path(sys.argv[2]), tokenizer="char", device="cpu", steps=10**9, log_every_steps=1,
    model=ModelConfig(context_length=5, d_model=12, n_layers=1, n_heads=3), micro_batch_size=3,
    eval_every_steps=10**9, sample_every_steps=None, checkpoint_every_steps=10**9,
)
result = train(config, resume=len(sys.argv) > 3, say=lambda line: print(line, flush=True))
print("STOPPED", result.stopped, result.step, flush=True)
"""


def start(tmp_path, *more, before=""):
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-c", before + ENDLESS, str(text), str(tmp_path / "run"), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for(process, beginning):
    for line in process.stdout:
        if line.startswith(beginning):
            return
    pytest.fail(f"no line {beginning!r}; it said: {process.stderr.read()}")


@pytest.mark.skipif(
    os.name == "nt", reason="Windows has no SIGINT between processes; run this on Linux or macOS"
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, number):
    process = start(tmp_path)
    wait_for(process, "step 3 of")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert "Stopping: this step is finished and saved first." in err
    assert "Traceback" not in err
    assert f"To go on: glassgpt train --resume {tmp_path / 'run'}" in out
    stopped, step = out.splitlines()[-1].split()[1:]
    assert stopped == "interrupted"
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert json.loads((checkpoint / "state.json").read_text())["step"] == int(step) >= 3

    again = start(tmp_path, "resume")
    wait_for(again, f"step {int(step) + 1:,} of")
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=60)
    assert again.returncode == 0


SLOW_STEP = """
import time
import glassgpt.training.step as step
real = step.clip_gradients
def slow(*arguments):
    time.sleep(30)
    return real(*arguments)
step.clip_gradients = slow
"""


@pytest.mark.skipif(
    os.name == "nt", reason="Windows has no SIGINT between processes; run this on Linux or macOS"
)
def test_a_second_ctrl_c_stops_at_once(tmp_path):
    process = start(tmp_path, before=SLOW_STEP)
    wait_for(process, "step 0:")  # the first step now takes 30 seconds
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    while "Stopping" not in process.stderr.readline():
        pass
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=25)

    assert time.monotonic() - sent < 20
    assert process.returncode != 0
    assert "KeyboardInterrupt" in err
    assert not (tmp_path / "run" / "checkpoints").exists()
