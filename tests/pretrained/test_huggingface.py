"""A GPT-2 that transformers has saved gives the same logits here, and one of ours gives them there."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from glassgpt.errors import CheckpointError, ConfigError
from glassgpt.model.config import gpt2
from glassgpt.model.gpt import GPT
from glassgpt.pretrained import load_pretrained, open_model
from glassgpt.pretrained.filling import build
from glassgpt.pretrained.huggingface_config import config_from, config_to
from glassgpt.pretrained.huggingface_export import write_huggingface_files
from glassgpt.pretrained.stored import SafetensorsWeights
from glassgpt.tokenizers import BPETokenizer, CharTokenizer
from tests.model.tiny import tiny_config, tiny_model
from tests.pretrained.peers import CONTEXT, V, every_family, peer, saved_peer, some_ids

# float64 on both sides, only the order of sums differs, and logits are below 100.
FLOAT64 = {"rtol": 0, "atol": 1e-10}
# float32 has 7 digits, and up to 48 layers add up their rounding.
FLOAT32 = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def folder(tmp_path):
    """A GPT-2 of 12 layers, saved by transformers in float64."""
    saved_peer(tmp_path / "theirs")
    return tmp_path / "theirs"


@torch.no_grad()
def logits_of(model):
    logits = model(some_ids())
    return logits if isinstance(logits, torch.Tensor) else logits.logits


def change_tensors(folder, change):
    """Let `change` work on the tensors of a saved model."""
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **settings):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | settings))


# ---- the same logits ----


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@every_family
def test_a_saved_model_gives_the_same_logits_in_float64(family, tied, tmp_path):
    theirs = saved_peer(tmp_path / "theirs", family=family, tied=tied)

    ours = GPT.from_pretrained(tmp_path / "theirs")

    assert ours.config.tied_embeddings == tied
    assert (ours.head.weight is ours.token_embedding.weight) == tied
    assert {weight.dtype for weight in ours.parameters()} == {torch.float64}
    assert not ours.training
    torch.testing.assert_close(logits_of(ours), logits_of(theirs), **FLOAT64)
    assert logits_of(theirs).std() > 0.1


@every_family
def test_a_saved_model_gives_the_same_logits_in_float32(family, tmp_path):
    theirs = saved_peer(tmp_path / "theirs", family=family).float()

    ours = GPT.from_pretrained(tmp_path / "theirs", dtype=torch.float32)

    torch.testing.assert_close(logits_of(ours), logits_of(theirs), **FLOAT32)


@pytest.mark.parametrize(
    "settings", [{"n_inner": 23}, {"layer_norm_epsilon": 0.1}, {"activation_function": "gelu_pytorch_tanh"}]
)
def test_what_a_config_may_set_is_followed(settings, tmp_path):
    theirs = saved_peer(tmp_path / "theirs", **settings)

    torch.testing.assert_close(
        logits_of(GPT.from_pretrained(tmp_path / "theirs")), logits_of(theirs), **FLOAT64
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_keep_their_dtype(dtype, folder):
    change_tensors(folder, lambda all: all.update({name: tensor.to(dtype) for name, tensor in all.items()}))

    assert {weight.dtype for weight in GPT.from_pretrained(folder).parameters()} == {dtype}


def test_weights_of_two_dtypes_take_the_one_that_holds_both(folder):
    expected = logits_of(GPT.from_pretrained(folder))
    change_tensors(
        folder, lambda all: all.update({"transformer.ln_f.bias": all["transformer.ln_f.bias"].half()})
    )

    ours = GPT.from_pretrained(folder)

    assert {weight.dtype for weight in ours.parameters()} == {torch.float64}
    # One bias of about 0.3 was rounded to half precision.
    torch.testing.assert_close(logits_of(ours), expected, rtol=0, atol=1e-2)


def test_the_query_key_and_value_biases_are_loaded_and_each_counts(folder):
    """They are dropped elsewhere, where a configuration says qkv_bias=False."""
    ours = GPT.from_pretrained(folder)
    before = logits_of(ours)
    D = ours.config.d_model
    for part, rows in {"q": slice(0, D), "v": slice(2 * D, 3 * D)}.items():
        again = GPT.from_pretrained(folder)
        with torch.no_grad():
            again.blocks[5].attention.qkv_proj.bias[rows] = 0
        assert (logits_of(again) - before).abs().max() > 1e-5, part
    theirs = load_file(folder / "model.safetensors")["transformer.h.5.attn.c_attn.bias"]
    torch.testing.assert_close(ours.blocks[5].attention.qkv_proj.bias.data, theirs, rtol=0, atol=0)


def test_biases_that_a_model_has_no_room_for_are_refused_not_dropped(folder):
    stored = open_model(folder)
    without = replace(stored, config=replace(stored.config, qkv_bias=False))

    with pytest.raises(CheckpointError, match=r"unexpected  transformer\.h\.0\.attn\.c_attn\.bias \(45,\)"):
        build(without)


def test_a_weight_that_nothing_fills_is_named(folder):
    stored, left_out = open_model(folder), "transformer.ln_f.bias"
    places = {name: place for name, place in stored.places.items() if name != left_out}

    with pytest.raises(CheckpointError, match=r"missing     whatever fills final_norm\.bias \(15,\)"):
        build(replace(stored, places=places, ignored=frozenset([left_out])))


# ---- the forms it is saved in ----


def test_names_without_the_prefix_are_the_same_model(folder):
    """What a bare GPT2Model saves, and what the original gpt2 on the hub looks like."""
    expected = logits_of(GPT.from_pretrained(folder))

    def strip(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)

    change_tensors(folder, strip)

    torch.testing.assert_close(logits_of(GPT.from_pretrained(folder)), expected, rtol=0, atol=0)


def test_what_is_no_weight_does_not_decide_the_dtype(folder):
    def halve(tensors):
        tensors.update({name: tensor.half() for name, tensor in tensors.items()})
        tensors["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)

    change_tensors(folder, halve)

    assert open_model(folder).dtype == torch.float16


def test_masks_that_old_versions_saved_are_known_and_ignored(folder):
    expected = logits_of(GPT.from_pretrained(folder))

    def add(tensors):
        for layer in range(12):
            mask = torch.ones(CONTEXT, CONTEXT).tril().to(torch.uint8)
            tensors[f"transformer.h.{layer}.attn.bias"] = mask[None, None]
            tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)

    change_tensors(folder, add)

    torch.testing.assert_close(logits_of(GPT.from_pretrained(folder)), expected, **FLOAT64)


@pytest.mark.parametrize(
    "name", ["transformer.h.3.attn.bias_2", "h.attn.bias", "transformer.attn.masked_bias"]
)
def test_what_only_looks_like_a_mask_is_not_ignored(folder, name):
    change_tensors(folder, lambda tensors: tensors.update({name: torch.zeros(2)}))

    with pytest.raises(CheckpointError, match="unexpected  " + name):
        GPT.from_pretrained(folder)


def test_shards_are_one_model(tmp_path):
    theirs = peer()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="30KB")
    assert len(list((tmp_path / "theirs").glob("model-*-of-*.safetensors"))) > 2

    torch.testing.assert_close(
        logits_of(GPT.from_pretrained(tmp_path / "theirs")), logits_of(theirs), **FLOAT64
    )


@pytest.mark.parametrize("zipped", [True, False], ids=["today's", "before PyTorch 1.6"])
def test_a_pickle_of_tensors_is_read(folder, zipped):
    expected = logits_of(GPT.from_pretrained(folder))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)

    torch.testing.assert_close(logits_of(GPT.from_pretrained(folder)), expected, **FLOAT64)


class Evil:
    def __reduce__(self):
        return (open, ("/nonexistent/evil", "w"))


def test_a_pickle_with_code_is_refused_and_does_not_run(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"wte.weight": Evil()}, folder / "pytorch_model.bin")

    with pytest.raises(CheckpointError, match="weights_only=True"):
        GPT.from_pretrained(folder)


# ---- the head ----


def test_a_head_equal_to_the_embedding_is_tied(folder):
    change_tensors(folder, lambda all: all.update({"lm_head.weight": all["transformer.wte.weight"].clone()}))

    ours = GPT.from_pretrained(folder)

    assert ours.head.weight is ours.token_embedding.weight


def test_a_head_that_differs_is_not_tied_whatever_the_config_says(folder):
    change_tensors(folder, lambda all: all.update({"lm_head.weight": all["transformer.wte.weight"] * 2}))
    expected = 2 * logits_of(saved_peer(folder.parent / "again"))

    ours = GPT.from_pretrained(folder)

    assert not ours.config.tied_embeddings
    torch.testing.assert_close(logits_of(ours), expected, **FLOAT64)


def test_an_untied_head_that_is_missing_is_named(folder):
    change_config(folder, tie_word_embeddings=False)

    with pytest.raises(CheckpointError, match=r"missing     lm_head\.weight \(61, 15\), for head\.weight"):
        GPT.from_pretrained(folder)


def test_a_tied_head_is_one_parameter_and_stays_one_in_training(folder):
    """Not two copies, which would part at the first step."""
    ours = GPT.from_pretrained(folder)
    ours(some_ids()).sum().backward()
    torch.optim.SGD(ours.parameters(), lr=1.0).step()

    assert ours.head.weight is ours.token_embedding.weight
    assert ours.n_parameters == sum(p.numel() for p in peer().parameters())


# ---- what does not fit ----


def test_everything_left_over_missing_or_of_another_shape_is_named_at_once(folder):
    def damage(tensors):
        del tensors["transformer.h.7.mlp.c_fc.bias"]
        tensors["transformer.h.12.ln_1.bias"] = torch.zeros(15)
        tensors["transformer.h.2.attn.c_attn.weight"] = tensors[
            "transformer.h.2.attn.c_attn.weight"
        ].T.contiguous()
        tensors["transformer.ln_f.weight"] = tensors["transformer.ln_f.weight"].to(torch.int8)

    change_tensors(folder, damage)

    with pytest.raises(CheckpointError) as error:
        GPT.from_pretrained(folder)

    lines = str(error.value).splitlines()
    assert lines[0].startswith(str(folder))
    assert lines[0].endswith("its configuration describes:")
    assert lines[1:-1] == [
        "  shape       transformer.h.2.attn.c_attn.weight: file (45, 15), needed (15, 45) for "
        "blocks.2.attention.qkv_proj.weight",
        "  missing     transformer.h.7.mlp.c_fc.bias (60,), for blocks.7.feedforward.up_proj.bias",
        "  dtype       transformer.ln_f.weight: torch.int8 is quantised or no weight",
        "  unexpected  transformer.h.12.ln_1.bias (15,)",
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx=True; our GPT computes False",
        ),
        ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn=True"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"activation_function": "relu"}, "activation_function='relu'; our GPT computes 'gelu_new' or"),
        ({"activation_function": "gelu"}, "activation_function='gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantised weights cannot be read"),
        ({"model_type": "llama"}, "describes a model of type 'llama'"),
        ({"n_head": 4}, "d_model=15 is not divisible by n_heads=4"),
        ({"n_layer": 0}, "n_layers=0 must be a whole number"),
        ({"vocab_size": 0}, "vocab_size=0"),
    ],
)
def test_a_config_that_our_gpt_cannot_be_is_refused(folder, settings, words):
    change_config(folder, **settings)

    with pytest.raises(CheckpointError) as error:
        GPT.from_pretrained(folder)

    assert words in str(error.value)


def test_all_problems_of_a_config_are_named_at_once(folder):
    content = json.loads((folder / "config.json").read_text())
    del content["n_embd"]
    (folder / "config.json").write_text(json.dumps(content | {"activation_function": "silu"}))

    with pytest.raises(
        CheckpointError, match=r"has 2 problems:\n.*activation_function='silu'.*\n.*n_embd is missing"
    ):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\xff"])
def test_a_damaged_config_is_no_crash(folder, content):
    (folder / "config.json").write_bytes(content.encode("latin-1"))

    with pytest.raises(CheckpointError, match=r"config\.json"):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize("n_bytes", [0, 7, 8, 500, 20_000])
def test_a_cut_file_is_no_crash(folder, n_bytes):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:n_bytes])

    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        GPT.from_pretrained(folder)


def test_a_config_without_weights_says_which_files_they_are(folder):
    (folder / "model.safetensors").unlink()

    with pytest.raises(CheckpointError, match=r"no weights\. They are one of model\.safetensors"):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize(
    "damage", ["missing file", "missing tensor", "outside", "no name", "no map", "a number"]
)
def test_an_index_of_shards_must_agree_with_them(tmp_path, damage):
    peer().save_pretrained(tmp_path / "theirs", max_shard_size="30KB")
    index = tmp_path / "theirs" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    first = content["weight_map"]["transformer.wte.weight"]
    if damage == "missing file":
        (index.parent / first).unlink()
    if damage == "missing tensor":
        content["weight_map"]["transformer.h.99.ln_1.bias"] = first
    if damage == "outside":
        shutil.move(index.parent / first, tmp_path / first)
        content["weight_map"] = {
            name: f"../{file}" if file == first else file for name, file in content["weight_map"].items()
        }
    if damage == "no name":
        content["weight_map"]["transformer.wte.weight"] = "\ud800"
    if damage == "no map":
        del content["weight_map"]
    elif damage == "a number":
        content["weight_map"]["transformer.wte.weight"] = 3
    index.write_text(json.dumps(content))
    reason = {
        "missing file": "cannot be read",
        "missing tensor": r"disagree on transformer\.h\.99",
        "outside": "outside its folder",
        "no name": r"outside its folder: '\\ud800'",
    }.get(damage, "no weight_map")

    with pytest.raises(CheckpointError, match=reason):
        GPT.from_pretrained(tmp_path / "theirs")


@pytest.mark.parametrize("name", ["n_layer", "vocab_size", "n_positions", "n_inner"])
@pytest.mark.parametrize("value", [20_000, 2**62, 2**63])
def test_a_model_far_larger_than_its_file_is_refused_at_once(folder, name, value):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(CheckpointError, match="numbers, and its configuration describes a model of"):
        GPT.from_pretrained(folder)


def test_a_tensor_that_two_files_hold_is_refused(tmp_path):
    peer().save_pretrained(tmp_path / "theirs", max_shard_size="30KB")
    first, second = sorted((tmp_path / "theirs").glob("*.safetensors"))[:2]
    twice = next(iter(load_file(first)))
    save_file(load_file(second) | {twice: load_file(first)[twice]}, second)
    with pytest.raises(CheckpointError, match=rf"{re.escape(twice)} is in .* and in another file beside it"):
        GPT.from_pretrained(tmp_path / "theirs")


# ---- what is read, and how much at a time ----


def test_every_tensor_is_read_exactly_once(folder):
    stored = open_model(folder)
    names = []

    class Counting(SafetensorsWeights):
        def read(self, name):
            names.append(name)
            return super().read(name)

    build(replace(stored, weights=Counting(folder, [folder / "model.safetensors"])))

    assert sorted(names) == sorted(stored.weights.shapes)


def test_the_full_124m_shape_gives_the_logits_of_transformers(tmp_path):
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:  # biases 0 and norms 1 would hide that one is left out
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    theirs.save_pretrained(tmp_path / "theirs")
    expected = logits_of(theirs)
    del theirs

    ours = GPT.from_pretrained(tmp_path / "theirs")

    assert ours.n_parameters == 124_439_808
    assert config_to(ours.config) == config_to(gpt2("124M")) | dict.fromkeys(
        ("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.1
    )
    torch.testing.assert_close(logits_of(ours), expected, **FLOAT32)


# ---- the way back ----


def exported(model, tokenizer, folder):
    folder.mkdir()
    write_huggingface_files(model, tokenizer, folder)
    return folder


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_what_is_exported_gives_the_same_logits_in_transformers(tmp_path, tied):
    model = tiny_model(tiny_config(vocab_size=V, context_length=CONTEXT, tied_embeddings=tied, norm_eps=1e-3))

    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        exported(model, None, tmp_path / "out"), output_loading_info=True
    )

    assert theirs.dtype == torch.float64
    assert not any(report.values()), report
    assert (theirs.lm_head.weight is theirs.transformer.wte.weight) == tied
    torch.testing.assert_close(logits_of(theirs.eval()), logits_of(model), **FLOAT64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_round_trip_through_their_format_is_the_identity(tmp_path, dtype):
    model = tiny_model(tiny_config(dropout=0.25, d_ff=7)).to(dtype)

    again = GPT.from_pretrained(exported(model, None, tmp_path / "out"))

    assert again.config == model.config
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=0)


TEXTS = ["Hello world", "  two spaces,\n\n\ttabs and naïve 😀 Ünïcode 12345", "it's we'll", "", " ", "日本語"]


@pytest.mark.parametrize("special", [(), ("<|endoftext|>",), ("<|endoftext|>", "<|user|>", "<|end|>")])
def test_the_tokenizer_that_is_exported_gives_the_same_ids_in_transformers(tmp_path, special):
    tokenizer = BPETokenizer.train(
        ["Hello world, it's the world of 12345 naïve words. " * 3],
        256 + 23 + len(special),
        special_tokens=special,
    )
    model = GPT(tiny_config(vocab_size=tokenizer.vocab_size + 3))

    folder = exported(model, tokenizer, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)

    assert len(theirs) == tokenizer.vocab_size
    assert theirs.eos_token_id == theirs.bos_token_id == tokenizer.end_of_text_id
    assert theirs.model_max_length == model.config.context_length
    for text in [*TEXTS, *(f"a{name}b {name}{name}" for name in special)]:
        ids = tokenizer.encode(text, allow_special=True)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    ends = transformers.GenerationConfig.from_pretrained(folder)
    assert ends.eos_token_id == tokenizer.end_of_text_id
    assert load_pretrained(folder)[1].fingerprint == tokenizer.fingerprint


def test_gpt2s_own_tokenizer_survives_both_ways(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(cache))
    tokenizer = BPETokenizer.gpt2()
    folder = exported(GPT(tiny_config(vocab_size=50_257, d_model=6)), tokenizer, tmp_path / "out")

    theirs = transformers.AutoTokenizer.from_pretrained(folder)

    for text in TEXTS:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert load_pretrained(folder)[1].fingerprint == tokenizer.fingerprint


def test_a_tokenizer_json_that_transformers_saved_is_read(tmp_path):
    tokenizer = BPETokenizer.train(["Hello world, hello words. " * 3], 256 + 17)
    folder = exported(GPT(tiny_config(vocab_size=tokenizer.vocab_size)), tokenizer, tmp_path / "out")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    shutil.copy(tmp_path / "again" / "tokenizer.json", folder)

    assert load_pretrained(folder)[1].fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["model"].update(type="Unigram"), "not GPT-2's byte-level BPE: Unigram"),
        (lambda t: t["pre_tokenizer"].update(type="Whitespace"), "not GPT-2's byte-level BPE"),
        (lambda t: t["pre_tokenizer"].update(add_prefix_space=True), "add_prefix_space"),
        (lambda t: t.update(normalizer={"type": "NFC"}), "NFC"),
        (lambda t: t.pop("model"), "not a whole"),
        (lambda t: t["model"]["merges"].reverse(), "no vocabulary of byte-level BPE|another way"),
        (lambda t: t["model"]["vocab"].update({"!": None}), "not a whole|no vocabulary"),
        (lambda t: t["model"]["vocab"].update({"!": 255, "\u0143": 0}), "another way|no vocabulary"),
    ],
)
def test_a_tokenizer_that_is_not_gpt2s_is_refused_but_the_model_loads(tmp_path, change, words):
    tokenizer = BPETokenizer.train(["Hello world, hello words. " * 3], 256 + 17)
    folder = exported(GPT(tiny_config(vocab_size=tokenizer.vocab_size)), tokenizer, tmp_path / "out")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    content = json.loads((tmp_path / "again" / "tokenizer.json").read_text())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "vocab.json").unlink()

    with pytest.raises(CheckpointError, match=words):
        load_pretrained(folder)
    assert GPT.from_pretrained(folder).config.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"norm": "rmsnorm"}, ["norm='rmsnorm'"]),
        ({"positions": "rope", "bias": False}, ["positions='rope'", "bias=False"]),
        ({"feedforward": "swiglu"}, ["feedforward='swiglu'"]),
        ({"n_kv_heads": 3}, ["n_kv_heads=3"]),
        ({"attention_window": 5}, ["attention_window=5"]),
        ({"qkv_bias": False}, ["qkv_bias=False"]),
    ],
)
def test_a_model_that_their_gpt2_cannot_be_is_refused_naming_the_fields(choices, words):
    with pytest.raises(ConfigError) as error:
        config_to(tiny_config(**choices))

    assert str(error.value).count("\n  ") == len(words)
    assert all(word in str(error.value) for word in words)


def test_shares_of_dropout_that_differ_are_no_single_number():
    theirs = {**config_to(tiny_config()), "embd_pdrop": 0.3, "attn_pdrop": 0.3, "resid_pdrop": 0.2}

    assert config_from(theirs, "config.json").dropout == 0.0


def test_a_config_silent_on_dropout_means_what_transformers_takes_it_to_mean():
    theirs = config_to(tiny_config())
    for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop"):
        del theirs[name]

    assert config_from(theirs, "config.json").dropout == transformers.GPT2Config().attn_pdrop == 0.1


def test_what_is_exported_says_what_other_readers_ask(tmp_path):
    """Readers other than transformers take the class, the dtype and the end of a text from here."""
    tokenizer = BPETokenizer.train(["the quick brown fox"], vocab_size=260)
    model = tiny_model(tiny_config(vocab_size=tokenizer.vocab_size)).to(torch.bfloat16)

    folder = exported(model, tokenizer, tmp_path / "out")

    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert config["torch_dtype"] == "bfloat16"
    assert config["bos_token_id"] == config["eos_token_id"] == tokenizer.end_of_text_id
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "GPT2Tokenizer"
    assert settings["model_max_length"] == model.config.context_length
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}, "transformers refuses files that do not say it"


def test_a_tokenizer_of_characters_has_no_counterpart(tmp_path):
    with pytest.raises(ConfigError, match=r"kind 'char' .*--no-tokenizer"):
        exported(GPT(tiny_config()), CharTokenizer.train("abc"), tmp_path / "out")


def test_a_disk_that_is_full_is_an_error(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("glassgpt.pretrained.huggingface_export.save_file", full)
    with pytest.raises(CheckpointError, match="Is the disk full"):
        exported(GPT(tiny_config()), None, tmp_path / "out")


@pytest.mark.parametrize("token_id", [None, "7", [7], 1.5])
def test_a_vocabulary_with_ids_that_are_no_numbers_is_refused(token_id, tmp_path):
    tokenizer = BPETokenizer.train(["Hello world, hello words. " * 3], 256 + 17)
    folder = exported(GPT(tiny_config(vocab_size=tokenizer.vocab_size)), tokenizer, tmp_path / "out")
    ids = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(ids | {"!": token_id}))
    with pytest.raises(
        CheckpointError, match=r"vocab\.json is no vocabulary|numbers its tokens in another way"
    ):
        load_pretrained(folder)
