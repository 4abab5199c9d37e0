"""What inspect shows of a checkpoint is what is in it, in every format, one tensor at a time."""

import re
import weakref

import pytest
import torch

from glassgpt.by_hand.gpt2_stand_in import write_gpt2_checkpoint
from glassgpt.cli.main import main
from glassgpt.data import make_tokenizer, prepare, read_corpus
from glassgpt.errors import CheckpointError
from glassgpt.model.costs import count_parameters
from glassgpt.model.folder import save_model
from glassgpt.model.gpt import GPT
from glassgpt.pretrained import convert, open_model
from glassgpt.pretrained.stored import StateDictWeights
from glassgpt.pretrained.summary import SHARES, count_by_part, summarise
from glassgpt.pretrained.weight_plot import plot_weights
from tests.model.tiny import every_choice, tiny_config, tiny_model

SMALL = {"n_vocab": 61, "n_ctx": 19, "n_embd": 15, "n_head": 3, "n_layer": 11}


@pytest.fixture
def model():
    return tiny_model(tiny_config())


@pytest.fixture
def folder(model, tmp_path):
    save_model(model, None, tmp_path / "model")
    return tmp_path / "model"


@every_choice
def test_the_counts_by_part_are_those_of_the_configuration(choices, tmp_path):
    config = tiny_config(**choices, tied_embeddings=False)
    save_model(tiny_model(config), None, tmp_path / "model")

    counts = count_by_part(summarise(open_model(tmp_path / "model")))

    expected = count_parameters(config)
    assert counts == {
        "embeddings": expected.token_embedding + expected.position_embedding,
        "norms": expected.norms,
        "attention": expected.attention,
        "MLP": expected.feedforward,
        "head": expected.head,
        "not a weight": 0,
    }


def test_the_statistics_are_those_of_the_numbers(model, folder):
    tensors = list(summarise(open_model(folder)))

    assert len(tensors) == len(dict(model.named_parameters()))
    for tensor in tensors:
        weight = model.get_parameter(tensor.fills).detach().float().flatten()
        expected = [weight.mean(), weight.std(correction=0), weight.min(), weight.max()]
        expected += [weight.quantile(share) for share in SHARES]
        found = [tensor.mean, tensor.std, tensor.lowest, tensor.highest, *tensor.quantiles]
        # float32 sums of up to 1,860 numbers around 1.
        torch.testing.assert_close(torch.tensor(found), torch.stack(expected), rtol=0, atol=1e-5)
        assert (tensor.n_numbers, tensor.dtype) == (weight.numel(), "float64")


def test_tensors_come_in_the_order_in_which_a_token_meets_them(tmp_path):
    write_gpt2_checkpoint(tmp_path, SMALL)

    tensors = list(summarise(open_model(tmp_path)))

    assert [tensor.name for tensor in tensors[:2]] == ["model/wte", "model/wpe"]
    assert [tensor.layer for tensor in tensors[2:-2]] == [layer for layer in range(11) for _ in range(12)]
    assert {tensor.name for tensor in tensors[-2:]} == {"model/ln_f/g", "model/ln_f/b"}
    assert len(tensors) == len({tensor.fills for tensor in tensors}) == 4 + 12 * 11


@pytest.mark.parametrize("form", ["huggingface", "pt"])
def test_every_format_shows_the_same_weights(folder, tmp_path, form):
    target = tmp_path / "out.pt"
    convert(folder, target, form)

    ours = {tensor.fills: (tensor.mean, tensor.std) for tensor in summarise(open_model(folder))}
    theirs = {tensor.fills: (tensor.mean, tensor.std) for tensor in summarise(open_model(target))}

    assert theirs.keys() == ours.keys()
    for name, numbers in ours.items():  # a transposed matrix is summed in another order
        assert theirs[name] == pytest.approx(numbers, abs=1e-5)


def test_only_one_tensor_is_in_memory(folder):
    stored, held = open_model(folder), []
    read = stored.weights.read

    def noting(name):
        assert not held or held[-1]() is None
        tensor = read(name)
        held.append(weakref.ref(tensor))
        return tensor

    stored.weights.read = noting
    assert len(list(summarise(stored))) == len(held)


def test_what_is_no_weight_is_shown_as_such(folder):
    stored = open_model(folder)
    tensors = {name: stored.weights.read(name) for name in stored.weights.shapes}
    strangers = {"h.0.attn.bias": torch.ones(3, 3, dtype=torch.uint8), "nothing": torch.zeros(0)}
    object.__setattr__(stored, "weights", StateDictWeights(folder, tensors | strangers))

    *_, mask, empty = summarise(stored)

    assert (mask.fills, mask.part, mask.dtype, mask.mean) == (None, "not a weight", "uint8", 1.0)
    assert (empty.n_numbers, empty.fills) == (0, None)
    assert empty.mean != empty.mean


