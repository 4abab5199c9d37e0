"""A model folder gives back exactly what was saved, or says why it cannot."""

import contextlib
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from glassgpt.errors import CheckpointError
from glassgpt.model import folder as folder_module
from glassgpt.model.folder import load_model, load_weights, save_model
from glassgpt.model.gpt import GPT
from glassgpt.storage import staged_folder
from glassgpt.tokenizers import CharTokenizer
from tests.model.tiny import EXACT, every_choice, tiny_config, tiny_ids, tiny_model

TOKENIZER = CharTokenizer.train("The quick brown fox.")  # 16 characters, fewer than the model's 31 ids
FILES = ["config.json", "manifest.json", "model.safetensors", "tokenizer.json"]


@pytest.fixture
def saved(tmp_path):
    """A model folder with a tokenizer."""
    save_model(tiny_model(tiny_config()), TOKENIZER, tmp_path / "model")
    return tmp_path / "model"


@contextlib.contextmanager
def altered(folder: Path):
    """Change the files of a model folder and give it a manifest that agrees with them."""
    with staged_folder(folder.parent / "altered", CheckpointError) as staging:
        for name in FILES:
            shutil.copy(folder / name, staging / name)
        (staging / "manifest.json").unlink()
        yield staging


# ---- there and back ----


@every_choice
def test_save_and_load_give_the_same_logits(choices, tmp_path):
    model = tiny_model(tiny_config(**choices))
    save_model(model, TOKENIZER, tmp_path / "model")

    loaded, tokenizer = load_model(tmp_path / "model")

    assert loaded.config == model.config
    assert not loaded.training
    assert tokenizer.fingerprint == TOKENIZER.fingerprint
    torch.testing.assert_close(loaded(tiny_ids()), model(tiny_ids()), **EXACT)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_weight_comes_back_bit_for_bit_in_its_dtype(tmp_path, dtype, tied):
    model = tiny_model(tiny_config(tied_embeddings=tied)).to(dtype)
    model.save_pretrained(tmp_path / "model")

    loaded = GPT.from_pretrained(tmp_path / "model")

    assert (loaded.head.weight is loaded.token_embedding.weight) == tied
    for name, weight in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == dtype
        torch.testing.assert_close(loaded.state_dict()[name], weight, **EXACT)


def test_another_dtype_can_be_asked_for(saved):
    model = GPT.from_pretrained(saved, dtype=torch.bfloat16)

    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    expected = tiny_model(tiny_config()).to(torch.bfloat16)
    torch.testing.assert_close(model.final_norm.weight, expected.final_norm.weight, **EXACT)


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_another_device_can_be_asked_for(saved, device):
    """ "meta" stands in for an accelerator, which not every machine has."""
    assert {weight.device.type for weight in GPT.from_pretrained(saved, device=device).parameters()} == {
        "meta"
    }


def test_a_path_may_be_text(saved):
    assert GPT.from_pretrained(str(saved)).n_parameters == tiny_model(tiny_config()).n_parameters


def test_a_model_without_a_tokenizer_comes_back_without_one(tmp_path):
    save_model(tiny_model(tiny_config()), None, tmp_path / "model")

    assert load_model(tmp_path / "model")[1] is None
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == FILES[:3]


def test_a_model_in_training_mode_is_saved_as_well_and_stays_in_it(tmp_path):
    model = GPT(tiny_config(dropout=0.5)).train()
    model.save_pretrained(tmp_path / "model")

    assert model.training
    assert not GPT.from_pretrained(tmp_path / "model").training


