"""How much memory loading takes beside the model, and whose memory the weights are in the end."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glassgpt.by_hand.gpt2_stand_in import write_gpt2_checkpoint
from glassgpt.decoding import why_not_native
from glassgpt.generation import SamplingConfig, generate
from glassgpt.model import GPT
from glassgpt.pretrained import convert
from tests.decoding.models import needs_library

SIZES = {"n_vocab": 7919, "n_ctx": 61, "n_embd": 512, "n_head": 8, "n_layer": 4}
"""67 MB in float32: much beside what Python allocates meanwhile."""
MODEL_BYTES = 4 * (7919 * 512 + 61 * 512 + 4 * (12 * 512**2 + 13 * 512) + 2 * 512)
LARGEST_BYTES = 4 * 7919 * 512  # the token embedding
TINY = SIZES | {"n_vocab": 61, "n_embd": 40}

FORMATS = ["openai", "huggingface", "glassgpt", "pt"]

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self, which only Linux has")

MEASURED = """
import sys, torch
from dataclasses import replace
from glassgpt.pretrained import open_model
from glassgpt.pretrained.filling import build

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

class Watched:
    def __init__(self, weights):
        self.path, self.shapes, self.dtypes = weights.path, weights.shapes, weights.dtypes
        self.weights, self.most = weights, 0

    def read(self, name):
        tensor = self.weights.read(name)
        self.most = max(self.most, anonymous())
        return tensor

def most_beyond(path):
    stored = open_model(path)
    watched, before = Watched(stored.weights), anonymous()
    model = build(replace(stored, weights=watched), "cpu", getattr(torch, sys.argv[2]))
    return max(watched.most, anonymous()) - before

torch.set_num_threads(1)
most_beyond(sys.argv[3])  # what is imported and allocated once
print(most_beyond(sys.argv[1]))
"""


def stored_as(format, folder, sizes):
    """A model in `format`; each is made from one in OpenAI's."""
    write_gpt2_checkpoint(folder / "openai", sizes)
    if format != "openai":
        convert(folder / "openai", folder / f"{format}.pt", format)
    return folder / ("openai" if format == "openai" else f"{format}.pt")


@needs_proc
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("format", FORMATS)
def test_loading_holds_at_most_one_tensor_beside_the_model(format, dtype, tmp_path):
    """A mapped weight takes no memory at all; a `.pt` file's are copied, and so is what changes its dtype."""
    small = stored_as(format, tmp_path / "small", TINY)
    large = stored_as(format, tmp_path / "large", SIZES)

    command = [sys.executable, "-c", MEASURED, str(large), dtype, str(small)]
    most = int(subprocess.check_output(command, text=True))

    model = {"float32": MODEL_BYTES if format == "pt" else 0, "bfloat16": MODEL_BYTES // 2}[dtype]
    assert most <= model + LARGEST_BYTES + 2e6  # and what the allocator keeps
    assert most >= 0.8 * model


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_into_a_weight_does_not_reach_the_file(format, tmp_path):
    path = stored_as(format, tmp_path, TINY)
    before = digests(path)

    model = GPT.from_pretrained(path)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)

    assert digests(path) == before
    torch.testing.assert_close(
        GPT.from_pretrained(path).final_norm.bias + 1, model.final_norm.bias, rtol=0, atol=0
    )


@pytest.mark.parametrize("format", FORMATS)
def test_a_loaded_model_can_be_trained_and_saved_in_its_place(format, tmp_path):
    """Matrices that lie as (in, out) in a file are parameters like any other."""
    path = stored_as(format, tmp_path, TINY)
    model = GPT.from_pretrained(path)
    trained_a_step(model)

    target = path if format in ("huggingface", "glassgpt") else tmp_path / "ours"
    model.save_pretrained(target)

    again = GPT.from_pretrained(target)
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


@needs_library
@pytest.mark.parametrize("format", FORMATS)
def test_a_loaded_model_generates_trains_and_outlives_its_file(format, tmp_path):
    """Generating lays matrices that are (in, out) in a file out in rows: parameters like any other, again."""
    path = stored_as(format, tmp_path, TINY | {"n_embd": 64, "n_head": 4})
    model = GPT.from_pretrained(path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert why_not_native(model) is None
    sampling = SamplingConfig(max_new_tokens=9, temperature=0.0)
    written = list(generate(model, [3, 5], sampling))
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)

    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert list(generate(model, [3, 5], sampling)) == written
    trained_a_step(model)
    assert not any(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@needs_proc
def test_a_state_dict_can_be_saved_over_the_file_it_was_loaded_from(tmp_path):
    """`torch.save` cuts the file to nothing before it reads the weights: they must not be in it any more."""
    path = stored_as("pt", tmp_path, TINY)
    model = GPT.from_pretrained(path)
    trained_a_step(model)
    assert str(path) not in Path("/proc/self/maps").read_text()  # else the next line ends this process

    torch.save(model.state_dict(), path)

    torch.testing.assert_close(torch.load(path, weights_only=True), model.state_dict(), rtol=0, atol=0)


def trained_a_step(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.arange(61)[None]).logsumexp(-1).mean().backward()
    optimizer.step()


def digests(path):
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
