"""Checkpoints are whole or not there, whatever happens while they are written."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from glassgpt.errors import CheckpointError
from glassgpt.model import folder as model_folder
from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT
from glassgpt.storage import folder_problems
from glassgpt.training.checkpoint import (
    TrainState,
    checkpoints_of,
    load_checkpoint,
    load_for_use,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    set_aside_damaged,
)
from glassgpt.training.config import OptimizerConfig
from glassgpt.training.optimizer import make_optimizer


def make_model(seed=0, n_layers=2):
    torch.manual_seed(seed)
    return GPT(ModelConfig(vocab_size=13, context_length=5, d_model=12, n_layers=n_layers, n_heads=3))


def trained(name="adamw"):
    """A model and an optimizer that has something to remember."""
    model = make_model()
    optimizer = make_optimizer(model, OptimizerConfig(name=name))
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimizer.step()
    return model, optimizer


def state_at(step, **values):
    return TrainState(**{"step": step, "val_loss": 2.5, "best_val_loss": 2.25} | values)


def save(run, step, **values):
    model, optimizer = trained()
    return save_checkpoint(run, model, None, optimizer, state_at(step, **values))


def killing(folder, how):
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), how], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_round_trip_is_the_identity(tmp_path, name):
    model, optimizer = trained(name)
    folder = save_checkpoint(tmp_path, model, None, optimizer, state_at(11, seconds=0.1, tokens=77))

    loaded, _ = load_for_use(tmp_path, "cpu")
    fresh = make_optimizer(loaded, OptimizerConfig(name=name))
    state = load_checkpoint(folder, loaded, fresh)

    assert folder == tmp_path / "checkpoints" / "step_000011"
    assert state == state_at(11, seconds=0.1, tokens=77)
    for (key, before), after in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(before, after), key
        assert optimizer.state[before].keys() == fresh.state[after].keys()
        for what, value in optimizer.state[before].items():
            assert torch.equal(value, fresh.state[after][what]), (key, what)


def test_kill_minus_9_before_any_system_call_leaves_the_previous_or_the_new_one(tmp_path):
    found = killing(tmp_path, "each")
    steps = [child["step"] for child in found]
    assert len(steps) > 25  # it died in many places
    assert steps == sorted(steps)
    assert set(steps) == {1, 2}
    assert all(set(child["visible"]) <= {"step_000001", "step_000002"} for child in found)


def test_kill_minus_9_at_random_moments_loses_nothing_that_was_saved(tmp_path):
    for child in killing(tmp_path, "random"):
        assert child["step"] >= child["before"]


def test_a_file_that_cannot_grow_is_an_error_and_leaves_the_previous_checkpoint(tmp_path):
    (child,) = killing(tmp_path, "small")
    assert "Cannot write" in child["message"]
    assert "File too large" in child["message"]
    assert (child["step"], child["hidden"]) == (1, [])


def full(*_arguments, **_keywords):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_for_safetensors(*_arguments, **_keywords):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def forbidden(*_arguments, **_keywords):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("where", "name", "fault", "remedy"),
    [
        (os, "fsync", full, "The disk is full: free some space"),
        (os, "rename", full, "The disk is full: free some space"),
        (model_folder, "save_file", full_for_safetensors, "The disk is full: free some space"),
        (Path, "write_text", full, "The disk is full: free some space"),
        (Path, "mkdir", forbidden, "No permission: choose a folder that you may write"),
        (os, "rename", forbidden, "No permission: choose a folder that you may write"),
    ],
)
def test_a_failing_disk_is_explained_and_leaves_the_previous_checkpoint(
    tmp_path, monkeypatch, where, name, fault, remedy
):
    first = save(tmp_path, 1)
    with monkeypatch.context() as failing:
        failing.setattr(where, name, fault)
        with pytest.raises(CheckpointError, match=remedy) as raised:
            save(tmp_path, 2)
    assert "step_000002" in str(raised.value)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000001"]
    assert newest_checkpoint(tmp_path) == first


def test_every_file_and_folder_is_synced_before_the_rename_and_the_parent_after(tmp_path, monkeypatch):
    """Without fsync a power failure can leave the new name and the old, or no, content."""
    events = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(handle):
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        events.append((kind, os.fstat(handle).st_ino))
        fsync(handle)

    def noted_rename(source, target):
        wanted = {
            ("folder" if path.is_dir() else "file", path.stat().st_ino) for path in Path(source).iterdir()
        }
        wanted.add(("folder", Path(source).stat().st_ino))
        assert {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"} <= {
            path.name for path in Path(source).iterdir()
        }
        assert wanted <= set(events)
        rename(source, target)
        events.append(("rename", Path(target).stat().st_ino))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    save(tmp_path, 1)

    assert ("rename", (tmp_path / "checkpoints" / "step_000001").stat().st_ino) in events
    assert events[-1] == ("folder", (tmp_path / "checkpoints").stat().st_ino)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "config.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["cut", "altered", "removed"])
def test_a_damaged_file_is_found_and_the_one_before_is_taken(tmp_path, name, damage):
    older, newer = save(tmp_path, 1), save(tmp_path, 2)
    content = (newer / name).read_bytes()
    if damage == "cut":
        (newer / name).write_bytes(content[:-1])
    elif damage == "altered":  # one bit in the middle
        middle = len(content) // 2
        (newer / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        (newer / name).unlink()
    said = []

    assert newest_checkpoint(tmp_path, said.append) == older

    assert len(said) == 1
    assert f"{newer}: " in said[0]
    assert name in said[0] or name == "manifest.json"  # a bit of the manifest shows as another file's fault


def test_a_run_without_checkpoints_has_no_newest(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    assert checkpoints_of(tmp_path / "nowhere") == {}


def test_newest_means_the_highest_step_however_many_digits(tmp_path):
    for step in (999_999, 1_000_000, 7):
        save(tmp_path, step)
    assert list(checkpoints_of(tmp_path)) == [7, 999_999, 1_000_000]
    assert newest_checkpoint(tmp_path).name == "step_1000000"


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step)
    (tmp_path / "checkpoints" / "notes").mkdir()  # what is not ours stays

    prune_checkpoints(tmp_path, keep=2, best_step=3)

    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "notes", "step_000003", "step_000005", "step_000006"
    ]  # fmt: skip


def test_saving_the_same_step_again_replaces_it(tmp_path):
    save(tmp_path, 1, tokens=1)
    folder = save(tmp_path, 1, tokens=2)
    assert json.loads((folder / "state.json").read_text())["tokens"] == 2
    assert [path.name for path in folder.parent.iterdir()] == ["step_000001"]


def test_a_process_that_died_while_replacing_a_checkpoint_lost_nothing(tmp_path):
    folder = save(tmp_path, 1)
    folder.rename(folder.with_name(".step_000001.previous"))
    assert newest_checkpoint(tmp_path) == folder


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    folder = save(tmp_path, 1)
    model = make_model(n_layers=1)
    with pytest.raises(CheckpointError, match=r"(?s)does not fit.*unexpected  blocks.1.*exp_avg"):
        load_checkpoint(folder, model, make_optimizer(model, OptimizerConfig()))


def test_a_model_folder_alone_is_no_checkpoint(tmp_path):
    model, optimizer = trained()
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="A model folder alone does not hold a run"):
        load_checkpoint(tmp_path, model, optimizer)


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path):
    folder = save(tmp_path, 1)
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    assert folder_problems(folder) == []


def test_a_run_without_a_checkpoint_yet_says_so(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="has saved no checkpoint yet"):
        load_for_use(tmp_path)


def test_only_what_lies_behind_the_newest_whole_one_is_set_aside_and_named(tmp_path):
    for step in (7, 999_999, 1_000_000, 1_000_001, 10_000_000):
        save(tmp_path, step)
    for name in ("step_1000001", "step_10000000"):
        (tmp_path / "checkpoints" / name / "manifest.json").unlink()
    said = []

    set_aside_damaged(tmp_path, newest_checkpoint(tmp_path, lambda line: None), said.append)

    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "step_000007", "step_999999", "step_1000000", "step_1000001.damaged", "step_10000000.damaged"
    }  # fmt: skip
    assert [line.split("/")[-1] for line in said] == ["step_1000001.damaged", "step_10000000.damaged"]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_saving_before_the_first_step_changes_nothing_in_it(tmp_path, name):
    model = make_model()
    optimizer = make_optimizer(model, OptimizerConfig(name=name))
    save_checkpoint(tmp_path, model, None, optimizer, state_at(0))
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimizer.step()

    expected, _ = trained(name)
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_averages_that_are_missing_are_named(tmp_path):
    folder = save(tmp_path, 1)
    tensors = load_file(folder / "optimizer.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("final_norm.bias.")}
    save_file(kept, folder / "optimizer.safetensors")
    model, optimizer = trained()
    with pytest.raises(CheckpointError, match=r"does not fit the model:\n  missing     final_norm\.bias$"):
        load_checkpoint(folder, model, optimizer)


@pytest.mark.parametrize("change", [{"epoch": 1}, {"tokens": None}], ids=["more", "fewer"])
def test_a_state_of_other_fields_is_refused(tmp_path, change):
    folder = save(tmp_path, 1)
    state = json.loads((folder / "state.json").read_text()) | change
    state = {name: value for name, value in state.items() if value is not None}
    (folder / "state.json").write_text(json.dumps(state))
    model, optimizer = trained()
    with pytest.raises(CheckpointError, match=r"state\.json has the fields step, "):
        load_checkpoint(folder, model, optimizer)


def test_frozen_parameters_have_no_averages_to_miss(tmp_path):
    def half_frozen(model):
        model.blocks.requires_grad_(False)
        return model, make_optimizer(model, OptimizerConfig())

    model, optimizer = half_frozen(make_model())
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimizer.step()
    folder = save_checkpoint(tmp_path, model, None, optimizer, state_at(1))

    loaded, fresh = half_frozen(load_for_use(tmp_path, "cpu")[0])
    load_checkpoint(folder, loaded, fresh)

    assert len(fresh.state) == len(optimizer.state) == 4  # two embeddings, a norm's weight and bias
