"""The stand-in for OpenAI's GPT-2: in the same files as the real one, and never taken for it."""

import json
import shutil

import numpy as np
import pytest

from glassgpt.by_hand.gpt2_stand_in import (
    gpt2_shapes,
    gpt2_weights,
    hparams_of,
    is_whole,
    openai_checkpoint_or_stand_in,
)
from glassgpt.model import config
from glassgpt.pretrained import gpt2_files
from glassgpt.pretrained.loading import load_pretrained
from glassgpt.tokenizers.printable import GPT2_BYTE_ORDER


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """A "355M" of which only the vocabulary is large, and of whose files only the hparams are known."""
    monkeypatch.setitem(config.GPT2_SIZES, "355M", (6, 2, 3))
    monkeypatch.setitem(gpt2_files._N_BYTES, "355M", {})


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("GLASSGPT_CACHE", str(folder))
    return folder


def test_the_stand_in_has_the_seven_files_and_loads_with_its_tokenizer(tmp_path, empty_cache, capsys):
    folder = openai_checkpoint_or_stand_in("355M", tmp_path / "made")

    assert folder == tmp_path / "made"
    assert {path.name for path in folder.iterdir()} == {f.name for f in gpt2_files.published_files("355M")}
    assert "random weights stand in" in (said := capsys.readouterr().out)
    assert said.endswith("glassgpt download gpt2 --size 355M\n")
    assert said.count("\n") == 1
    model, tokenizer = load_pretrained(folder)
    assert model.config == config.gpt2("355M")
    assert tokenizer.vocab_size == 50_257
    assert tokenizer.byte_order == GPT2_BYTE_ORDER
    assert tokenizer.decode(tokenizer.encode("Naïve — 你好\n")) == "Naïve — 你好\n"
    assert not empty_cache.exists()


def test_gpt2s_own_vocabulary_is_taken_from_the_cache(tmp_path, cache):
    folder = openai_checkpoint_or_stand_in("355M", tmp_path)

    for name in gpt2_files.VOCABULARY:
        assert (folder / name).read_bytes() == (cache / "openai" / "gpt2" / name).read_bytes()


@pytest.mark.parametrize("damage", [None, "cut", "missing"])
def test_only_what_is_whole_in_the_cache_is_taken(tmp_path, empty_cache, damage, monkeypatch, capsys):
    released = empty_cache / "openai" / "gpt2" / "355M"
    openai_checkpoint_or_stand_in("355M", tmp_path / "made")
    shutil.copytree(tmp_path / "made", released)
    (released / gpt2_files.META).write_bytes(b"\x0a\x05graph")  # a stand-in's is none, so that none is whole
    for name in gpt2_files.VOCABULARY:
        monkeypatch.delitem(gpt2_files.SHA256, name)
        monkeypatch.setitem(gpt2_files._N_BYTES_OF_VOCABULARY, name, (released / name).stat().st_size)
    if damage == "cut":
        (released / gpt2_files.INDEX).write_bytes((released / gpt2_files.INDEX).read_bytes()[:-1])
    elif damage == "missing":
        (released / gpt2_files.DATA).unlink()
    before = {path.name for path in released.iterdir()}
    capsys.readouterr()

    folder = openai_checkpoint_or_stand_in("355M", tmp_path / "again")

    assert folder == (tmp_path / "again" if damage else released)
    assert ("stand in" in capsys.readouterr().out) == bool(damage)
    assert {path.name for path in released.iterdir()} == before
    assert not is_whole(tmp_path / "made", "355M")


def test_a_stand_in_is_never_written_into_the_cache(tmp_path, empty_cache):
    with pytest.raises(AssertionError, match="in the cache"):
        openai_checkpoint_or_stand_in("355M", empty_cache / "openai" / "gpt2" / "355M")


def test_its_hparams_are_openais():
    gpt2_124m = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}

    assert hparams_of("124M") == gpt2_124m
    assert len(json.dumps(gpt2_124m, indent=2)) + 1 == 90  # bytes of OpenAI's file


def test_its_weights_spread_as_gpt2s_did_before_training():
    hparams = {"n_vocab": 211, "n_ctx": 101, "n_embd": 48, "n_head": 3, "n_layer": 2}

    weights = dict(gpt2_weights(hparams, seed=0))

    assert {name: array.shape for name, array in weights.items()} == gpt2_shapes(hparams)
    expected = {
        "model/wte": 0.02, "model/wpe": 0.01, "model/h1/attn/c_attn/w": 0.02,
        "model/h1/attn/c_proj/w": 0.01, "model/h0/mlp/c_proj/w": 0.01,
    }  # fmt: skip
    for name, deviation in expected.items():  # of 2,304 numbers or more: 5% is three standard errors
        assert np.std(weights[name]) == pytest.approx(deviation, rel=0.05)
    assert all(array.std() > 0 for array in weights.values())
