"""A bare state dict, which says nothing of itself but names, shapes and numbers."""

import json

import pytest
import torch

from glassgpt.errors import CheckpointError
from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT
from glassgpt.pretrained import load_pretrained, pt_file
from glassgpt.pretrained.huggingface_export import state_dict as as_theirs
from tests.model.tiny import EXACT
from tests.pretrained.peers import V as VOCABULARY
from tests.pretrained.peers import some_ids

CONFIG = ModelConfig(vocab_size=VOCABULARY, context_length=19, d_model=15, n_layers=2, n_heads=3)


@pytest.fixture
def model(monkeypatch):
    """A model of a size that is made a known one."""
    monkeypatch.setattr(pt_file, "GPT2_SIZES", {"small": (10, 2, 2), "larger": (15, 2, 3)})
    sizes = {"small": ModelConfig(vocab_size=VOCABULARY, d_model=10, n_layers=2, n_heads=2), "larger": CONFIG}
    monkeypatch.setattr(pt_file, "gpt2", sizes.__getitem__)
    torch.manual_seed(0)
    model = GPT(CONFIG).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


NAMINGS = {
    "ours": lambda model: model.state_dict(),
    "theirs": as_theirs,
    "theirs, of a bare GPT2Model": lambda model: {
        name.removeprefix("transformer."): tensor for name, tensor in as_theirs(model).items()
    },
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_known_size_needs_no_config(model, naming, tmp_path):
    torch.save(NAMINGS[naming](model), tmp_path / "weights.pt")

    again, tokenizer = load_pretrained(tmp_path / "weights.pt")

    assert (again.config, tokenizer) == (CONFIG, None)
    assert again.head.weight is again.token_embedding.weight
    torch.testing.assert_close(again.state_dict(), model.state_dict(), **EXACT)


@pytest.mark.parametrize("naming", ["ours", "theirs"])
def test_a_head_of_its_own_is_kept_where_no_config_speaks_of_it(model, naming, tmp_path):
    name = {"ours": "head.weight", "theirs": "lm_head.weight"}[naming]
    other = torch.randn_like(model.head.weight)
    torch.save({**NAMINGS[naming](model), name: other}, tmp_path / "weights.pt")

    again = GPT.from_pretrained(tmp_path / "weights.pt")

    assert not again.config.tied_embeddings
    torch.testing.assert_close(again.head.weight.data, other, **EXACT)
    torch.testing.assert_close(again.token_embedding.weight, model.token_embedding.weight, **EXACT)


def test_the_width_alone_makes_no_known_size(model, tmp_path):
    weights = model.state_dict()
    for name in ("token_embedding.weight", "head.weight"):
        weights[name] = weights[name][:-1]
    torch.save(weights, tmp_path / "weights.pt")

    with pytest.raises(CheckpointError, match="not of one of GPT-2's sizes"):
        GPT.from_pretrained(tmp_path / "weights.pt")


@pytest.mark.parametrize("change", ["left out", "left over", "another shape", "of whole numbers"])
def test_a_state_dict_that_does_not_fit_is_refused_by_name(model, change, tmp_path):
    weights = dict(model.state_dict())
    name = "blocks.1.attention.qkv_proj.bias"
    if change == "left out":
        del weights[name]
    elif change == "left over":
        weights["blocks.2.attention.qkv_proj.bias"] = weights[name]
    elif change == "another shape":
        weights[name] = weights[name][:-1]
    else:
        weights[name] = weights[name].long()
    torch.save(weights, tmp_path / "weights.pt")

    with pytest.raises(CheckpointError, match=r"blocks\.\d\.attention\.qkv_proj\.bias"):
        GPT.from_pretrained(tmp_path / "weights.pt")


def test_the_config_beside_it_may_be_theirs(model, tmp_path):
    from glassgpt.pretrained.huggingface_config import config_to

    torch.save(model.state_dict(), tmp_path / "weights.pt")
    config = {**config_to(CONFIG), "layer_norm_epsilon": 0.25}
    (tmp_path / "config.json").write_text(json.dumps(config))

    again = GPT.from_pretrained(tmp_path / "weights.pt")

    assert again.config.norm_eps == 0.25
    assert not torch.allclose(again(some_ids()), model(some_ids()))


CONTENTS = {
    "no weights": lambda content: content.pop("weights"),
    "weights of another kind": lambda content: content.update(weights=[1]),
    "a model of another kind": lambda content: content.update(model=[1]),
    "an unknown field": lambda content: content["model"].update(colour="blue"),
    "no tokenizer said": lambda content: content.pop("tokenizer"),
}


@pytest.mark.parametrize("change", CONTENTS)
def test_a_file_of_ours_that_is_not_whole_is_refused(model, change, tmp_path):
    pt_file.write_pt(model, None, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    CONTENTS[change](content)
    torch.save(content, tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match=r"not a whole model of GlassGPT|no state dict"):
        GPT.from_pretrained(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "write", [lambda model, path: pt_file.write_pt(model, None, path), lambda m, _: as_theirs(m)]
)
def test_a_head_that_came_untied_is_lost_in_no_format(model, write, tmp_path):
    model.head.weight = torch.nn.Parameter(model.head.weight + 1)
    with pytest.raises(CheckpointError, match=r"weights of its own.*model\.tie_head\(\)"):
        write(model, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_is_damaged_is_refused_and_can_be_left_out(model, tmp_path):
    pt_file.write_pt(model, None, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.save({**content, "tokenizer": "{"}, tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match=r"The tokenizer in .*model\.pt cannot be read"):
        load_pretrained(tmp_path / "model.pt")
    assert load_pretrained(tmp_path / "model.pt", with_tokenizer=False)[1] is None


@pytest.mark.parametrize("tokenizer", [5, "\ud800", ["{}"]], ids=["a number", "half a character", "a list"])
def test_a_tokenizer_that_is_no_text_is_refused(model, tokenizer, tmp_path):
    pt_file.write_pt(model, None, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.save({**content, "tokenizer": tokenizer}, tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match=r"The tokenizer in .*model\.pt cannot be read"):
        load_pretrained(tmp_path / "model.pt")


STRANGERS = {
    "sparse": lambda weight: weight.to_sparse(),
    "compressed": lambda weight: weight.to_sparse_csr(),
    "without numbers": lambda weight: weight.to("meta"),
    "float8": lambda weight: weight.to(torch.float8_e4m3fn),
    "complex": lambda weight: weight.to(torch.complex64),
    "nested": lambda weight: torch.nested.nested_tensor([weight, weight[:3]]),
}


@pytest.mark.filterwarnings("ignore:.*(nested tensors|Sparse CSR)")
@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("of_ours", [True, False])
def test_tensors_that_are_no_plain_weights_are_refused_by_name(model, stranger, of_ours, tmp_path):
    pt_file.write_pt(model, None, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    name = "blocks.0.attention.o_proj.weight"
    content["weights"][name] = STRANGERS[stranger](content["weights"][name])
    torch.save(content if of_ours else content["weights"], tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match=r"blocks\.0\.attention\.o_proj\.weight.* plain tensor"):
        GPT.from_pretrained(tmp_path / "model.pt")


def test_names_that_are_no_text_are_refused(model, tmp_path):
    torch.save({**model.state_dict(), 3: torch.ones(2)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="holds no state dict, which maps names to tensors"):
        GPT.from_pretrained(tmp_path / "weights.pt")


@pytest.mark.parametrize("field", ["n_layers", "vocab_size", "context_length", "d_ff"])
@pytest.mark.parametrize("value", [20_000, 2**62, 2**63])
def test_a_model_of_ours_far_larger_than_its_file_is_refused_at_once(model, field, value, tmp_path):
    pt_file.write_pt(model, None, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    content["model"][field] = value
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="numbers, and its configuration describes a model of"):
        GPT.from_pretrained(tmp_path / "model.pt")


@pytest.mark.parametrize("naming", ["ours", "theirs"])
def test_a_file_of_ours_has_each_weight_in_its_own_layout(model, naming, tmp_path):
    """Also where it came from a format with its matrices on their side."""
    torch.save(NAMINGS[naming](model), tmp_path / "weights.pt")
    pt_file.write_pt(GPT.from_pretrained(tmp_path / "weights.pt"), None, tmp_path / "model.pt")

    weights = torch.load(tmp_path / "model.pt", weights_only=True)["weights"]

    assert all(weight.is_contiguous() for weight in weights.values())
    assert "head.weight" not in weights


def test_a_disk_that_is_full_is_an_error(model, monkeypatch, tmp_path):
    def full(*_):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="Is the disk full"):
        pt_file.write_pt(model, None, tmp_path / "model.pt")


def test_a_head_that_its_configuration_would_throw_away_is_refused(tmp_path):
    model = GPT(CONFIG)
    pt_file.write_pt(model, None, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    weights = next(part for part in content.values() if isinstance(part, dict) and "final_norm.bias" in part)
    weights["head.weight"] = weights["token_embedding.weight"].clone()
    torch.save(content, tmp_path / "same.pt")
    weights["head.weight"][3, 2] += 1
    torch.save(content, tmp_path / "other.pt")

    assert load_pretrained(tmp_path / "same.pt")[0].n_parameters == model.n_parameters
    with pytest.raises(CheckpointError, match="has a head of its own, and its configuration ties it"):
        load_pretrained(tmp_path / "other.pt")
