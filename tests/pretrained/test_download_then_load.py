"""What the downloader brings is what the loader reads: from a server to logits, by the name alone."""

import pytest
import torch

from glassgpt.by_hand.gpt2_stand_in import write_gpt2_checkpoint
from glassgpt.cli.main import main
from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT
from glassgpt.pretrained import gpt2_files
from glassgpt.pretrained.gpt2_files import META
from tests.data.misbehaving_server import Server
from tests.pretrained.release import serving

SMALL = {"n_vocab": 61, "n_ctx": 19, "n_embd": 15, "n_head": 3, "n_layer": 2}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The files of a "355M" that is small, and that is taken for OpenAI's own."""
    folder = write_gpt2_checkpoint(tmp_path / "published", SMALL)
    (folder / META).write_bytes(b"\x0a\x05graph")
    for name in gpt2_files.VOCABULARY:
        (folder / name).write_bytes(b"{}")
    small = ModelConfig(vocab_size=61, context_length=19, d_model=15, n_heads=3, n_layers=2)
    monkeypatch.setattr(gpt2_files, "gpt2", lambda size: small)
    monkeypatch.setattr(gpt2_files, "SHA256", {})
    monkeypatch.setattr(gpt2_files, "_N_BYTES_OF_VOCABULARY", {})
    monkeypatch.setitem(gpt2_files._N_BYTES, "355M", {})
    return folder


def test_what_is_downloaded_is_loaded_by_its_name(published, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    files = {path.name: path.read_bytes() for path in published.iterdir()}
    with Server([serving(files)]) as server:
        assert main(["download", "gpt2", "--size", "355M", "--mirror", server.url]) == 0
    assert "GPT-2 355M is whole" in capsys.readouterr().out

    token_ids = torch.arange(17)[None]
    with torch.no_grad():
        logits = GPT.from_pretrained("gpt2-medium")(token_ids)
        expected = GPT.from_pretrained(published)(token_ids)

    torch.testing.assert_close(logits, expected)
    assert logits.std() > 0.01
