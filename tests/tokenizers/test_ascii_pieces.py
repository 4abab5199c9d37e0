"""Pieces counted by array operations: those that the pattern cuts, whatever the text."""

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glassgpt.tokenizers.ascii_pieces import ascii_pieces
from glassgpt.tokenizers.pattern import cut


def counted(texts):
    """All pieces: those that were counted, and those of the words that were left."""
    pieces, words = ascii_pieces(texts)
    return pieces + Counter(piece for word in words for piece in cut(word))


def cut_by_the_pattern(texts):
    return Counter(piece for text in texts for piece in cut(text))


@given(st.lists(st.text(alphabet="a's1! \n\tltvremd"), max_size=5))
@example(["'", "s"])
@example(["it's", "'sad 'llama I'veal"])
@example(["!'s", " 's", "\n's", "a''s", "1's's"])
@example(["a  ", "b"])
@example(["a \n", " b", "\t"])
@settings(deadline=None, max_examples=1000)
def test_ascii_is_cut_as_the_pattern_cuts_it(texts):
    assert ascii_pieces(texts) == (cut_by_the_pattern(texts), [])


@given(st.lists(st.text(alphabet=st.characters(max_codepoint=127)), max_size=3))
@settings(deadline=None, max_examples=300)
def test_every_ascii_character_is_of_the_kind_that_it_is_to_the_pattern(texts):
    assert counted(texts) == cut_by_the_pattern(texts)


@given(st.lists(st.text(alphabet="as' \n!é٣日🌍\u0301\x00\x1c\x85\xa0\u3000"), max_size=5))
@example(["a\u3000  b", "\u3000  b"])
@settings(deadline=None, max_examples=1000)
def test_words_with_other_characters_are_left_whole(texts):
    assert counted(texts) == cut_by_the_pattern(texts)
    assert counted([*texts, "plain text. " * 9]) == cut_by_the_pattern([*texts, "plain text. " * 9])


@pytest.mark.parametrize("length", range(1, 20))
def test_pieces_of_every_length_are_told_apart(length):
    texts = ["a" * length, "a" * (length - 1) + "b", " " + "a" * length, "é" + "a" * length]
    assert counted(texts * 3) == cut_by_the_pattern(texts * 3)


def test_only_words_with_other_characters_are_left():
    assert ascii_pieces(["the café's old\n\n naïve door"])[1] == [" café's", "\n\n naïve"]


def test_text_in_another_alphabet_is_left_to_the_pattern():
    pieces, words = ascii_pieces(["Всё смешалось в доме, said he.", "日本"])
    assert not pieces
    assert words == ["Всё", " смешалось", " в", " доме,", " said", " he.", "日本"]


@pytest.mark.parametrize("name", ["tinyshakespeare.txt", "the-verdict.txt"])
def test_a_book_is_cut_as_the_pattern_cuts_it(cache, name):
    text = (cache / "corpora" / name).read_text(encoding="utf-8")
    assert counted([text[:200_003], text[200_003:]]) == cut_by_the_pattern([text[:200_003], text[200_003:]])