def test_a_tied_matrix_is_in_the_file_once(saved):
    names = {name for name, _ in tiny_model(tiny_config()).named_parameters()}
    with folder_module.safe_open(saved / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == names
    assert "head.weight" not in names


# ---- what cannot be loaded ----


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"There is no model folder .*nowhere\. One holds model\.safetensors"
    ):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()

    with pytest.raises(CheckpointError, match=f"is not whole:\n  {name} is missing\nCopy it again"):
        load_model(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found_at_any_length(saved, name):
    whole = (saved / name).read_bytes()
    for n_bytes in {0, 1, 7, 8, 9, len(whole) // 3, len(whole) // 2, len(whole) - 2, len(whole) - 1}:
        (saved / name).write_bytes(whole[:n_bytes])
        with pytest.raises(CheckpointError, match=f"is not whole:\n  {name} "):
            load_model(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_anywhere(saved, name):
    whole = (saved / name).read_bytes()
    for i in {0, 9, len(whole) // 3, len(whole) // 2, len(whole) - 2}:
        (saved / name).write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(CheckpointError, match="is not whole"):
            load_model(saved)


def test_the_manifest_of_another_model_is_found(saved, tmp_path):
    save_model(tiny_model(tiny_config(), seed=1), TOKENIZER, tmp_path / "other")
    shutil.copy(tmp_path / "other" / "manifest.json", saved)

    with pytest.raises(CheckpointError, match=r"model\.safetensors was altered \(its CRC-32C differs\)"):
        load_model(saved)


def test_all_damages_are_named_at_once(saved):
    (saved / "config.json").unlink()
    (saved / "tokenizer.json").write_text("{}")

    with pytest.raises(
        CheckpointError, match=r"config\.json is missing\n  tokenizer\.json has 2 bytes, not "
    ):
        load_model(saved)


def test_weights_of_another_shape_and_name_are_all_listed(saved, tmp_path):
    other = tiny_config(n_layers=1, d_ff=7, bias=False, tied_embeddings=False)
    save_model(tiny_model(other), None, tmp_path / "other")
    with altered(saved) as staging:
        shutil.copy(tmp_path / "other" / "model.safetensors", staging)

    with pytest.raises(CheckpointError) as error:
        load_model(tmp_path / "altered")

    message = str(error.value)
    assert "model.safetensors does not fit this model:\n" in message
    assert "\n  missing     blocks.0.attention.o_proj.bias\n" in message
    assert "\n  missing     blocks.1.feedforward.up_proj.weight\n" in message
    assert "\n  unexpected  head.weight\n" in message
    assert "\n  shape       blocks.0.feedforward.up_proj.weight: file (7, 60), model (29, 60)\n" in message
    assert message.endswith("Build the model from the config.json beside the weights.")


def test_weights_that_do_not_fit_leave_the_model_as_it_was(tmp_path):
    save_model(tiny_model(tiny_config(d_ff=7)), None, tmp_path / "other")
    model, untouched = tiny_model(tiny_config()), tiny_model(tiny_config())

    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(model, tmp_path / "other" / "model.safetensors")

    torch.testing.assert_close(model.state_dict(), untouched.state_dict(), **EXACT)


def test_a_safetensors_file_that_is_no_model_is_told_what_it_lacks(saved):
    with altered(saved) as staging:
        folder_module.save_file({"stranger": torch.zeros(2)}, staging / "model.safetensors")

    with pytest.raises(
        CheckpointError, match=r"missing     final_norm\.weight\n(.*\n)*  unexpected  stranger"
    ):
        load_model(saved.parent / "altered")


@pytest.mark.parametrize("n_bytes", [0, 1, 8, 100, 5000])
def test_weights_that_were_never_whole_are_no_crash(saved, n_bytes):
    with altered(saved) as staging:
        whole = (staging / "model.safetensors").read_bytes()
        (staging / "model.safetensors").write_bytes(whole[:n_bytes])

    with pytest.raises(CheckpointError, match=r"cannot be read as safetensors.*Copy it again"):
        load_model(saved.parent / "altered")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "does not describe"),
        ("{}", "'model'"),
        ('{"model": 3}', "does not describe"),
        ('{"model": {"n_layers": 0}}', "n_layers=0 must be"),
        ('{"model": {"experts": 8}}', "unknown fields: experts"),
    ],
)
def test_a_config_that_is_none_is_no_crash(saved, content, reason):
    with altered(saved) as staging:
        (staging / "config.json").write_text(content)

    with pytest.raises(
        CheckpointError, match=f"config.json does not describe a GlassGPT model: .*{reason}|{reason}"
    ):
        load_model(saved.parent / "altered")


def test_a_model_saved_without_a_tokenizer_takes_one_that_is_put_beside_it_and_fits(tmp_path):
    save_model(tiny_model(tiny_config()), None, tmp_path / "model")
    TOKENIZER.save(tmp_path / "model" / "tokenizer.json")
    assert load_model(tmp_path / "model")[1].fingerprint == TOKENIZER.fingerprint

    CharTokenizer.train("".join(map(chr, range(97, 140)))).save(tmp_path / "model" / "tokenizer.json")
    with pytest.raises(
        CheckpointError, match="has 43 ids, the model only 31: a tokenizer that does not belong"
    ):
        load_model(tmp_path / "model")


def test_the_tokenizer_of_another_model_is_refused(saved):
    other = CharTokenizer.train("Jumps over the lazy dog.")
    with altered(saved) as staging:
        other.save(staging / "tokenizer.json")

    with pytest.raises(CheckpointError) as error:
        load_model(saved.parent / "altered")

    assert "is not the tokenizer that the model was saved with" in str(error.value)
    assert f"{other.fingerprint[:12]}, expected {TOKENIZER.fingerprint[:12]}" in str(error.value)


def test_a_tokenizer_file_that_is_none_is_refused_as_a_checkpoint(saved):
    with altered(saved) as staging:
        (staging / "tokenizer.json").write_text(json.dumps({"kind": "char"}))

    with pytest.raises(CheckpointError, match=r"tokenizer\.json was altered"):
        load_model(saved.parent / "altered")


# ---- what cannot be saved ----


def test_a_tokenizer_with_more_ids_than_the_model_is_refused_and_nothing_is_written(tmp_path):
    tokenizer = CharTokenizer.train("abcdefghijklmnopqrstuvwxyz012345")

    with pytest.raises(CheckpointError, match="The tokenizer has 32 ids, the model only 31"):
        save_model(tiny_model(tiny_config()), tokenizer, tmp_path / "model")

    assert list(tmp_path.iterdir()) == []


def untied_by_hand(model):
    model.head.weight = torch.nn.Parameter(model.head.weight + 1)
    return model


def test_a_head_that_came_untied_is_not_lost_quietly(tmp_path):
    model = untied_by_hand(tiny_model(tiny_config()))

    with pytest.raises(
        CheckpointError, match=r"weights of its own.*model\.tie_head\(\).*tied_embeddings=False"
    ):
        model.save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []

    model.tie_head()
    model.save_pretrained(tmp_path / "model")
    loaded = GPT.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(loaded.head.weight, model.head.weight, **EXACT)


def test_an_untied_head_of_the_same_numbers_is_saved(tmp_path):
    model = tiny_model(tiny_config())
    model.head.weight = torch.nn.Parameter(model.head.weight.detach().clone())
    model.save_pretrained(tmp_path / "model")
    loaded = GPT.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(loaded.head.weight, model.head.weight, **EXACT)


def test_a_tied_head_is_saved_even_of_weights_that_are_no_numbers(tmp_path):
    model = tiny_model(tiny_config())
    torch.nn.init.constant_(model.token_embedding.weight, math.nan)
    model.save_pretrained(tmp_path / "model")
    assert GPT.from_pretrained(tmp_path / "model").head.weight.isnan().all()


def test_weights_are_loaded_into_a_head_that_came_untied_as_well(saved):
    model = untied_by_hand(tiny_model(tiny_config(), seed=1))
    load_weights(model, saved / "model.safetensors")
    torch.testing.assert_close(model(tiny_ids()), tiny_model(tiny_config())(tiny_ids()), **EXACT)


@pytest.mark.parametrize("old", [True, False], ids=["over an old one", "at first"])
@pytest.mark.parametrize("n_bytes", [0, 99, 999, 9_999])
def test_a_disk_that_takes_no_more_leaves_the_old_folder_and_nothing_else(tmp_path, n_bytes, old):
    """A limit on the size of a file makes real writes fail, in Python's and in safetensors' own code."""
    resource = pytest.importorskip("resource", reason="needs POSIX limits, which Windows lacks")
    if old:
        save_model(tiny_model(tiny_config()), TOKENIZER, tmp_path / "model")
    new = tiny_model(tiny_config(), seed=1)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        with pytest.raises(CheckpointError, match="Cannot write"):
            save_model(new, TOKENIZER, tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert [path.name for path in tmp_path.iterdir()] == (["model"] if old else [])
    if old:
        expected = tiny_model(tiny_config()).state_dict()
        torch.testing.assert_close(load_model(tmp_path / "model")[0].state_dict(), expected, **EXACT)


def test_a_full_disk_that_safetensors_meets_is_explained(tmp_path, monkeypatch):
    def full(*_, **__):
        raise folder_module.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(folder_module, "save_file", full)

    with pytest.raises(CheckpointError, match=r"Cannot write .*model.*The disk is full"):
        save_model(tiny_model(tiny_config()), TOKENIZER, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_other_things_is_refused_and_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(CheckpointError, match=r"files that were not written with it: notes\.txt"):
        save_model(tiny_model(tiny_config()), TOKENIZER, tmp_path)

    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_loading_finds_the_old_model_when_a_process_died_between_two_renames(saved):
    saved.rename(saved.parent / f".{saved.name}.previous")

    loaded, _ = load_model(saved)

    torch.testing.assert_close(loaded.state_dict(), tiny_model(tiny_config()).state_dict(), **EXACT)
