"""A checkpoint in OpenAI's form gives the logits of transformers; both tables are whole."""

import json
import shutil

import pytest
import torch
import transformers

from glassgpt.by_hand.gpt2_stand_in import write_gpt2_checkpoint
from glassgpt.by_hand.sorted_table_writer import BLOCK_BYTES
from glassgpt.by_hand.sorted_table_writer import table as sorted_table
from glassgpt.by_hand.tf_checkpoint_writer import bundle_entry
from glassgpt.errors import CheckpointError
from glassgpt.model.config import ModelConfig, gpt2
from glassgpt.model.gpt import GPT
from glassgpt.pretrained import gpt2 as openai
from glassgpt.pretrained import huggingface, load_pretrained, open_checkpoint
from glassgpt.pretrained.name_map import places_for
from glassgpt.tokenizers import BPETokenizer
from tests.pretrained.peers import CONTEXT, DH, FAMILIES, V, every_family, some_ids

SMALL = {"n_vocab": V, "n_ctx": CONTEXT, "n_embd": 3 * DH, "n_head": 3, "n_layer": 2}


def hparams(family):
    n_layers, n_heads = FAMILIES[family]
    return {**SMALL, "n_embd": n_heads * DH, "n_head": n_heads, "n_layer": n_layers}


def their_model(folder):
    """The same weights in transformers, put there without our tables: its names, from OpenAI's names."""
    sizes = json.loads((folder / "hparams.json").read_text())
    config = transformers.GPT2Config(
        vocab_size=sizes["n_vocab"], n_positions=sizes["n_ctx"], n_embd=sizes["n_embd"],
        n_head=sizes["n_head"], n_layer=sizes["n_layer"], attn_implementation="eager",
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    checkpoint, used = open_checkpoint(folder), set()
    with torch.no_grad():
        for name, parameter in model.transformer.named_parameters():
            theirs = "model/" + name.replace("h.", "h", 1).replace(".", "/")
            for ours, openais in [("/weight", "/w"), ("/bias", "/b")]:
                theirs = theirs.replace(ours, openais)
            if "ln_" in theirs:
                theirs = theirs.removesuffix("w") + "g" if theirs.endswith("/w") else theirs
            theirs = theirs.removesuffix("/w") if theirs in ("model/wte/w", "model/wpe/w") else theirs
            used.add(theirs)
            parameter.copy_(torch.from_numpy(checkpoint.read_tensor(theirs).squeeze()).view(parameter.shape))
    assert used == {tensor.name for tensor in checkpoint.list_tensors()}
    return model


@torch.no_grad()
def both_logits(folder, dtype, token_ids):
    ours = GPT.from_pretrained(folder, dtype=dtype)
    return ours, ours(token_ids), their_model(folder).to(dtype)(token_ids).logits


# ---- the same logits ----


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-10), (torch.float32, 1e-4)],  # only rounding differs; 12 to 48 layers add it up
    ids=["float64", "float32"],
)
@every_family
def test_a_checkpoint_of_openai_gives_the_logits_of_transformers(family, dtype, tolerance, tmp_path):
    write_gpt2_checkpoint(tmp_path, hparams(family))

    ours, logits, expected = both_logits(tmp_path, dtype, some_ids())

    assert ours.config.n_layers == FAMILIES[family][0]
    assert ours.head.weight is ours.token_embedding.weight
    torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)


def test_the_full_124m_shape_gives_the_logits_of_transformers(tmp_path):
    write_gpt2_checkpoint(tmp_path, "124M")

    ours, logits, expected = both_logits(tmp_path, torch.float32, some_ids(50_257, rows=1))

    assert ours.config == gpt2("124M")
    assert ours.n_parameters == 124_439_808
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)  # 7 digits, logits of around 1
    assert expected.std() > 0.1


def test_weights_are_kept_in_float32_unless_asked_for_otherwise(tmp_path):
    write_gpt2_checkpoint(tmp_path, SMALL)

    assert {weight.dtype for weight in GPT.from_pretrained(tmp_path).parameters()} == {torch.float32}
    half = GPT.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}


# ---- the tables ----


@pytest.mark.parametrize("table", [openai.TABLE, huggingface.TABLE], ids=["openai", "huggingface"])
@pytest.mark.parametrize("n_layers", [1, 12, 48])
def test_a_table_fills_each_of_our_weights_exactly_once(table, n_layers):
    config = ModelConfig(vocab_size=V, context_length=CONTEXT, d_model=10, n_heads=2, n_layers=n_layers)
    ours = [name for name, _ in GPT.uninitialised(config, "meta").named_parameters()]

    assert sorted(place.ours for place in places_for(table, n_layers).values()) == sorted(ours)


@pytest.mark.parametrize("table", [openai.TABLE, huggingface.TABLE], ids=["openai", "huggingface"])
def test_a_layout_and_its_inverse_are_the_identity_without_a_copy(table):
    for place in places_for(table, 1).values():
        tensor = torch.randn(3, 5) if place.ours.endswith("proj.weight") else torch.randn(7)
        theirs = place.layout.to_theirs(tensor)
        assert place.layout.to_ours(theirs).equal(tensor)
        assert theirs.data_ptr() == tensor.data_ptr()
        assert place.layout.to_ours(theirs).data_ptr() == tensor.data_ptr()


