"""GPT-2's own vocabulary: equal to tiktoken's, id for id."""

import shutil

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext.openai_public import r50k_pat_str

from glassgpt.by_hand import bpe as by_hand
from glassgpt.errors import TokenizerError
from glassgpt.tokenizers import BPETokenizer, bpe


@pytest.fixture(scope="module")
def _gpt2():
    return {}


@pytest.fixture
def ours(cache, _gpt2):
    if "ours" not in _gpt2:
        _gpt2["ours"] = BPETokenizer.gpt2()
    return _gpt2["ours"]


@pytest.fixture
def theirs(cache, _gpt2):
    if "theirs" not in _gpt2:
        folder = cache / "openai" / "gpt2"
        ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
        _gpt2["theirs"] = tiktoken.Encoding(
            "gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50_256}
        )
    return _gpt2["theirs"]


def test_it_has_gpt2s_tokens(ours, theirs):
    assert ours.vocab_size == 50_257
    assert ours.end_of_text_id == 50_256
    every_id = range(ours.vocab_size)
    assert [ours.decode_bytes([i]) for i in every_id] == [
        theirs.decode_single_token_bytes(i) for i in every_id
    ]


@pytest.mark.parametrize(
    "name", ["tinyshakespeare.txt", "the-verdict.txt", "sms-spam.tsv", "instruction-data.json"]
)
def test_ids_of_real_texts_equal_tiktokens(ours, theirs, cache, name):
    path = cache / "corpora" / name
    if not path.is_file():
        pytest.skip(f"needs {name} in the cache's corpora folder")
    text = path.read_text(encoding="utf-8")
    assert ours.encode(text) == theirs.encode_ordinary(text)
    assert ours.decode(ours.encode(text)) == text


def test_ids_of_random_unicode_equal_tiktokens_and_those_by_hand(ours, theirs):
    id_of_byte = [ours.byte_order.index(byte) for byte in range(256)]

    @given(st.text() | st.text(alphabet="the' \n12é日🌍!\u0301"))
    @settings(deadline=None, max_examples=200)
    def check(text):
        ids = ours.encode(text)
        assert ids == theirs.encode_ordinary(text)
        assert ids == by_hand.encode(text, ours.merges, id_of_byte)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bpe, "_CHUNK_CHARACTERS", 1)
            assert ids == ours.encode(text)

    check()


def test_every_character_there_is_equals_tiktokens(ours, theirs):
    text = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF)
    assert ours.encode(text) == theirs.encode_ordinary(text)


def test_special_tokens_equal_tiktokens(ours, theirs):
    text = "one  <|endoftext|>\n<|endoftext|>two"
    assert ours.encode(text) == theirs.encode_ordinary(text)
    assert ours.encode(text, allow_special=True) == theirs.encode(text, allowed_special="all")


def test_it_is_saved_and_loaded(ours, tmp_path):
    ours.save(tmp_path / "gpt2.json")
    loaded = BPETokenizer.load(tmp_path / "gpt2.json")
    assert loaded.fingerprint == ours.fingerprint
    assert loaded.encode("Grüße, world") == ours.encode("Grüße, world")


def test_missing_files_are_named_with_their_origin(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    with pytest.raises(TokenizerError, match=r"openai/gpt2/vocab\.bpe.*OpenAI's GPT-2 release"):
        BPETokenizer.gpt2()


@pytest.mark.parametrize("name", ["vocab.bpe", "encoder.json"])
def test_an_altered_file_is_refused(cache, tmp_path, monkeypatch, name):
    shutil.copytree(cache / "openai", tmp_path / "openai", copy_function=shutil.copyfile)
    (tmp_path / "openai").chmod(0o755)
    path = tmp_path / "openai" / "gpt2" / name
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    with pytest.raises(TokenizerError, match=f"{name} is not the file that OpenAI published"):
        BPETokenizer.gpt2()
