"""One id a character."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import TokenizerError
from glassgpt.tokenizers import CharTokenizer, pieces


@given(st.text(min_size=1))
@settings(deadline=None)
def test_the_training_text_comes_back_exactly(text):
    tokenizer = CharTokenizer.train(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocab_size == len(set(text))


def test_ids_follow_the_sorted_characters():
    tokenizer = CharTokenizer.train(["dcb", "ba🌍"])
    assert tokenizer.alphabet == "abcd🌍"
    assert tokenizer.encode("bad🌍") == [1, 0, 3, 4]
    assert pieces(tokenizer, "a🌍") == ["a", "🌍"]


def test_an_unknown_character_is_named_with_its_position():
    tokenizer = CharTokenizer.train("abc")
    with pytest.raises(TokenizerError, match=r"'é' \(U\+00E9\) at position 2 is .* text: 2\)"):
        tokenizer.encode("abéxé")
    with pytest.raises(TokenizerError, match=r"position 3 is not among the 3 .* text: 1\)\. Train"):
        tokenizer.encode("abcd")


def test_it_has_no_special_tokens():
    tokenizer = CharTokenizer.train("<|endoftext|>")
    assert tokenizer.special_tokens == {}
    assert tokenizer.end_of_text_id is None
    assert len(tokenizer.encode("<|endoftext|>", allow_special=True)) == len("<|endoftext|>")


def test_bad_input_is_refused():
    with pytest.raises(TokenizerError, match="no text to learn"):
        CharTokenizer.train([])
    with pytest.raises(TokenizerError, match="lone surrogate"):
        CharTokenizer.train("\ud800")
    with pytest.raises(TokenizerError, match="lone surrogate"):
        CharTokenizer.train("a").encode("a\udfff")
    with pytest.raises(TokenizerError, match=r"each character once, at least one; this one has 2, 1 of them"):
        CharTokenizer("aa")
    with pytest.raises(TokenizerError, match=r"Token id 3 is outside vocab_size=3 \(valid: 0–2\)"):
        CharTokenizer.train("abc").decode([0, 3])
