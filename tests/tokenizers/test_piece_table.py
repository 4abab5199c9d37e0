"""Ids from the table of pieces: those of tiktoken, whatever was met before and however small the table."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glassgpt.tokenizers import BPETokenizer, bpe, piece_table
from glassgpt.tokenizers.pattern import PATTERN, chunks
from glassgpt.tokenizers.piece_table import PieceTable

TEXT = (
    "The quick brown fox said: it's the lazy dog's day, isn't it? aaaa aaaaaaa\n\n\tDie Füße des Fuchses — "
    "12 of 1234 feet; 狐狸跳过了狗。 🦊🦊  !!!!! !!! antidisestablishmentarianism antidisestablishmentarian\n"
)
_WORDS = BPETokenizer.train(TEXT * 3, 401, special_tokens=())
_MARKS = b"\n\n", b"\n ", b"\r\n", b"\x0b\n", b"  ", b" .", b". ", b"'s", b" !", b".."
_PAIRS = [(first, second) for first, second in _MARKS]
TOKENIZER = BPETokenizer(list(dict.fromkeys([*_WORDS.merges, *_PAIRS])), special_tokens=())
TRICKY = st.text(alphabet="aest'dThequickF12狐é\xa0\u3000\0\x1c\x85!. \n\t\r\x0b\x0c")
LONG = st.sampled_from(
    [
        "a" * 16,
        "a" * 17,
        " " * 16,
        " " * 17 + "a",
        "ab" * 8,
        "ab" * 9,
        " " + "ba" * 8,
        "-" * 40,
        "aaaaaaaab aaaaaaaac",
    ]
)


def new_table():
    n_bytes = np.array([len(TOKENIZER.decode_bytes([token_id])) for token_id in range(TOKENIZER.vocab_size)])
    return PieceTable(TOKENIZER._encode_by_tiktoken, n_bytes)


def expected(texts):
    return [TOKENIZER._tiktoken.encode_ordinary(text) for text in texts]


def encoded(table, texts):
    return [ids.tolist() for ids in table.encode(texts)]


@given(st.lists(st.lists(st.one_of(TRICKY, LONG), min_size=1, max_size=5), max_size=4))
@example([[""], ["", ""], ["a"], ["a"]])
@example([["x é  "], ["x é .", "é.. ."]])
@example([[" é", "!é", "'sé", "é's"]])
@settings(deadline=None, max_examples=500)
def test_one_table_encodes_texts_one_after_another(batches):
    table = new_table()
    for texts in [*batches, *batches]:
        assert encoded(table, texts) == expected(texts)


@given(st.lists(st.one_of(TRICKY, LONG), min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 30))
@settings(deadline=None, max_examples=300)
def test_a_table_with_too_few_slots_encodes_the_same(texts, slot_bits, max_ids):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piece_table, "_SLOT_BITS", slot_bits)
        patch.setattr(piece_table, "_MAX_IDS", max_ids)
        table = new_table()
        for _ in range(3):
            assert encoded(table, texts) == expected(texts)
        assert len(table._table.ids) <= max_ids


def test_what_was_met_is_not_encoded_again(monkeypatch):
    table = new_table()
    texts = ["The quick brown fox", " jumps over the lazy dog's tail\n"]
    first = encoded(table, texts)
    monkeypatch.setattr(table, "_encode_text", None)
    assert encoded(table, texts) == encoded(table, texts[::-1])[::-1] == first


def test_pieces_that_begin_or_end_alike_are_told_apart(monkeypatch):
    monkeypatch.setattr(piece_table, "_SLOT_BITS", 1)
    table = new_table()
    for text in ["eighteen" + last for last in "abcdef"] + [first + "ighteena" for first in "abcdef"]:
        assert encoded(table, [text]) == expected([text])


def test_who_comes_first_keeps_a_slot_and_who_came_last_has_one(monkeypatch):
    monkeypatch.setattr(piece_table, "_SLOT_BITS", 3)
    table = new_table()
    others = ["".join(letters) for letters in itertools.product("abcdefg", repeat=3)]
    for text in ["first", *others, "last"]:
        assert encoded(table, [text]) == expected([text])
    monkeypatch.setattr(table, "_encode_text", None)
    assert encoded(table, ["first", "last"]) == expected(["first", "last"])


def test_a_table_that_another_thread_replaces_meanwhile_stays_whole():
    table = new_table()
    encode_text = table._encode_text

    def interrupted(text):
        table._encode_text = encode_text
        assert encoded(table, ["said he", "the fox"]) == expected(["said he", "the fox"])
        return encode_text(text)

    table._encode_text = interrupted
    assert encoded(table, ["said she", "the dog"]) == expected(["said she", "the dog"])
    texts = ["said he", "the fox", "said she", "the dog"]
    assert encoded(table, texts) == expected(texts)


NEW = {
    "other characters": lambda i: chr(0x4E00 + i) * 100,
    "long pieces": lambda i: "a" * (100 + i),
    "pieces that do not come back": lambda i: f"{7 ** (120 + i):,}",
}


@pytest.mark.parametrize("new", NEW.values(), ids=NEW)
def test_where_too_much_is_new_it_rests_and_looks_again(new, monkeypatch):
    monkeypatch.setattr(piece_table, "_JUDGED_BYTES", 100)
    monkeypatch.setattr(piece_table, "_RESTING_CHARACTERS", 200)
    table = new_table()
    find, looked_up = table._found, []
    monkeypatch.setattr(table, "_found", lambda pieces: looked_up.append(pieces) or find(pieces))
    for i, n_looked_up in enumerate([1, 1, 1, 2, 2, 2, 3]):
        assert encoded(table, [new(i)]) == expected([new(i)])
        assert len(looked_up) == n_looked_up


def test_a_small_batch_in_which_all_is_new_and_a_large_one_that_repeats_do_not_make_it_rest(monkeypatch):
    monkeypatch.setattr(piece_table, "_JUDGED_BYTES", 200)
    text = "The quick brown fox jumps over the lazy dog"
    for n_times in ([1, 1, 1, 3], [5]):
        table = new_table()
        for n in n_times:
            assert encoded(table, [text] * n) == expected([text] * n)
            assert table._n_resting == 0
        assert (table._n_looked_up, table._n_new) == (0, 0)


def test_a_very_long_piece_and_wide_indents_are_encoded_too():
    texts = ["a" * 20_011 + " b", "if:\n" + " " * 40 + "c\n" + " " * 41 + "d\r\n\x0b\n\n \n"]
    assert encoded(new_table(), texts) == [TOKENIZER._encode_by_tiktoken(text).tolist() for text in texts]


def test_threads_share_a_table(cache):
    text = (cache / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    parts = list(chunks(text, 20_011))
    table = new_table()
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(table.encode, [[part] for part in parts * 3]))
    assert [ids[0].tolist() for ids in found] == expected(parts) * 3


def test_gpt2s_ids_of_a_book_are_those_of_tiktoken(cache, monkeypatch):
    gpt2 = BPETokenizer.gpt2()
    ranks = {gpt2.decode_bytes([token_id]): token_id for token_id in range(256 + len(gpt2.merges))}
    peer = tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    text = (cache / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    text = text.replace("love", "“love”", 300)
    theirs = peer.encode_ordinary(text)
    assert gpt2.encode(text) == theirs
    monkeypatch.setattr(bpe, "_LEAST_CHARACTERS", len(text) + 1)  # tiktoken alone
    assert gpt2.encode(text) == theirs
