"""A GPT-2 release small enough for tests, and a server that publishes it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from glassgpt.by_hand.gpt2_stand_in import hparams_of
from glassgpt.by_hand.tf_checkpoint_writer import write_bundle
from glassgpt.pretrained import gpt2_files
from glassgpt.pretrained.gpt2_files import META, VOCABULARY
from tests.data.misbehaving_server import Answer, good, status


def hparams_json(size: str) -> bytes:
    """hparams.json as OpenAI writes it."""
    return (json.dumps(hparams_of(size), indent=2) + "\n").encode()


def small_release(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of a "355M" whose weights and vocabulary are small; what is known of it beforehand agrees."""
    folder.mkdir()
    random = np.random.default_rng(0)
    tensors = [(f"model/{name}", random.standard_normal((7, 11), np.float32)) for name in "abc"]
    write_bundle(folder / "model.ckpt", tensors)
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    (folder / "hparams.json").write_bytes(hparams_json("355M"))
    (folder / META).write_bytes(b"\x0a\x05graph")
    (folder / "encoder.json").write_bytes(b'{"a": 0}')
    (folder / "vocab.bpe").write_bytes(b"#version: 0.2\na b\n")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    sha256 = {name: hashlib.sha256(files[name]).hexdigest() for name in VOCABULARY}
    monkeypatch.setattr(gpt2_files, "SHA256", sha256)
    monkeypatch.setattr(gpt2_files, "_N_BYTES_OF_VOCABULARY", {name: len(files[name]) for name in VOCABULARY})
    monkeypatch.setitem(gpt2_files._N_BYTES, "355M", {})
    return files


def serving(files: dict[str, bytes]) -> Answer:
    """An answer that has them below 355M/."""

    def answer(request, connection):
        size, name = request.path.strip("/").split("/")
        known = size == "355M" and name in files
        (good(files[name]) if known else status("404 Not Found"))(request, connection)

    return answer
