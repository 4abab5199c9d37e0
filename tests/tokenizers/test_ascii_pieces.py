"""Pieces found by array operations: those that the pattern cuts, in their order."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glassgpt.tokenizers import ascii_pieces
from glassgpt.tokenizers.ascii_pieces import bytes_per_character, cut_ascii
from glassgpt.tokenizers.pattern import cut


def cut_by_the_pattern(texts):
    return [piece for text in texts for piece in cut(text)]


def cut_by_arrays(texts):
    pieces = cut_ascii(texts)
    return [pieces.text(place) for place in range(len(pieces.starts))]


def finished(texts):
    """Pieces, and those of the words that were left."""
    pieces = cut_ascii(texts)
    return [
        piece
        for place, is_uncut in enumerate(pieces.is_uncut)
        for piece in (cut(pieces.text(place)) if is_uncut else [pieces.text(place)])
    ]


@given(st.lists(st.text(alphabet="a's1! \n\tltvremd"), max_size=5))
@example(["'", "s"])
@example(["it's", "'sad 'llama I'veal"])
@example(["I'm we're they'd you'll don't I've", "'real 'mad 'dust 'tis"])
@example(["!'s", " 's", "\n's", "a''s", "1's's"])
@example(["a  ", "b"])
@example(["a \n", " b", "\t"])
@settings(deadline=None, max_examples=1000)
def test_ascii_is_cut_as_the_pattern_cuts_it(texts):
    assert cut_by_arrays(texts) == cut_by_the_pattern(texts)


@given(st.lists(st.text(alphabet=st.characters(min_codepoint=1, max_codepoint=127)), max_size=3))
@settings(deadline=None, max_examples=300)
def test_every_ascii_character_is_of_the_kind_that_it_is_to_the_pattern(texts):
    assert cut_by_arrays(texts) == cut_by_the_pattern(texts)


@given(st.lists(st.text(alphabet="as' \n!é٣日🌍\u0301\x00\x1c\x85\xa0\u3000"), max_size=5))
@example(["a\u3000  b", "\u3000  b"])
@settings(deadline=None, max_examples=1000)
def test_words_with_other_characters_are_left_whole(texts):
    assert finished(texts) == cut_by_the_pattern(texts)


def test_the_example_of_the_docstring():
    text, marked = "it's  12am--\n\tno", "it│'s│␣│␣12│am│--│\\n│\\t│no"
    assert "it's␣␣12am--\\n\\tno" in ascii_pieces.__doc__
    assert marked in ascii_pieces.__doc__
    shown = [
        piece.replace("\n", "\\n").replace("\t", "\\t").replace(" ", "␣") for piece in cut_by_arrays([text])
    ]
    assert "│".join(shown) == marked


def test_only_words_with_other_characters_are_left():
    pieces = cut_ascii(["the café's old\n\n naïve façade", "é, a door"])
    assert [pieces.text(place) for place in np.flatnonzero(pieces.is_uncut)] == [
        " café's",
        "\n\n naïve façade",
        "é,",
    ]


def test_eight_bytes_are_the_piece_filled_up_with_zeros():
    pieces = cut_ascii(["a bcdefgh ijklmnopq"])
    assert pieces.eight_bytes(0).astype("<u8").tobytes() == b"a".ljust(8, b"\0") + b" bcdefgh" + b" ijklmno"
    assert pieces.eight_bytes(8).astype("<u8").tobytes() == bytes(8) + bytes(8) + b"pq".ljust(8, b"\0")


def test_pieces_are_told_apart_by_their_texts():
    texts = ["a b", "", "c", "", "é d e"]
    pieces = cut_ascii(texts)
    of_texts = [slice(*bounds) for bounds in itertools.pairwise(pieces.bounds)]
    found = ["".join(pieces.text(place) for place in range(len(pieces.starts))[part]) for part in of_texts]
    assert found == texts


@pytest.mark.parametrize(("texts", "n_bytes"), [([], 0), ([""], 0), (["ab", "c"], 1), (["é日", "ab"], 7 / 4)])
def test_bytes_per_character_tell_of_other_alphabets(texts, n_bytes):
    assert bytes_per_character(texts) == n_bytes


@pytest.mark.parametrize("name", ["tinyshakespeare.txt", "the-verdict.txt"])
def test_a_book_is_cut_as_the_pattern_cuts_it(cache, name):
    text = (cache / "corpora" / name).read_text(encoding="utf-8")
    texts = [text[:200_003], text[200_003:]]
    assert finished(texts) == cut_by_the_pattern(texts)
