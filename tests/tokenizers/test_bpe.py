"""The byte-pair tokenizer: lossless, equal to by hand, and never stuck."""

import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.by_hand import bpe as by_hand
from glassgpt.errors import ConfigError, TokenizerError
from glassgpt.tokenizers import BPETokenizer, bpe, pieces
from glassgpt.tokenizers.interface import require_utf8

TEXT = (
    "The quick brown fox said: it's the lazy dog's day, isn't it? aaaa aaaaaaa\n\n\tDie Füße des Fuchses — "
    "12 von 1234 Füßen; 狐狸跳过了狗。狐狸跳过了狗。 🦊🦊🦊🦊 e\u0301e\u0301e\u0301   !!!!! !!!   \n"
) * 3
TOKENIZER = BPETokenizer.train(TEXT, 401)
UNICODE = st.text() | st.text(alphabet="aest'dThequickF12狐🦊\u0301! \n")


@given(UNICODE)
@settings(deadline=None, max_examples=300)
def test_any_text_comes_back_exactly(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert TOKENIZER.decode(TOKENIZER.encode(text, allow_special=True)) == text


@given(UNICODE)
@settings(deadline=None, max_examples=300)
def test_ids_equal_those_by_hand(text):
    assert TOKENIZER.encode(text) == by_hand.encode(text, TOKENIZER.merges)


@given(UNICODE)
@settings(deadline=None, max_examples=300)
def test_an_array_holds_the_same_ids(text):
    array = TOKENIZER.encode_array(text)
    assert array.dtype.kind == "u"
    assert array.tolist() == TOKENIZER.encode(text)


@pytest.mark.parametrize("n_workers", [None, 1, 3])
@pytest.mark.parametrize("special_tokens", [(), ("<|endoftext|>", "<|user|>")])
def test_a_batch_holds_the_ids_of_each_text_in_order(special_tokens, n_workers):
    tokenizer = BPETokenizer(TOKENIZER.merges, special_tokens)
    texts = ["", "<|endoftext|>", "a<|endoftext|>b <|user|>", TEXT, "a" * 20_011, (TEXT + "ä" * 17_011) * 3]
    batch = tokenizer.encode_batch(texts, n_workers)
    assert [array.tolist() for array in batch] == [tokenizer.encode(text) for text in texts]


@given(st.lists(UNICODE, max_size=5))
@settings(deadline=None, max_examples=200)
def test_arrays_hold_the_ids_of_each_text_whichever_way_they_are_found(texts):
    with pytest.MonkeyPatch.context() as patch:
        for least in (0, 1 << 60):
            patch.setattr(bpe, "_LEAST_CHARACTERS", least)
            for n_characters in (1, 7, 1 << 18):
                patch.setattr(bpe, "_BATCH_CHARACTERS", n_characters)
                found = TOKENIZER.encode_arrays(texts)
                assert [ids.tolist() for ids in found] == [
                    by_hand.encode(text, TOKENIZER.merges) for text in texts
                ]


def test_long_texts_are_looked_up_in_parts_and_short_ones_are_not(monkeypatch):
    tokenizer = BPETokenizer(TOKENIZER.merges)
    encode, n_characters = tokenizer._piece_table.encode, []

    def watched(texts):
        n_characters.append(sum(map(len, texts)))
        return encode(texts)

    monkeypatch.setattr(tokenizer._piece_table, "encode", watched)
    tokenizer.encode_arrays(["a short one"] * 97)
    assert n_characters == []
    tokenizer.encode_array("A long one, and another. " * 20_011)
    assert len(n_characters) == 2
    tokenizer.encode_arrays(["many short ones " * 7] * 2003)
    assert n_characters[2:] == [2003 * 7 * len("many short ones ")]


def test_one_string_is_a_batch_of_one_text_and_not_its_characters():
    for (array,) in (TOKENIZER.encode_batch(TEXT), TOKENIZER.encode_arrays(TEXT)):
        assert array.tolist() == TOKENIZER.encode(TEXT)


def test_arrays_refuse_what_utf8_cannot_hold():
    for encode in (TOKENIZER.encode_array, lambda text: TOKENIZER.encode_arrays(["fine", text])):
        with pytest.raises(TokenizerError, match="lone surrogate"):
            encode("bad \ud800" * 7)


@pytest.mark.parametrize("texts", [b"", b"bytes", None, 5, [None], ["fine", b"bytes"]], ids=repr)
def test_what_is_no_text_is_refused_in_words(texts):
    for encode in (
        TOKENIZER.encode_arrays,
        TOKENIZER.encode_batch,
        lambda texts: BPETokenizer.train(texts, 300),
    ):
        with pytest.raises(TokenizerError, match="Expected text"):
            encode(texts)


@pytest.mark.parametrize("n_workers", [0, -1])
def test_a_batch_needs_a_worker(n_workers):
    with pytest.raises(ConfigError, match=f"n_workers={n_workers} must be at least 1"):
        TOKENIZER.encode_batch(["text"], n_workers)


def test_a_long_piece_is_merged_by_arrays_in_an_array_too(monkeypatch):
    monkeypatch.setattr(TOKENIZER, "_tiktoken", None)  # which would take n² steps for it in some releases
    piece = "ab" * 10_007
    assert TOKENIZER.encode_array(piece).tolist() == TOKENIZER.encode(piece)


@given(UNICODE)
@settings(deadline=None, max_examples=300)
def test_ids_do_not_depend_on_the_way_taken_for_long_pieces(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "_CHUNK_CHARACTERS", 1)
        by_arrays = TOKENIZER.encode(text)
    assert by_arrays == TOKENIZER.encode(text)


def test_every_byte_value_can_be_decoded_and_every_character_encoded():
    assert TOKENIZER.decode_bytes(range(256)) == bytes(range(256))
    text = "".join(map(chr, range(0x800)))  # UTF-8 of one and two bytes
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize(
    "word",
    [
        "a" * 10_000_000,
        " " * 1_000_000 + "x",
        "\n" * 1_000_000,
        "🦊" * 100_000,
        "!?" * 200_000,
        "".join(random.Random(0).choices("abcdefghij", k=500_000)),
        "狐狸" * 100_000,
        "don't'll've" * 100_000,
    ],
    ids=[
        "10 MB word",
        "spaces",
        "lines",
        "100,000 emoji",
        "marks",
        "letters",
        "no spaces in Chinese",
        "quotes",
    ],
)
def test_very_long_pieces_come_back_exactly_and_soon(word):
    assert TOKENIZER.decode(TOKENIZER.encode(word)) == word


def test_long_pieces_inside_common_text_are_cut_as_by_hand():
    text = TEXT[:101] + "a" * 20_011 + "1" * 20_011 + TEXT[:53]
    joined = [piece for part in by_hand.cut(text) for piece in pieces(TOKENIZER, part)]
    assert pieces(TOKENIZER, text) == joined


@pytest.mark.parametrize("merges", [[], [(ord("a"), ord("b"))]], ids=["no merges", "one merge"])
def test_long_pieces_need_no_merge_that_fits(merges):
    word = "zyx" * 10_007
    assert BPETokenizer(merges).encode(word) == list(word.encode("utf-8"))


def test_no_text_is_no_ids():
    assert TOKENIZER.encode("") == []
    assert TOKENIZER.decode([]) == ""
    assert TOKENIZER.decode_bytes([]) == b""


@pytest.mark.parametrize("text", ["ab\udc80", "ab" + chr(0xD83E)], ids=["second half", "first half"])
@pytest.mark.parametrize("allow_special", [False, True])
def test_a_lone_surrogate_is_refused_with_its_position(text, allow_special):
    with pytest.raises(TokenizerError, match=r"lone surrogate, U\+D[0-9A-F]{3}, at position 2 of 3"):
        TOKENIZER.encode(text, allow_special=allow_special)


def test_bytes_are_not_text():
    with pytest.raises(TokenizerError, match=r"got bytes\. Decode it first"):
        require_utf8(b"bytes")


def test_a_special_token_in_text_is_text_unless_allowed():
    text = "a<|endoftext|>b"
    end = TOKENIZER.end_of_text_id
    assert end == TOKENIZER.vocab_size - 1
    assert end not in TOKENIZER.encode(text)
    assert TOKENIZER.encode(text, allow_special=True) == [ord("a"), end, ord("b")]
    assert TOKENIZER.decode([ord("a"), end, ord("b")]) == text


def test_of_two_special_tokens_the_longer_is_taken():
    tokenizer = BPETokenizer([], special_tokens=("<|a", "<|a|>"))
    assert tokenizer.encode("<|a|>x<|a", allow_special=True) == [257, ord("x"), 256]


def test_without_special_tokens_there_is_no_end_of_text():
    tokenizer = BPETokenizer([], special_tokens=())
    assert tokenizer.end_of_text_id is None
    assert tokenizer.encode("<|endoftext|>", allow_special=True) == list(b"<|endoftext|>")


@pytest.mark.parametrize("bad_id", [-1, TOKENIZER.vocab_size, 10**12])
def test_an_id_outside_the_vocabulary_is_refused_with_the_valid_range(bad_id):
    with pytest.raises(
        TokenizerError, match=rf"Token id {bad_id} is outside vocab_size=\d+ \(valid: 0–\d+\)"
    ):
        TOKENIZER.decode([0, bad_id])


def test_half_a_character_is_exact_as_bytes_and_replaced_as_text():
    ids = BPETokenizer([]).encode("é")
    assert BPETokenizer([]).decode_bytes(ids[:1]) == b"\xc3"
    assert BPETokenizer([]).decode(ids[:1]) == "\ufffd"
    assert pieces(BPETokenizer([]), "aé") == ["a", r"\xc3", r"\xa9"]


def test_pieces_join_to_the_text():
    assert "".join(pieces(TOKENIZER, "The quick fox, isn't it?")) == "The quick fox, isn't it?"


def test_it_travels_to_other_processes():
    copy = pickle.loads(pickle.dumps(TOKENIZER))
    assert copy.encode(TEXT) == TOKENIZER.encode(TEXT)
    assert copy.fingerprint == TOKENIZER.fingerprint


def test_a_fingerprint_changes_with_anything_that_changes_ids():
    merges, names = TOKENIZER.merges, tuple(TOKENIZER.special_tokens)
    others = [
        BPETokenizer(merges[:-1], names),
        BPETokenizer(merges, ()),
        BPETokenizer(merges, ("<|end|>",)),
        BPETokenizer(merges, names, bytes(reversed(range(256)))),
    ]
    assert len({TOKENIZER.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert BPETokenizer(merges, names).fingerprint == TOKENIZER.fingerprint


@pytest.mark.parametrize(
    ("merges", "byte_order", "message"),
    [
        ([(97, 256)], bytes(range(256)), "joins ids 97 and 256; before it only 0–255 exist"),
        ([(97, -1)], bytes(range(256)), "joins ids 97 and -1"),
        ([(97, 98), (97, 98)], bytes(range(256)), "make the same token"),
        ([], bytes(255), "each of the 256 bytes once"),
    ],
)
def test_merges_that_make_no_vocabulary_are_refused(merges, byte_order, message):
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer(merges, byte_order=byte_order)
