"""Counting: as many of each piece as the pattern cuts, whatever the texts and however little memory."""

import itertools
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glassgpt.tokenizers import piece_counts
from glassgpt.tokenizers.pattern import cut
from glassgpt.tokenizers.piece_counts import count_pieces


@pytest.mark.parametrize("mostly_others", [0, 9], ids=["by the pattern", "by arrays"])
@given(st.lists(st.text(alphabet="a's1! \n\té🌍\u0301\0\x1c\x85\u3000"), max_size=5))
@example(["\0", "\0\0 a\0 plain"])
@settings(deadline=None, max_examples=100)
def test_pieces_are_counted_as_the_pattern_cuts_them(mostly_others, texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piece_counts, "_MOSTLY_OTHERS", mostly_others)
        assert count_pieces(texts) == Counter(piece for text in texts for piece in cut(text))


def test_counting_in_batches_and_with_little_memory_changes_nothing(monkeypatch):
    text = "".join(f" {letter}{digit}" for letter in "éèêëē" for digit in "12345") * 3  # 25 words, 10 pieces
    whole = count_pieces(text)
    cut_words = piece_counts._cut_words
    n_words = []

    def watched(words, pieces):
        n_words.append(len(words))
        cut_words(words, pieces)

    monkeypatch.setattr(piece_counts, "_cut_words", watched)
    monkeypatch.setattr(piece_counts, "_BATCH_CHARACTERS", 2)
    monkeypatch.setattr(piece_counts, "MAX_PIECES", 11)
    assert count_pieces(text) == whole == Counter(cut(text))
    assert max(n_words) == 12
    assert len(n_words) > 1


def test_batches_are_full_whatever_the_sizes_of_texts(monkeypatch):
    texts = ["one two three", "", "a", "b c", "four five six seven", "d"]
    sizes = []
    cut_ascii = piece_counts.cut_ascii

    def watched(batch):
        sizes.append(sum(map(len, batch)))
        return cut_ascii(batch)

    monkeypatch.setattr(piece_counts, "cut_ascii", watched)
    monkeypatch.setattr(piece_counts, "_BATCH_CHARACTERS", 4)
    assert count_pieces(texts) == Counter(piece for text in texts for piece in cut(text))
    assert sum(sizes) == sum(map(len, texts))
    assert all(4 <= size < 4 + len("three") + 4 for size in sizes[:-1])


def test_the_rarest_pieces_are_forgotten_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(piece_counts, "MAX_PIECES", 3)
    texts = (" common" * 5 + f" rare{letter} " + " usual" * 2 for letter in "abcdefg")
    assert count_pieces(texts).keys() >= {" common"}
    assert len(count_pieces(f" {letter * 5}" for letter in "abcdefg")) <= 3


@pytest.mark.parametrize("word", [" plain{}", " é{}"])
def test_too_many_are_forgotten_before_the_last_text(monkeypatch, word):
    monkeypatch.setattr(piece_counts, "MAX_PIECES", 50)
    monkeypatch.setattr(piece_counts, "_BATCH_CHARACTERS", 1)
    cut_words, n_pieces = piece_counts._cut_words, []

    def watched(words, pieces):
        n_pieces.append(len(words) + len(pieces))
        cut_words(words, pieces)

    monkeypatch.setattr(piece_counts, "_cut_words", watched)
    letters = itertools.product("abcdefgh", repeat=3)
    count_pieces(word.format("".join(some)) for some in letters)
    assert max(n_pieces) == 51


def test_pieces_are_forgotten_in_the_order_of_their_counts(monkeypatch):
    class Watched(Counter):
        n_passes = 0

        def items(self):
            self.n_passes += 1
            assert self.n_passes < 7, "this does not end"
            return super().items()

    monkeypatch.setattr(piece_counts, "MAX_PIECES", 3)
    pieces = Watched({"a": 2, "b": 3, "c": 5, "d": 5, "e": 13})
    piece_counts._cut_words(Counter(), pieces)
    assert pieces == {"c": 5, "d": 5, "e": 13}


def test_every_piece_of_a_large_vocabulary_is_kept():
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = {"".join(word) for word in itertools.islice(itertools.product(letters, repeat=4), 50_021)}
    assert count_pieces(f" {word}" for word in words).keys() == {f" {word}" for word in words}


@pytest.mark.parametrize("length", range(1, 20))
def test_pieces_of_every_length_are_told_apart(length):
    texts = ["a" * length, "a" * (length - 1) + "b", " " + "a" * length, "é" + "a" * length] * 3
    assert count_pieces(texts) == Counter(piece for text in texts for piece in cut(text))


def test_a_book_is_counted_as_the_pattern_cuts_it(cache):
    text = (cache / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    assert count_pieces(text) == Counter(cut(text))
