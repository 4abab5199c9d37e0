"""The demo: the whole path, and Ctrl-C anywhere on it."""

import json
import os
import signal
import sys
from dataclasses import replace

import pytest

from glassgpt.cli import demo
from glassgpt.cli.main import main
from glassgpt.model.config import ModelConfig

small_config = demo.demo_config


@pytest.fixture(autouse=True)
def _tiny(tmp_path, monkeypatch):
    """A demo of seconds, in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "cache"))

    def tiny_config(out, seed):
        model = ModelConfig(context_length=16, d_model=12, n_layers=1, n_heads=3)
        return replace(small_config(out, seed), model=model, micro_batch_size=2, eval_windows=5)

    monkeypatch.setattr(demo, "demo_config", tiny_config)


def test_the_demo_walks_the_whole_path(tmp_path, capsys):
    assert main(["demo", "--minutes", "0.01"]) == 0
    shown = capsys.readouterr().out
    assert "the last to be measured" not in shown or "Time is up" in shown
    for words in ("characters", "The| function| returns|", "bits per byte", "gzip", "Try next:"):
        assert words in shown, words
    run = tmp_path / "runs" / "demo"
    assert (run / "loss.png").is_file()
    assert json.loads((run / "config.json").read_text())["max_minutes"] == pytest.approx(0.015)
    assert demo._free_folder(run).name == "demo-2"


def test_a_demo_whose_time_is_up_says_which_step_was_measured(monkeypatch, capsys):
    monkeypatch.setattr(demo, "_seconds_per_step", lambda config: 1e-6)  # but the machine is busy by then
    assert main(["demo", "--minutes", "0.01"]) == 0
    shown = capsys.readouterr().out
    assert "Time is up after step " in shown
    assert " at step 0, the last to be measured\n" in shown


@pytest.mark.parametrize(
    ("minutes", "n_tokens", "steps", "dropout"),
    [
        (1, 32 * 300, 60, 0.0),
        (1, 32 * 10, 60, 0.0),
        (1, 32 * 9, 54, 0.0),  # 30 steps with dropout would be too few passes for it
        (1, 32 * 4, 30, 0.1),
        (3, 32 * 10, 90, 0.1),
        (3, 32 * 5, 65, 0.1),  # 13 times: 60 steps with 0.2 would be 12
        (3, 32 * 3, 60, 0.2),
        (0.1, 1, 20, 0.2),
    ],
)
def test_who_reads_the_text_often_gets_dropout_and_the_steps_fit_again(
    minutes, n_tokens, steps, dropout, tmp_path, monkeypatch
):
    monkeypatch.setattr(demo, "_seconds_per_step", lambda config: 1 + 10 * config.model.dropout)
    fitted = demo._fitted(demo.demo_config(tmp_path, 0), minutes, n_tokens)
    assert (fitted.steps, fitted.model.dropout) == (steps, dropout)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        pytest.param(3, "glassgpt demo", id="in the trial, before its speed is known"),
        pytest.param(8, "glassgpt demo", id="in the trial, later"),
        pytest.param(17, "glassgpt demo", id="in the trial with dropout"),
        pytest.param(40, "glassgpt train --resume", id="in the training"),
    ],
)
def test_ctrl_c_ends_the_demo_and_says_how_to_go_on(step, words, monkeypatch, capsys):
    from glassgpt.data import Corpus
    from glassgpt.training.trainer import _Training

    monkeypatch.setattr(
        "glassgpt.data.read_corpus", lambda _: Corpus.of(["This method returns a cat. " * 99])
    )
    steps = []
    one_step = _Training.optimizer_step

    def counted_step(training, n):
        steps.append(n)
        if len(steps) == step:
            signal.raise_signal(signal.SIGINT)
        return one_step(training, n)

    monkeypatch.setattr(_Training, "optimizer_step", counted_step)
    assert main(["demo", "--minutes", "0.5"]) == 130
    assert len(steps) == step, "nothing was trained after it"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Interrupted ")
    assert words in last


@pytest.mark.skipif(os.name == "nt", reason="a pipe breaks otherwise on Windows; run this on Linux or macOS")
def test_a_demo_whose_reader_leaves_is_trained_all_the_same(tmp_path, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        assert main(["demo", "--minutes", "0.01"]) == 0
    assert list((tmp_path / "runs" / "demo" / "checkpoints").iterdir())
