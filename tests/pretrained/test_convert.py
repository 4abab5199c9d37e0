"""A model in another format is the same model, or nothing is left under its name."""

import json
import re

import pytest
import torch
import transformers

from glassgpt.by_hand.gpt2_stand_in import write_gpt2_checkpoint
from glassgpt.cli.main import main
from glassgpt.data import make_tokenizer, prepare, read_corpus
from glassgpt.errors import CheckpointError, ConfigError
from glassgpt.model.folder import save_model
from glassgpt.model.gpt import GPT
from glassgpt.pretrained import conversion, convert, load_pretrained
from glassgpt.storage import folder_problems
from glassgpt.tokenizers import BPETokenizer, CharTokenizer
from glassgpt.training.checkpoint import TrainState, save_checkpoint
from tests.model.tiny import EXACT, T, every_choice, tiny_config, tiny_ids, tiny_model

TOKENIZER = BPETokenizer.train(["The quick brown fox, the quick brown dog. "], 256 + 11)
FORMATS = ["glassgpt", "huggingface", "pt"]


def target_of(folder, form):
    return folder / ("model.pt" if form == "pt" else form)


@pytest.fixture
def model():
    return tiny_model(tiny_config(vocab_size=269, dropout=0.125)).float()


@pytest.fixture
def source(model, tmp_path):
    save_model(model, TOKENIZER, tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("format", FORMATS)
def test_a_model_in_16_bits_is_converted_to_the_last_bit(tmp_path, format, dtype):
    model = tiny_model(tiny_config(vocab_size=269, d_model=66, n_heads=3)).to(dtype)
    save_model(model, TOKENIZER, tmp_path / "source")

    convert(tmp_path / "source", target_of(tmp_path, format), format)

    again = load_pretrained(target_of(tmp_path, format))[0].state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("last", FORMATS)
@pytest.mark.parametrize("first", FORMATS)
def test_every_format_leads_to_every_other_and_nothing_is_lost(source, model, tmp_path, first, last):
    convert(source, target_of(tmp_path / "1", first), first)
    done = convert(target_of(tmp_path / "1", first), target_of(tmp_path / "2", last), last)

    again, tokenizer = load_pretrained(target_of(tmp_path / "2", last))

    assert again.config == model.config
    torch.testing.assert_close(again.state_dict(), model.state_dict(), **EXACT)
    assert again.head.weight is again.token_embedding.weight
    assert tokenizer.fingerprint == TOKENIZER.fingerprint
    assert done.difference < 1e-6  # the same bits; where they lie in memory can change the order of sums
    assert done.n_parameters == model.n_parameters
    assert done.n_logits == 2 * 17 * 269
    assert list((tmp_path / "2").iterdir()) == [target_of(tmp_path / "2", last)]


@every_choice
def test_a_pt_file_keeps_every_choice_of_a_model(choices, tmp_path):
    model = tiny_model(tiny_config(**choices, tied_embeddings=False))
    save_model(model, None, tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "model.pt", "pt")

    again, tokenizer = load_pretrained(tmp_path / "model.pt")

    assert (again.config, tokenizer) == (model.config, None)
    torch.testing.assert_close(again.state_dict(), model.state_dict(), **EXACT)


def test_openais_format_converts_to_what_transformers_opens(tmp_path):
    hparams = {"n_vocab": 61, "n_ctx": 19, "n_embd": 15, "n_head": 3, "n_layer": 2}
    write_gpt2_checkpoint(tmp_path / "openai", hparams)
    convert(tmp_path / "openai", tmp_path / "theirs", "huggingface")

    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs").eval()
    token_ids = tiny_ids(tokens=T) % 61

    with torch.no_grad():
        expected = GPT.from_pretrained(tmp_path / "openai")(token_ids)
        torch.testing.assert_close(theirs(token_ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_pt_file_holds_tensors_and_plain_values_only(source, model, tmp_path):
    convert(source, tmp_path / "model.pt", "pt")

    content = torch.load(tmp_path / "model.pt", weights_only=True)

    assert content.keys() == {"format", "model", "weights", "tokenizer"}
    assert content["model"] == model.config.to_dict()
    assert content["weights"].keys() == dict(model.named_parameters()).keys()


def test_a_written_folder_agrees_with_its_manifest(source, tmp_path):
    convert(source, tmp_path / "theirs", "huggingface")

    assert folder_problems(tmp_path / "theirs") == []


# ---- state dicts of others ----


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_state_dict_beside_its_config_is_a_model(tmp_path, suffix, tied):
    model = tiny_model(tiny_config(tied_embeddings=tied))
    torch.save(model.state_dict(), tmp_path / f"model{suffix}")
    description = {"format": "glassgpt", "model": model.config.to_dict() | {"tied_embeddings": True}}
    (tmp_path / "config.json").write_text(json.dumps(description))

    again = GPT.from_pretrained(tmp_path / f"model{suffix}")

    assert again.config == model.config
    torch.testing.assert_close(again.state_dict(), model.state_dict(), **EXACT)


def test_a_state_dict_of_transformers_beside_its_config_is_a_model(source, model, tmp_path):
    convert(source, tmp_path / "theirs", "huggingface")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    torch.save(theirs.state_dict(), tmp_path / "theirs" / "weights.pt")

    again, tokenizer = load_pretrained(tmp_path / "theirs" / "weights.pt")

    torch.testing.assert_close(again.state_dict(), model.state_dict(), **EXACT)
    assert tokenizer.fingerprint == TOKENIZER.fingerprint


def test_a_state_dict_without_a_config_is_refused_unless_it_is_of_a_known_size(tmp_path):
    torch.save(tiny_model(tiny_config()).state_dict(), tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match=r"not of one of GPT-2's sizes\. Put its config\.json beside"):
        GPT.from_pretrained(tmp_path / "model.pt")


@pytest.mark.parametrize("content", [3, {"a": 1}, [torch.zeros(2)], {"format": "glassgpt", "model": {}}])
def test_a_pt_file_that_is_no_model_is_no_crash(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match=r"no state dict|not a whole model"):
        GPT.from_pretrained(tmp_path / "model.pt")


@pytest.mark.parametrize("n_bytes", [0, 1, 100, 5_000])
def test_a_pt_file_that_is_cut_is_no_crash(source, tmp_path, n_bytes):
    convert(source, tmp_path / "model.pt", "pt")
    (tmp_path / "model.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:n_bytes])

    with pytest.raises(CheckpointError, match="cannot be read as tensors"):
        GPT.from_pretrained(tmp_path / "model.pt")


# ---- what is refused ----


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("value", [9.0, float("nan")])
def test_weights_that_do_not_come_back_the_same_get_no_name(source, tmp_path, monkeypatch, form, value):
    """The writing is sound; so what was read again is damaged before it is compared."""
    logits, seen = conversion._logits, []

    @torch.no_grad()
    def damaged_at_the_second_time(model):
        if seen:
            model.blocks[1].attention.qkv_proj.bias[-1] = value
        seen.append(model)
        return logits(model)

    monkeypatch.setattr(conversion, "_logits", damaged_at_the_second_time)

    with pytest.raises(CheckpointError, match=r"gives logits that differ by (\d|nan)"):
        convert(source, target_of(tmp_path / "out", form), form)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_tokenizer_that_does_not_come_back_the_same_gets_no_name(source, tmp_path, monkeypatch):
    other = BPETokenizer.train(["Another text altogether. "], 256 + 5)
    monkeypatch.setattr(conversion, "read_model_files", lambda folder: (GPT.from_pretrained(source), other))

    with pytest.raises(CheckpointError, match="comes back with another tokenizer"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["source", "source/inside", "."])
def test_the_source_is_never_overwritten(source, target, monkeypatch):
    monkeypatch.chdir(source.parent)

    with pytest.raises(ConfigError, match="is where the source lies"):
        convert("source", target, "huggingface")

    assert folder_problems(source) == []


def test_a_folder_with_other_things_is_refused_and_kept(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")

    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        convert(source, tmp_path / "out")

    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.fixture
def dataset(tmp_path):
    """A prepared dataset: it has a manifest of ours, as a model folder has."""
    (tmp_path / "text.txt").write_text("The quick brown fox. " * 40)
    corpus = read_corpus(str(tmp_path / "text.txt"))
    prepare(corpus, tmp_path / "dataset", make_tokenizer("char", corpus, vocab_size=0, val_fraction=0.1))
    return tmp_path / "dataset"


@pytest.mark.parametrize("form", ["glassgpt", "huggingface"])
def test_a_prepared_dataset_is_refused_and_kept(source, dataset, form):
    with pytest.raises(CheckpointError, match=r"dataset would be replaced.* move it away"):
        convert(source, dataset, form)

    assert folder_problems(dataset) == []
    assert (dataset / "dataset.json").is_file()


@pytest.mark.parametrize("form", ["glassgpt", "huggingface"])
def test_a_checkpoint_of_a_run_is_refused_and_kept(source, tmp_path, form):
    model = tiny_model(tiny_config())
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint = save_checkpoint(
        tmp_path / "run", model, None, optimizer, TrainState(step=7, val_loss=1.0, best_val_loss=1.0)
    )

    with pytest.raises(
        CheckpointError, match="step_000007 would be replaced, but holds a checkpoint of a run"
    ):
        convert(source, checkpoint, form)

    assert folder_problems(checkpoint) == []
    assert (checkpoint / "state.json").is_file()


@pytest.mark.parametrize("after_a_crash", [False, True])
@pytest.mark.parametrize(("first", "then"), [("glassgpt", "huggingface"), ("huggingface", "glassgpt")])
def test_a_model_in_another_format_is_refused_and_kept(source, tmp_path, first, then, after_a_crash):
    target = tmp_path / "out"
    convert(source, target, first)
    config = (target / "config.json").read_bytes()
    if after_a_crash:  # between the two renames of a replacement
        target.rename(tmp_path / ".out.previous")

    with pytest.raises(
        CheckpointError, match=rf"holds a model in the format {first}, not a model in the format {then}\."
    ):
        convert(source, target, then)

    assert (target / "config.json").read_bytes() == config
    assert folder_problems(target) == []


@pytest.mark.parametrize("form", FORMATS)
def test_one_of_the_same_format_is_replaced(source, tmp_path, form):
    save_model(tiny_model(tiny_config(n_layers=1)), None, tmp_path / "other")
    target = target_of(tmp_path / "out", form)
    convert(tmp_path / "other", target, form)

    convert(source, target, form)

    assert load_pretrained(target)[0].config == load_pretrained(source)[0].config


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("content", ["a text", {"weight": torch.ones(3)}, {"format": torch.ones(3)}])
def test_a_file_that_is_no_pt_of_ours_is_refused_and_kept(source, tmp_path, suffix, content):
    target = tmp_path / f"mine{suffix}"
    if isinstance(content, str):
        target.write_text(content)
    else:
        torch.save(content, target)
    before = target.read_bytes()

    with pytest.raises(CheckpointError, match=r"was not written by GlassGPT.* move it away"):
        convert(source, target, "pt")

    assert target.read_bytes() == before


def test_what_must_be_kept_is_refused_before_the_model_is_read(source, dataset, tmp_path, monkeypatch):
    (tmp_path / "mine.pt").write_text("a text")
    monkeypatch.setattr(conversion, "load_pretrained", lambda *_, **__: pytest.fail("read in vain"))

    for target, form in [(dataset, "glassgpt"), (tmp_path / "mine.pt", "pt")]:
        with pytest.raises(CheckpointError, match="would be replaced"):
            convert(source, target, form)
    with pytest.raises(ConfigError, match=r"a name that ends in \.pt"):
        convert(source, tmp_path / "out", "pt")


def test_an_unknown_format_and_a_folder_for_a_file_are_refused(source, tmp_path):
    with pytest.raises(ConfigError, match="'onnx' is not one of glassgpt, huggingface, pt"):
        convert(source, tmp_path / "out", "onnx")
    with pytest.raises(ConfigError, match=r"a name that ends in \.pt"):
        convert(source, tmp_path / "out", "pt")


def test_a_model_that_cannot_be_theirs_leaves_nothing(tmp_path):
    save_model(tiny_model(tiny_config(norm="rmsnorm")), None, tmp_path / "source")

    with pytest.raises(ConfigError, match="norm='rmsnorm'"):
        convert(tmp_path / "source", tmp_path / "out", "huggingface")

    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# ---- the command ----


def test_the_command_converts_and_says_how_sure_it_is(source, tmp_path, capsys):
    assert main(["convert", str(source), str(tmp_path / "out"), "--format", "huggingface"]) == 0

    assert re.search(r"logits differ from the original's by at most [\de.-]+\.\n", capsys.readouterr().out)
    assert load_pretrained(tmp_path / "out")[1].fingerprint == TOKENIZER.fingerprint


def test_a_tokenizer_that_is_not_theirs_can_be_left_out(tmp_path, capsys):
    save_model(tiny_model(tiny_config()), CharTokenizer.train("abc"), tmp_path / "source")
    arguments = ["convert", str(tmp_path / "source"), str(tmp_path / "out"), "--format", "huggingface"]

    assert main(arguments) == 2
    assert "--no-tokenizer" in capsys.readouterr().err
    assert main([*arguments, "--no-tokenizer"]) == 0
    assert load_pretrained(tmp_path / "out")[1] is None


@pytest.mark.parametrize("form", FORMATS)
def test_any_format_can_be_generated_from(source, tmp_path, capsys, form):
    target = target_of(tmp_path / "out", form)
    convert(source, target, form)

    arguments = ["--prompt", "The quick", "--max-new-tokens", "5", "--temperature", "0", "--device", "cpu"]
    assert main(["generate", str(source), *arguments]) == 0
    expected = capsys.readouterr().out
    assert main(["generate", str(target), *arguments]) == 0

    assert capsys.readouterr().out == expected
