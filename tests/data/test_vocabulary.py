"""The tokenizer that a name stands for."""

import pytest

from glassgpt.data import Corpus, make_tokenizer
from glassgpt.errors import TokenizerError
from glassgpt.tokenizers import BPETokenizer, CharTokenizer

# In order, the last tenth is held out: only there is the word zyzzyva, again and again.
TRAIN, HELD_OUT = "the cat sat on the mat. " * 90, "zyzzyva " * 27
CORPUS = Corpus.of([TRAIN + HELD_OUT])


def test_a_bpe_tokenizer_never_learns_from_held_out_text():
    tokenizer = make_tokenizer("bpe", CORPUS, vocab_size=300, val_fraction=0.1, progress=False)
    assert len(tokenizer.encode(" cat")) == 1, "what is trained on is learnt"
    assert len(tokenizer.encode(" zyzzyva")) == len(" zyzzyva"), "what is held out stays bytes"


def test_a_character_tokenizer_knows_every_character_of_the_corpus():
    tokenizer = make_tokenizer("char", CORPUS, vocab_size=0, val_fraction=0.1, progress=False)
    assert isinstance(tokenizer, CharTokenizer)
    assert tokenizer.decode(tokenizer.encode(TRAIN + HELD_OUT)) == TRAIN + HELD_OUT


def test_gpt2_is_openai_s_vocabulary(cache, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(cache))
    assert make_tokenizer("gpt2", CORPUS, vocab_size=7, val_fraction=0.1).vocab_size == 50_257


def test_a_path_is_read(tmp_path):
    saved = BPETokenizer.train("some text", 260)
    saved.save(tmp_path / "mine.json")
    read = make_tokenizer(str(tmp_path / "mine.json"), CORPUS, vocab_size=7, val_fraction=0.1)
    assert read.fingerprint == saved.fingerprint


def test_a_name_that_stands_for_nothing_is_told_what_there_is_and_what_is_near(tmp_path):
    with pytest.raises(TokenizerError, match=r"'gpt-2'.*Did you mean gpt2\?.*bpe, char, gpt2, or the path"):
        make_tokenizer("gpt-2", CORPUS, vocab_size=7, val_fraction=0.1)
    with pytest.raises(TokenizerError, match=r"nowhere\.json'.*bpe, char, gpt2, or the path") as caught:
        make_tokenizer(str(tmp_path / "nowhere.json"), CORPUS, vocab_size=7, val_fraction=0.1)
    assert "Did you mean" not in str(caught.value)