def test_the_biases_of_queries_keys_and_values_are_in_both_tables():
    for table in (openai.TABLE, huggingface.TABLE):
        assert "blocks.{layer}.attention.qkv_proj.bias" in {place.ours for place in table.values()}


# ---- the folder ----


def test_the_vocabulary_beside_the_checkpoint_is_its_tokenizer(tmp_path, cache):
    write_gpt2_checkpoint(tmp_path, {**SMALL, "n_vocab": 50_257})
    for name in ("vocab.bpe", "encoder.json"):
        shutil.copy(cache / "openai" / "gpt2" / name, tmp_path)

    _, tokenizer = load_pretrained(tmp_path)

    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.fingerprint == BPETokenizer.gpt2().fingerprint


@pytest.mark.parametrize("there", [[], ["encoder.json"], ["vocab.bpe"]])
def test_a_checkpoint_without_a_whole_vocabulary_has_no_tokenizer(there, tmp_path):
    write_gpt2_checkpoint(tmp_path, SMALL)
    for name in there:
        (tmp_path / name).write_text("{}")

    assert load_pretrained(tmp_path)[1] is None


def test_a_tensor_that_no_model_has_is_refused(tmp_path):
    write_gpt2_checkpoint(tmp_path, SMALL)
    entry = bundle_entry("float32", (), 0, 0, bytes(4)).replace(b"\x08\x01", b"\x08\x07", 1)  # a string
    header = bytes.fromhex("08011a020801")
    index = sorted_table([(b"", header), (b"model/wte", entry)], BLOCK_BYTES)
    (tmp_path / "model.ckpt.index").write_bytes(index)

    with pytest.raises(CheckpointError, match=r"model/wte in .* holds string values, which no model of ours"):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "size"),
    [("gpt2", "124M"), ("gpt2-medium", "355M"), ("gpt2-large", "774M"), ("gpt2-xl", "1558M")],
)
def test_a_name_is_that_size_in_the_cache_or_says_how_to_get_it(name, size, tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CheckpointError, match=f"{name} is not in the cache.*glassgpt download gpt2 --size {size}$"
    ):
        GPT.from_pretrained(name)

    write_gpt2_checkpoint(tmp_path / "cache" / "openai" / "gpt2" / size, SMALL)

    assert GPT.from_pretrained(name).config.vocab_size == V


def test_a_download_that_was_broken_off_is_not_taken_for_a_model(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    folder = write_gpt2_checkpoint(tmp_path / "openai" / "gpt2" / "124M", SMALL)
    (folder / "model.ckpt.data-00000-of-00001").unlink()

    with pytest.raises(CheckpointError, match="not in the cache"):
        GPT.from_pretrained("gpt2")


def test_what_is_no_name_and_no_folder_is_told_the_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(
        CheckpointError, match=r"There is no model folder gpt3.* gpt2, gpt2-medium, gpt2-large, gpt2-xl"
    ):
        GPT.from_pretrained("gpt3")


def test_an_empty_folder_and_a_strange_file_are_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(CheckpointError, match=r"holds no model: neither config\.json"):
        GPT.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"notes\.txt is a file, but not one of \.pt"):
        GPT.from_pretrained(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_layer": 3}, ["missing     model/h2/attn/c_attn/b (45,), for blocks.2.attention.qkv_proj.bias"]),
        (
            {"n_layer": 1},
            ["unexpected  model/h1/attn/c_attn/b (45,)", "unexpected  model/h1/mlp/c_proj/w (1, 60, 15)"],
        ),
        (
            {"n_ctx": 23},
            ["shape       model/wpe: file (19, 15), needed (23, 15) for position_embedding.weight"],
        ),
        ({"n_embd": 18}, ["model/h0/attn/c_attn/w: file (1, 15, 45), needed (1, 18, 54)"]),
    ],
)
def test_hparams_that_do_not_fit_the_weights_are_explained(tmp_path, change, words):
    write_gpt2_checkpoint(tmp_path, SMALL)
    (tmp_path / "hparams.json").write_text(json.dumps(SMALL | change))

    with pytest.raises(CheckpointError) as error:
        GPT.from_pretrained(tmp_path)

    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"n_vocab": 61, "n_ctx": 19}', r"3 problems:\n.*n_embd is missing(.*\n)*.*n_layer is missing"),
        (json.dumps({**SMALL, "n_experts": 8}), "n_experts is unknown"),
        (json.dumps({**SMALL, "n_head": 4}), "not divisible by n_heads=4"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_hparams_that_are_none_are_no_crash(tmp_path, content, words):
    write_gpt2_checkpoint(tmp_path, SMALL)
    (tmp_path / "hparams.json").write_text(content)

    with pytest.raises(CheckpointError, match=words):
        GPT.from_pretrained(tmp_path)


def test_an_altered_tensor_is_found_while_it_is_loaded(tmp_path):
    write_gpt2_checkpoint(tmp_path, SMALL)
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)

    with pytest.raises(CheckpointError, match="was altered"):
        GPT.from_pretrained(tmp_path)
