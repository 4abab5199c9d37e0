"""What the loop does besides going on exactly (test_resume.py)."""

import itertools
import json
import math
import re
import shutil
from dataclasses import replace

import pytest
import torch

from glassgpt.data import Batches, TokenShards, eval_windows, make_tokenizer, prepare, read_corpus
from glassgpt.errors import CheckpointError, ConfigError, DataError, TokenizerError
from glassgpt.model.config import ModelConfig
from glassgpt.model.folder import load_model
from glassgpt.model.gpt import GPT
from glassgpt.training import step as one_step
from glassgpt.training import trainer
from glassgpt.training.config import OptimizerConfig, ScheduleConfig, TrainConfig
from glassgpt.training.metrics import MetricsLog, read_metrics
from glassgpt.training.schedule import learning_rate
from glassgpt.training.trainer import dropout_seed, train
from tests.training.conftest import TEXT


@pytest.fixture
def exact():
    """Everything in float64, where a difference of 1e-12 is a mistake and not rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_accumulation_equals_one_big_batch(tiny_config, tmp_path, silent, exact):
    model = ModelConfig(context_length=5, d_model=12, n_layers=2, n_heads=3)  # dropout differs by its nature
    runs = {}
    for size, name in [(6, "big"), (3, "halves"), (1, "single")]:
        config = tiny_config(
            out=tmp_path / name, model=model, micro_batch_size=size, precision="float32", steps=4
        )
        runs[size] = [r for r in read_metrics(train(config, say=silent).run) if "loss" in r]
    for size in (3, 1):
        for big, small in zip(runs[6], runs[size], strict=True):
            assert small["tokens"] == big["tokens"]
            assert small["loss"] == pytest.approx(big["loss"], rel=0, abs=1e-12)
            assert small["grad_norm"] == pytest.approx(big["grad_norm"], rel=0, abs=1e-12)


def test_the_loop_equals_a_plain_one(tiny_config, silent, exact):
    config = tiny_config(
        steps=6,
        model=ModelConfig(context_length=5, d_model=12, n_layers=2, n_heads=3),
        optimizer=OptimizerConfig(lr=0.01, grad_clip=0.5),
        precision="float32",
    )
    result = train(config, say=silent)
    losses = [record["loss"] for record in read_metrics(config.out) if "loss" in record]

    shards = TokenShards.open(config.out / "data")
    batches = Batches(shards.train, context_length=5, micro_batch_size=6, seed=0)
    torch.manual_seed(0)
    model = GPT(replace(config.model, vocab_size=shards.vocab_size))
    decayed = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1}]
    others = [{"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decayed + others, betas=(0.9, 0.95), foreach=False)
    for step, expected in enumerate(losses, start=1):
        token_ids, targets = batches.batch(step - 1)
        loss = torch.nn.functional.cross_entropy(model(token_ids).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        optimizer.step()
        assert expected == pytest.approx(loss.item(), rel=0, abs=1e-10)
    trained, _ = load_model(result.checkpoint)
    # Rounding of 1e-16 grows where AdamW divides by the root of a small squared gradient.
    torch.testing.assert_close(trained.state_dict(), model.state_dict(), rtol=0, atol=1e-8)


def test_the_run_folder_holds_what_the_design_says(tiny_config, silent):
    config = tiny_config(steps=6, keep_checkpoints=1, checkpoint_every_steps=2)
    result = train(config, say=silent)

    assert {path.name for path in config.out.iterdir()} == {
        "config.json", "metrics.jsonl", "samples", "loss.png", "checkpoints", "data"
    }  # fmt: skip
    assert TrainConfig.load(config.out) == config
    assert result.checkpoint == config.out / "checkpoints" / "step_000006"
    assert {path.name for path in (config.out / "samples").iterdir()} == {
        "step_000005.txt", "step_000006.txt"
    }  # fmt: skip
    model, tokenizer = load_model(result.checkpoint)
    assert tokenizer.decode(tokenizer.encode("green")) == "green"
    assert model.config.vocab_size == tokenizer.vocab_size


def test_metrics_have_a_line_for_each_log_step_and_each_evaluation(tiny_config, silent):
    config = tiny_config(steps=7, log_every_steps=3, eval_every_steps=5)
    result = train(config, say=silent)
    records = read_metrics(config.out)
    trained = [record for record in records if "loss" in record]
    evaluated = [record for record in records if "val_loss" in record]

    assert [record["step"] for record in trained] == [3, 6, 7]
    assert [record["step"] for record in evaluated] == [0, 5, 7]
    assert trained[0].keys() == {"step", "loss", "lr", "grad_norm", "tokens", "tokens_per_second", "seconds"}
    assert evaluated[0].keys() == {"step", "val_loss", "val_bits_per_byte", "tokens", "seconds"}
    assert [record["tokens"] for record in trained] == [90, 180, 210]
    assert [record["lr"] for record in trained] == [learning_rate(step, config) for step in (3, 6, 7)]
    assert result.val_loss == evaluated[-1]["val_loss"]
    assert result.best_val_loss == min(record["val_loss"] for record in evaluated)
    assert (result.tokens, result.step) == (210, 7)


def test_the_held_out_loss_is_that_of_the_held_out_text(tiny_config, silent):
    config = tiny_config(steps=3, precision="float32")
    result = train(config, say=silent)

    shards = TokenShards.open(config.out / "data")
    model, tokenizer = load_model(result.checkpoint)
    token_ids, targets = eval_windows(shards.val, 5, 7)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(token_ids).flatten(0, 1), targets.flatten()).item()
    assert result.val_loss == pytest.approx(expected, rel=1e-6)  # float32, summed in batches of 3
    n_tokens, n_bytes = len(shards.val), len(tokenizer.decode(list(shards.val[:])).encode())
    assert result.val_bits_per_byte == pytest.approx(expected / math.log(2) * n_tokens / n_bytes, rel=1e-6)


def test_metrics_are_on_the_disk_before_the_checkpoint_that_counts_on_them(tiny_config, silent, monkeypatch):
    events = []

    def note(place, name):
        real = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *arguments: events.append(name) or real(*arguments))

    note(MetricsLog, "sync")
    note(trainer, "save_checkpoint")
    train(tiny_config(steps=9), say=silent)
    assert events == ["sync", "save_checkpoint"] * 2


def test_the_loss_falls_and_the_first_is_that_of_guessing(tiny_config, silent):
    config = tiny_config(
        steps=80, eval_every_steps=80, optimizer=OptimizerConfig(lr=0.02), sample_every_steps=None
    )
    result = train(config, say=silent)
    guessing = torch.tensor(result_vocabulary(config)).log().item()
    first = read_metrics(config.out)[0]
    assert first["val_loss"] == pytest.approx(guessing, abs=0.1)
    assert result.val_loss < 0.6 * guessing


def result_vocabulary(config):
    return json.loads((config.out / "data" / "dataset.json").read_text())["vocab_size"]


def test_config_json_repeats_the_run(tiny_config, tmp_path, silent):
    first = train(tiny_config(steps=5), say=silent)
    saved = json.loads((first.run / "config.json").read_text()) | {"out": str(tmp_path / "again")}
    second = train(TrainConfig.from_dict(saved), say=silent)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (first.checkpoint / name).read_bytes() == (second.checkpoint / name).read_bytes()


def test_another_seed_is_another_run(tiny_config, tmp_path, silent):
    first = train(tiny_config(steps=2), say=silent)
    second = train(tiny_config(steps=2, seed=1, out=tmp_path / "other"), say=silent)
    assert first.val_loss != second.val_loss


def test_dropout_seeds_differ_between_seeds_steps_and_ranks():
    seeds = {dropout_seed(seed, step, rank) for seed in range(5) for step in range(50) for rank in range(3)}
    assert len(seeds) == 5 * 50 * 3


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_last_good_checkpoint(tiny_config, silent, name):
    config = tiny_config(
        steps=40,
        checkpoint_every_steps=1,
        log_every_steps=3,
        optimizer=OptimizerConfig(name=name, lr=1e30, muon_lr=1e30, grad_clip=None),
        schedule=ScheduleConfig(kind="constant", warmup_steps=40),
        precision="float32",
    )
    with pytest.raises(ConfigError) as raised:
        train(config, say=silent)
    message = str(raised.value)
    assert re.search(
        r"Loss is (nan|inf|[\d.e+]+) at step \d+ \(lr [\d.e+-]+, gradient norm (nan|inf|[\d.e+]+)\)", message
    )
    assert "set optimizer.grad_clip" in message
    named = re.search(r"Last good checkpoint: (\S+)\.", message)[1]
    for path in config.out.glob("checkpoints/*"):
        model, _ = load_model(path)
        assert all(parameter.isfinite().all() for parameter in model.parameters()), path
        assert path.name <= named


def test_lost_numbers_are_found_between_log_steps(tiny_config, silent, monkeypatch):
    real, calls = one_step.clip_gradients, []

    def poisoned(parameters, max_norm):
        calls.append(1)
        norm = real(parameters, max_norm)
        return norm * float("nan") if len(calls) == 8 else norm

    monkeypatch.setattr(one_step, "clip_gradients", poisoned)
    with pytest.raises(
        ConfigError, match=r"at step 8 .*gradient norm nan.*Last good checkpoint: step_000007.*now 1\)"
    ):
        train(tiny_config(log_every_steps=10, eval_every_steps=99), say=silent)


def grow_too_far(monkeypatch, at_step):
    """From that step on the learning rate is more than float32 holds."""
    real, steps = one_step.set_learning_rate, itertools.count(1)

    def reckless(optimizer, share):
        real(optimizer, share)
        if next(steps) >= at_step:
            for group in optimizer.param_groups:
                group["lr"] = 1e39

    monkeypatch.setattr(one_step, "set_learning_rate", reckless)


def test_weights_that_are_no_numbers_are_never_saved(tiny_config, silent, monkeypatch):
    grow_too_far(monkeypatch, at_step=3)
    config = tiny_config(checkpoint_every_steps=1, eval_every_steps=99, log_every_steps=99)
    with pytest.raises(
        ConfigError, match=r"Weights are no longer numbers at step 3 .*checkpoint: step_000002\."
    ):
        train(config, say=silent)


def test_early_stopping_waits_as_often_as_told_and_keeps_the_best(tiny_config, silent, monkeypatch):
    losses = iter([5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 1.0])
    monkeypatch.setattr(trainer, "evaluate", lambda *_: next(losses))
    config = tiny_config(eval_every_steps=1, early_stop_evals=3, keep_checkpoints=1)
    result = train(config, say=silent)
    assert (result.stopped, result.step, result.best_step, result.best_val_loss) == ("early stop", 5, 2, 3.0)
    kept = {path.name for path in (config.out / "checkpoints").iterdir()}
    assert kept == {"step_000002", "step_000005"}


def test_when_the_time_is_up_the_run_saves_and_can_go_on(tiny_config, tmp_path, silent):
    said = []
    first = train(tiny_config(max_minutes=1e-9), say=said.append)
    assert (first.stopped, first.step) == ("time", 1)
    assert f"glassgpt train --resume {first.run}" in said[-1]
    end = train(tiny_config(), resume=True, say=silent)
    whole = train(tiny_config(out=tmp_path / "whole"), say=silent)
    assert (end.checkpoint / "model.safetensors").read_bytes() == (
        whole.checkpoint / "model.safetensors"
    ).read_bytes()


def test_what_was_chosen_is_said_out_loud(tiny_config):
    said = []
    train(tiny_config(steps=1, precision="float32"), say=said.append)
    assert any("parameters" in line and "cpu (1 threads), float32" in line for line in said)


def prepared(tmp_path, text=TEXT, name="data"):
    source = tmp_path / f"{name}.txt"
    source.write_text(text, encoding="utf-8")
    corpus = read_corpus(str(source))
    tokenizer = make_tokenizer("char", corpus, vocab_size=0, val_fraction=0.1)
    return prepare(corpus, tmp_path / name, tokenizer, progress=False)


def test_a_prepared_folder_is_used_as_it_is(tiny_config, tmp_path, silent):
    shards = prepared(tmp_path)
    config = tiny_config(data=str(shards.folder), steps=2)
    train(config, say=silent)
    assert not (config.out / "data").exists()


def test_a_prepared_folder_of_another_tokenizer_is_refused(tiny_config, tmp_path, silent):
    shards, other = prepared(tmp_path), prepared(tmp_path, TEXT + "Ω", "other")
    config = tiny_config(data=str(shards.folder), tokenizer=str(other.folder / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"another tokenizer .*leave --tokenizer out"):
        train(config, say=silent)
    same = tiny_config(data=str(shards.folder), tokenizer=str(shards.folder / "tokenizer.json"), steps=1)
    assert train(same, say=silent).step == 1


@pytest.mark.parametrize("vocab_size", [64, 3])
def test_a_vocabulary_may_be_padded_but_not_cut(tiny_config, silent, vocab_size):
    config = tiny_config(
        steps=2, model=ModelConfig(vocab_size=vocab_size, context_length=5, d_model=12, n_layers=1, n_heads=3)
    )
    if vocab_size == 3:
        with pytest.raises(ConfigError, match=r"model.vocab_size=3 is smaller than the tokenizer's"):
            train(config, say=silent)
    else:
        assert load_model(train(config, say=silent).checkpoint)[0].config.vocab_size == 64


def test_a_text_too_short_is_a_data_error_and_leaves_no_checkpoint(tiny_config, tmp_path, silent):
    text = tmp_path / "short.txt"
    text.write_text("abc", encoding="utf-8")
    with pytest.raises(DataError):
        train(tiny_config(data=str(text)), say=silent)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_prompt_that_cannot_be_encoded_is_found_before_the_first_step(tiny_config, silent):
    config = tiny_config(sample_prompt="Ω")
    with pytest.raises(TokenizerError):
        train(config, say=silent)
    assert not (config.out / "metrics.jsonl").exists()


def test_a_prompt_longer_than_the_context_is_found_before_the_first_step(tiny_config, silent):
    with pytest.raises(ConfigError, match="sample_prompt has 7 tokens; the model's context_length is 5"):
        train(tiny_config(sample_prompt="bottles"), say=silent)


def test_samples_begin_with_their_prompt(tiny_config, silent):
    config = tiny_config(steps=5, sample_prompt="green")
    train(config, say=silent)
    text = (config.out / "samples" / "step_000005.txt").read_text()
    assert text.startswith("green")
    assert len(text) == len("green") + 3 + 1


def test_a_run_folder_that_cannot_be_written_is_an_error_at_once(tiny_config, tmp_path, silent):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((ConfigError, CheckpointError), match=r"Cannot write .*file, not a folder"):
        train(tiny_config(out=tmp_path / "file" / "run"), say=silent)


def test_compiled_kernels_are_used_when_asked_for(tiny_config, silent, monkeypatch):
    compiled = []
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.append(function) or function)
    train(tiny_config(steps=1), say=silent)
    assert not compiled
    train(tiny_config(steps=2, compile="on"), resume=True, say=silent)
    assert len(compiled) == 1


def test_bfloat16_learns_as_float32_does(tiny_config, tmp_path, silent):
    changes = {"steps": 30, "optimizer": OptimizerConfig(lr=0.01), "sample_every_steps": None}
    full = train(tiny_config(precision="float32", **changes), say=silent)
    half = train(tiny_config(precision="bfloat16", out=tmp_path / "half", **changes), say=silent)
    losses = [
        [record["loss"] for record in read_metrics(run.run) if "loss" in record] for run in (full, half)
    ]
    # Of 3.3, falling to 2.4: bfloat16's 8 bits are 0.01 of it an operation, and rounding goes both ways.
    assert losses[1] == pytest.approx(losses[0], abs=0.02)
    assert losses[1] != losses[0]
    assert half.val_loss == pytest.approx(full.val_loss, abs=0.02)
    model, _ = load_model(half.checkpoint)
    assert model.head.weight.dtype == torch.float32


@pytest.mark.parametrize("val_loss", [math.nan, math.inf])
def test_a_held_out_loss_that_is_no_number_stops_the_run(tiny_config, silent, monkeypatch, val_loss):
    losses = iter([5.0, val_loss])
    monkeypatch.setattr(trainer, "evaluate", lambda *_: next(losses))
    with pytest.raises(
        ConfigError, match=rf"Held-out loss is {val_loss} at step 1 \(lr .*Lower optimizer\.lr"
    ):
        train(tiny_config(eval_every_steps=1), say=silent)


@pytest.mark.parametrize("look", ["eval", "sample"])
def test_weights_that_are_no_numbers_are_found_before_the_model_is_used(
    tiny_config, silent, monkeypatch, look
):
    grow_too_far(monkeypatch, at_step=3)
    rare = {"log_every_steps": 99, "eval_every_steps": 99, "sample_every_steps": 99}
    config = tiny_config(**(rare | {f"{look}_every_steps": 1}))
    with pytest.raises(ConfigError, match=r"Weights are no longer numbers at step 3 "):
        train(config, say=silent)


@pytest.mark.parametrize("look", ["eval", "sample"])
def test_lost_numbers_are_found_before_the_model_is_used(tiny_config, silent, monkeypatch, look):
    real = one_step.clip_gradients
    monkeypatch.setattr(one_step, "clip_gradients", lambda *arguments: real(*arguments) * math.nan)
    rare = {"log_every_steps": 99, "eval_every_steps": 99, "sample_every_steps": 99}
    config = tiny_config(**(rare | {f"{look}_every_steps": 2}))
    with pytest.raises(ConfigError, match=r"at step 1 .*gradient norm nan"):
        train(config, say=silent)
    assert [record["step"] for record in read_metrics(config.out)] == [0]
    assert not (config.out / "samples").exists()


def test_a_sample_of_weights_too_large_to_compute_with_stops_the_run(tiny_config, silent):
    config = tiny_config(
        optimizer=OptimizerConfig(lr=1e30, grad_clip=None),
        schedule=ScheduleConfig(kind="constant", warmup_steps=0),
        log_every_steps=99,
        eval_every_steps=99,
        sample_every_steps=1,
        precision="float32",
    )
    with pytest.raises(ConfigError, match=r"A sample's logits are no numbers at step 1 \(lr 1e\+30\)"):
        train(config, say=silent)


def test_a_run_on_a_gpu_is_one_on_a_cpu_also_when_it_goes_on(gpu, tiny_config, tmp_path, silent):
    model = ModelConfig(context_length=5, d_model=12, n_layers=2, n_heads=3)
    settings = {"model": model, "precision": "float32"}
    runs = []
    for device in ("cpu", str(gpu)):
        config = tiny_config(out=tmp_path / device.replace(":", "-"), device=device, steps=9, **settings)
        train(config, say=silent)
        runs.append(train(replace(config, steps=12), resume=True, say=silent))

    records = [read_metrics(result.run) for result in runs]
    for on_cpu, on_gpu in zip(*records, strict=True):
        for name in ("step", "loss", "grad_norm", "val_loss", "tokens"):
            assert on_gpu.get(name, -1) == pytest.approx(on_cpu.get(name, -1), rel=1e-4)
    assert {result.tokens for result in runs} == {12 * 30}
    samples = [(result.run / "samples").iterdir() for result in runs]
    texts = [[path.read_text(encoding="utf-8") for path in sorted(folder)] for folder in samples]
    assert texts[0] == texts[1]
