"""A run that was interrupted and goes on is, bit for bit, the run that was not."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from glassgpt.data import TokenShards, make_tokenizer, prepare, read_corpus
from glassgpt.data.locking import exclusive
from glassgpt.errors import CheckpointError, ConfigError, DataError, TokenizerError
from glassgpt.model.config import ModelConfig
from glassgpt.storage import staged_folder
from glassgpt.training.config import OptimizerConfig, TrainConfig
from glassgpt.training.metrics import read_metrics
from glassgpt.training.run import claim_run_folder
from glassgpt.training.trainer import train
from tests.training.conftest import TEXT

TIMES = ("seconds", "tokens_per_second")


class Crash(Exception):
    """What a run dies of in these tests."""


def timeless(run):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in read_metrics(run)]


def at_step(step, action):
    """A `say` that acts on the progress line of that step."""

    def say(line):
        if line.startswith(f"step {step} of "):
            action()

    return say


def interrupt():
    signal.raise_signal(signal.SIGINT)


def crash():
    raise Crash


def assert_same_end(one, other):
    for name in ("model.safetensors", "optimizer.safetensors", "tokenizer.json"):
        assert (one.checkpoint / name).read_bytes() == (other.checkpoint / name).read_bytes(), name
    states = [json.loads((result.checkpoint / "state.json").read_text()) for result in (one, other)]
    assert states[0] | {"seconds": 0} == states[1] | {"seconds": 0}
    assert timeless(one.run) == timeless(other.run)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resumed_equals_uninterrupted_bit_for_bit(tiny_config, tmp_path, silent, optimizer):
    changes = {"optimizer": OptimizerConfig(name=optimizer)}
    whole = train(tiny_config(**changes), say=silent)

    broken = tiny_config(out=tmp_path / "broken", **changes)
    first = train(broken, say=at_step(9, interrupt))
    assert (first.stopped, first.step) == ("interrupted", 9)
    with pytest.raises(Crash):  # two steps behind the checkpoint of step 14
        train(broken, resume=True, say=at_step(16, crash))
    second = train(broken, resume=True, say=at_step(20, interrupt))
    assert (second.stopped, second.step) == ("interrupted", 20)
    end = train(TrainConfig.load(broken.out), resume=True, say=silent)

    assert (whole.stopped, end.stopped, end.step) == ("finished", "finished", 23)
    assert_same_end(whole, end)


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(tiny_config, tmp_path, silent):
    whole = train(tiny_config(steps=5), say=silent)
    broken = tiny_config(steps=5, out=tmp_path / "broken")
    with pytest.raises(Crash):
        train(broken, say=at_step(3, crash))

    assert_same_end(whole, train(broken, resume=True, say=silent))


def test_samples_and_evaluations_change_nothing_in_the_training(tiny_config, tmp_path, silent):
    much = train(tiny_config(eval_every_steps=2, sample_every_steps=1), say=silent)
    little = train(
        tiny_config(out=tmp_path / "little", eval_every_steps=99, sample_every_steps=None), say=silent
    )
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (much.checkpoint / name).read_bytes() == (little.checkpoint / name).read_bytes()


def test_training_leaves_the_callers_random_numbers_alone(tiny_config, silent):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(tiny_config(steps=2), say=silent)
    assert torch.equal(torch.rand(3), expected)


def test_dropout_is_a_different_one_at_each_step(tiny_config, tmp_path, silent, monkeypatch):
    """With every step seeded alike the run would still resume exactly, and learn less."""
    seeds = []
    original = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeds.append(seed) or original(seed))
    train(tiny_config(steps=6), say=silent)
    assert len(set(seeds)) == len(seeds) == 7  # the weights, then one a step


def test_a_run_can_be_made_longer(tiny_config, silent):
    train(tiny_config(steps=5), say=silent)
    longer = train(tiny_config(steps=8), resume=True, say=silent)
    assert (longer.stopped, longer.step) == ("finished", 8)


def test_going_on_with_a_finished_run_changes_nothing(tiny_config, silent):
    first = train(tiny_config(steps=5), say=silent)
    before = {path: path.read_bytes() for path in first.checkpoint.iterdir()}
    again = train(tiny_config(steps=5), resume=True, say=silent)
    assert (again.step, again.stopped, again.checkpoint) == (5, "finished", first.checkpoint)
    assert (again.val_loss, again.tokens) == (first.val_loss, first.tokens)
    assert {path: path.read_bytes() for path in first.checkpoint.iterdir()} == before


def test_a_damaged_newest_checkpoint_is_named_and_passed_over(tiny_config, silent):
    whole = train(tiny_config(), say=silent)
    expected = whole.checkpoint.joinpath("model.safetensors").read_bytes()
    damaged = whole.checkpoint / "model.safetensors"
    damaged.write_bytes(expected[:-1])
    said = []

    again = train(tiny_config(), resume=True, say=said.append)

    assert any("step_000023" in line and "model.safetensors has" in line for line in said)
    assert any("Going on from" in line and "step_000021" in line for line in said)
    assert again.checkpoint.joinpath("model.safetensors").read_bytes() == expected


def test_damaged_checkpoints_are_kept_aside_and_do_not_push_out_whole_ones(tiny_config, silent):
    config = tiny_config(keep_checkpoints=3)
    run = train(config, say=silent).run  # keeps 14, 21 and 23
    for name in ("step_000021", "step_000023"):
        (run / "checkpoints" / name / "manifest.json").unlink()

    again = train(config, resume=True, say=silent)

    names = {path.name for path in (run / "checkpoints").iterdir()}
    whole = {"step_000014", "step_000021", "step_000023"}
    assert names == whole | {"step_000021.damaged", "step_000023.damaged"}
    assert again.checkpoint.name == "step_000023"


def test_what_a_killed_process_left_is_removed_when_the_run_goes_on(tiny_config, silent):
    run = train(tiny_config(steps=2), say=silent).run
    leftover = run / "checkpoints" / ".step_000003.abcd.tmp"
    leftover.mkdir()
    train(tiny_config(steps=2), resume=True, say=silent)
    assert not leftover.exists()


def test_a_run_does_not_end_before_where_it_is(tiny_config, silent):
    train(tiny_config(steps=5), say=silent)
    with pytest.raises(ConfigError, match=r"steps=3 is below step 5, which the run in .* has reached"):
        train(tiny_config(steps=3), resume=True, say=silent)
    assert TrainConfig.load(tiny_config().out).steps == 5


def test_settings_that_do_not_work_are_not_saved(tiny_config, silent):
    train(tiny_config(steps=2), say=silent)
    with pytest.raises(ConfigError, match="sample_prompt has 9 tokens"):
        train(tiny_config(steps=4, sample_prompt="green bot"), resume=True, say=silent)
    assert TrainConfig.load(tiny_config().out).sample_prompt == ""


def test_a_folder_with_the_config_of_something_else_is_left_alone(tiny_config, silent):
    out = tiny_config().out
    first = train(tiny_config(steps=2), say=silent)
    model_config = (first.checkpoint / "config.json").read_bytes()
    with pytest.raises(ConfigError, match="describes a model, not a run"):
        train(tiny_config(out=first.checkpoint), say=silent)
    assert (first.checkpoint / "config.json").read_bytes() == model_config
    assert first.run == out


def too_much_for_a_gpu(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. More words.")


def too_much_for_a_cpu(*_):
    torch.empty(2**60)


@pytest.mark.parametrize("step", [too_much_for_a_gpu, too_much_for_a_cpu])
def test_too_little_memory_names_the_batch(tiny_config, silent, monkeypatch, step):
    monkeypatch.setattr("glassgpt.training.trainer._Training.optimizer_step", step)
    with pytest.raises(
        ConfigError, match=r"micro_batch_size=3 × context_length=5: [Tt]ried to allocate [\d.]+ "
    ):
        train(tiny_config(steps=2), say=silent)


def test_another_fault_of_pytorchs_is_not_taken_for_too_little_memory(tiny_config, silent, monkeypatch):
    def fault(*_):
        raise RuntimeError("no kernel")

    monkeypatch.setattr("glassgpt.training.trainer._Training.optimizer_step", fault)
    with pytest.raises(RuntimeError, match="no kernel"):
        train(tiny_config(steps=2), say=silent)


def test_when_no_checkpoint_is_whole_the_error_names_each(tiny_config, silent):
    run = train(tiny_config(steps=9), say=silent).run
    (run / "checkpoints" / "step_000007" / "state.json").unlink()
    (run / "checkpoints" / "step_000009" / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"(?s)step_000009: optimizer.*step_000007: state.json is missing"
    ):
        train(tiny_config(steps=9), resume=True, say=silent)


def test_two_processes_do_not_train_in_one_folder(tiny_config, silent):
    run = train(tiny_config(steps=2), say=silent).run
    before = (run / "metrics.jsonl").read_bytes()
    with (
        exclusive(run / "train.lock", pytest.fail),
        pytest.raises(ConfigError, match=r"Another process is training in .*--out"),
    ):
        train(tiny_config(steps=4), resume=True, say=silent)

    assert (run / "metrics.jsonl").read_bytes() == before
    assert train(tiny_config(steps=4), resume=True, say=silent).step == 4
    assert not (run / "train.lock").exists()


def test_a_run_folder_is_not_taken_twice(tiny_config, silent):
    train(tiny_config(steps=2), say=silent)
    with pytest.raises(ConfigError, match=r"already holds a run that has reached step 2.*--resume .*--out"):
        train(tiny_config(steps=2), say=silent)


def test_a_run_does_not_go_on_with_another_model_or_other_batches(tiny_config, silent):
    train(tiny_config(steps=2), say=silent)
    with pytest.raises(ConfigError, match=r"(?s)seed: 0, now 1.*optimizer.name: 'adamw', now 'muon'"):
        train(tiny_config(steps=2, seed=1, optimizer=OptimizerConfig(name="muon")), resume=True, say=silent)
    assert TrainConfig.load(tiny_config().out).seed == 0  # what the run was is still known


def test_a_checkpoint_does_not_go_on_with_tokens_of_another_tokenizer(tiny_config, silent):
    config = tiny_config(steps=2)
    train(config, say=silent)
    for path in (config.out / "data").iterdir():
        path.unlink()
    (config.out / "data").rmdir()
    with open(config.data, "a", encoding="utf-8") as text:
        text.write("Ω")
    with pytest.raises(TokenizerError, match="does not belong to the model"):
        train(config, resume=True, say=silent)


def test_a_run_goes_on_with_the_text_that_its_settings_name(tiny_config, tmp_path, silent):
    with pytest.raises(Crash):
        train(tiny_config(), say=at_step(3, crash))
    other = tiny_config(data=str(tmp_path / "other.txt"), tokenizer_vocab_size=77)
    with pytest.raises(DataError, match=r"other\.txt"):
        train(other, say=silent)
    (tmp_path / "other.txt").write_text(TEXT[::-1], encoding="utf-8")

    end = train(TrainConfig.load(other.out), resume=True, say=silent)

    assert TokenShards.open(end.run / "data").info.corpus == read_corpus(other.data).name
    assert_same_end(end, train(replace(other, out=tmp_path / "whole"), say=silent))


def test_a_dataset_in_the_run_folder_that_the_run_did_not_make_is_not_removed(tiny_config, silent):
    first = tiny_config(steps=1)
    mine = train(first, say=silent).run / "data"
    for path in ("checkpoints", "samples"):
        shutil.rmtree(mine.parent / path)

    train(tiny_config(steps=1, data=str(mine)), say=silent)

    assert TokenShards.open(mine).info.corpus == read_corpus(first.data).name


def prepared(config, text):
    """A folder of `text`, which other text of the same characters may replace."""
    source = config.out.with_name("source.txt")
    source.write_text(text, encoding="utf-8")
    corpus = read_corpus(str(source))
    tokenizer = make_tokenizer("char", corpus, vocab_size=0, val_fraction=0.1)
    folder = config.out.with_name("prepared")
    return str(prepare(corpus, folder, tokenizer, progress=False, overwrite=True).folder)


def test_a_run_does_not_go_on_with_other_tokens_of_the_same_tokenizer(tiny_config, silent):
    config = tiny_config(steps=2, data=prepared(tiny_config(), TEXT))
    train(config, say=silent)

    prepared(config, TEXT[::-1])
    with pytest.raises(ConfigError, match=r"others than the run began with.*Put the data back .*--out"):
        train(config, resume=True, say=silent)

    prepared(config, TEXT)
    assert train(replace(config, steps=3), resume=True, say=silent).step == 3


def test_a_checkpoint_that_does_not_name_its_tokens_goes_on(tiny_config, tmp_path, silent):
    """Those of an earlier version do not."""
    whole = train(tiny_config(out=tmp_path / "whole"), say=silent)
    first = train(tiny_config(), say=at_step(9, interrupt))
    with staged_folder(first.checkpoint, CheckpointError) as staging:
        shutil.copytree(first.checkpoint, staging, dirs_exist_ok=True)
        (staging / "manifest.json").unlink()
        state = json.loads((staging / "state.json").read_text())
        assert len(state.pop("tokens_sha256")) == 64
        (staging / "state.json").write_text(json.dumps(state))

    said = []
    assert_same_end(whole, train(tiny_config(), resume=True, say=said.append))
    assert any("Going on from" in line and "step_000009" in line for line in said)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data", "other.txt"),
        ("tokenizer", "bpe"),
        ("tokenizer_vocab_size", 77),
        ("val_fraction", 0.2),
        ("model", ModelConfig(context_length=5, d_model=12, n_layers=3, n_heads=3)),
        ("micro_batch_size", 6),
        ("tokens_per_step", 60),
        ("seed", 1),
        ("optimizer", OptimizerConfig(name="muon")),
    ],
)
def test_what_a_run_hangs_on_cannot_change_when_it_goes_on(tiny_config, silent, name, value):
    before = tiny_config()
    before.save(before.out / "config.json")
    with pytest.raises(ConfigError, match=rf"cannot go on with other settings than it began with:\n  {name}"):
        claim_run_folder(replace(before, **{name: value}), True, silent)
    assert TrainConfig.load(before.out) == before