@pytest.mark.parametrize("n_numbers", [100_003, 1 << 16])
def test_the_quantiles_of_a_large_tensor_are_close(folder, n_numbers):
    stored = open_model(folder)
    numbers = torch.randn(n_numbers, generator=torch.Generator().manual_seed(0))
    object.__setattr__(stored, "weights", StateDictWeights(folder, {"large": numbers}))

    (large,) = summarise(stored)

    # Of at least 2^15 normal numbers, the outer quantiles are known to about 0.02.
    expected = torch.distributions.Normal(0, 1).icdf(torch.tensor(SHARES))
    torch.testing.assert_close(torch.tensor(large.quantiles), expected, rtol=0, atol=0.08)


def test_the_command_prints_the_table_and_the_parts(tmp_path, capsys):
    write_gpt2_checkpoint(tmp_path, SMALL)

    assert main(["inspect", str(tmp_path)]) == 0

    shown = capsys.readouterr().out
    row = r"model/h10/attn/c_attn/w +1 × 15 × 45 +float32( +-?\d\.\d{4}){4}  blocks\.10\.attention\.qkv_proj"
    assert re.search(row + r"\.weight\n", shown)
    n_parameters = GPT.from_pretrained(tmp_path).n_parameters
    assert re.search(rf"  numbers +{n_parameters:,}\n", shown)
    assert re.search(rf"  embeddings +{61 * 15 + 19 * 15:,} +\d+\.\d%\n", shown)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.parametrize("choices", [{}, {"norm": "rmsnorm", "n_layers": 1, "feedforward": "swiglu"}])
def test_the_plot_is_a_picture(tmp_path, capsys, suffix, choices):
    save_model(tiny_model(tiny_config(**choices)), None, tmp_path / "model")
    picture = tmp_path / f"weights{suffix}"

    assert main(["inspect", str(tmp_path / "model"), "--plot", str(picture)]) == 0

    assert picture.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
    assert f"The picture is {picture}." in capsys.readouterr().out


def test_a_picture_is_not_written_in_place_of_a_folder(folder, tmp_path, capsys):
    (tmp_path / "a.png").mkdir()
    assert main(["inspect", str(folder), "--plot", str(tmp_path / "a.png")]) == 2

    printed = capsys.readouterr()
    assert "a.png: it is a folder" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("name", "words"), [("weights.xyz", "End it in .png, .svg or .pdf"), ("no/where.png", "Cannot write")]
)
def test_a_picture_that_cannot_be_written_is_a_mistake_not_a_crash(folder, tmp_path, capsys, name, words):
    assert main(["inspect", str(folder), "--plot", str(tmp_path / name)]) == 2

    assert words in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=re.escape(words)):
        plot_weights(list(summarise(open_model(folder))), tmp_path / name, "from Python")


def test_a_folder_without_a_model_is_a_mistake_not_a_crash(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2

    assert "holds no model" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["inspect", "generate"])
def test_a_prepared_dataset_is_said_to_be_one_and_what_it_is_for(tmp_path, capsys, word):
    (tmp_path / "text.txt").write_text("The quick brown fox. " * 40)
    corpus = read_corpus(str(tmp_path / "text.txt"))
    prepare(corpus, tmp_path / "data", make_tokenizer("char", corpus, vocab_size=0, val_fraction=0.1))

    assert main([word, str(tmp_path / "data")]) == 2

    said = capsys.readouterr().err
    assert f"is a prepared dataset, not a model: glassgpt train --data {tmp_path / 'data'}" in said


# ---- info, of the same models ----


@pytest.mark.parametrize("form", ["glassgpt", "huggingface", "pt"])
def test_info_describes_what_inspect_shows(tmp_path, capsys, form):
    model = tiny_model(tiny_config())
    save_model(model, None, tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "out.pt", form)

    assert main(["info", str(tmp_path / "out.pt")]) == 0

    assert re.search(rf"  parameters +{model.n_parameters:,}\n", capsys.readouterr().out)


def test_info_describes_openais_files_too(tmp_path, capsys):
    write_gpt2_checkpoint(tmp_path, SMALL)

    assert main(["info", str(tmp_path)]) == 0

    assert "11 layers of 3 heads, d_model 15" in capsys.readouterr().out


def test_info_knows_gpt2_by_each_of_its_names_without_its_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    assert main(["info", "124M"]) == 0
    expected = capsys.readouterr().out

    assert main(["info", "gpt2"]) == 0

    assert expected.endswith(capsys.readouterr().out)  # but for the heading, its size
    save_model(tiny_model(tiny_config(n_layers=1)), None, tmp_path / "gpt2")
    assert main(["info", "gpt2"]) == 0
    assert "1 layers of" in capsys.readouterr().out, "a folder of that name is meant where there is one"


def test_info_takes_a_configuration_of_ours_without_weights(folder, capsys):
    (folder / "model.safetensors").unlink()

    assert main(["info", str(folder)]) == 0

    assert "2 layers of" in capsys.readouterr().out


def test_info_says_what_a_folder_lacks_to_be_a_model(tmp_path, capsys):
    assert main(["info", str(tmp_path)]) == 2

    assert "holds no model" in capsys.readouterr().err
