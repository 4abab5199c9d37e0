"""Documents out of files: exact text, exact offsets, pieces whose ids are those of the whole."""

import codecs
import gzip
import io
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.data import sources
from glassgpt.data.sources import Piece, StandardInput, decoded, read_file, split_documents
from glassgpt.errors import DataError
from glassgpt.tokenizers.pattern import cut


def documents(pieces):
    texts, parts = [], []
    for text, ends in pieces:
        parts.append(text)
        if ends:
            texts.append("".join(parts))
            parts = []
    assert not parts, "the last document has no end"
    return texts


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(sources, "PIECE_CHARACTERS", 7)
    monkeypatch.setattr(sources, "LONGEST_PIECE", 31)
    monkeypatch.setattr(sources, "READ_BYTES", 5)


def test_a_text_file_is_one_document_and_loses_no_character(tmp_path, small_pieces):
    text = "Grüße, 世界!  \n\n\tA line without end: " + "x" * 101 + " 🦆 \n"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert documents(read_file(tmp_path / "a.txt")) == [text]


def test_a_text_file_is_cut_at_end_of_text(tmp_path, small_pieces):
    (tmp_path / "a.txt").write_text("one\n<|endoftext|>two <|endof<|endoftext|>\n <|endoftext|>three|>")
    assert documents(read_file(tmp_path / "a.txt")) == ["one\n", "two <|endof", "three|>"]


def test_lines_end_as_open_ends_them_and_a_byte_order_mark_is_dropped(tmp_path, small_pieces):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n\r\nfour\r")
    assert documents(read_file(tmp_path / "a.txt")) == [(tmp_path / "a.txt").read_text("utf-8-sig")]


def test_a_compressed_file_reads_as_the_file_itself(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("Grüße".encode()))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'))
    assert documents(read_file(tmp_path / "a.txt.gz")) == ["Grüße"]
    assert documents(read_file(tmp_path / "b.jsonl.gz")) == ["one", "two"]


def test_a_suffix_in_capitals_is_the_same_suffix(tmp_path):
    (tmp_path / "A.JSONL").write_bytes(b'{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "B.Jsonl.GZ").write_bytes(gzip.compress(b'{"text": "three"}\n'))
    (tmp_path / "C.TXT.GZ").write_bytes(gzip.compress(b"four"))
    texts = [documents(read_file(tmp_path / name)) for name in ("A.JSONL", "B.Jsonl.GZ", "C.TXT.GZ")]
    assert texts == [["one", "two"], ["three"], ["four"]]


@given(
    st.lists(st.text(st.sampled_from("ab '’.\n\t\u00a0\u3000é1🦆\x1c"), max_size=60), max_size=4),
    st.integers(1, 23),
)
def test_pieces_depend_on_the_document_alone_and_cut_no_token(texts, n_block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PIECE_CHARACTERS", 7)
        patch.setattr(sources, "LONGEST_PIECE", 1000)  # a cut that is forced may divide a token
        texts = [text for text in texts if text.strip()]
        stream = "<|endoftext|>".join(texts)
        blocks = [stream[i : i + n_block] for i in range(0, len(stream), n_block)]
        pieces = list(split_documents(blocks))
        alone = [piece for text in texts for piece in sources.document_pieces(text)]
    assert pieces == alone
    assert documents(pieces) == texts
    assert [token for piece in pieces for token in cut(piece.text)] == [t for x in texts for t in cut(x)]


def test_ids_of_the_pieces_are_the_ids_of_the_whole(cache, monkeypatch):
    tiktoken = pytest.importorskip("tiktoken")
    from glassgpt.tokenizers import BPETokenizer

    assert tiktoken
    monkeypatch.setenv("GLASSGPT_CACHE", str(cache))
    monkeypatch.setattr(sources, "PIECE_CHARACTERS", 997)
    tokenizer = BPETokenizer.gpt2()
    path = cache / "corpora" / "tinyshakespeare.txt"
    pieces = list(read_file(path))
    assert len(pieces) > 1000
    ids = [token_id for piece in pieces for token_id in tokenizer.encode(piece.text)]
    assert ids == tokenizer.encode(path.read_text(encoding="utf-8"))


def test_pieces_stay_small_even_without_white_space(small_pieces):
    pieces = list(split_documents("x" for _ in range(1000)))
    assert documents(pieces) == ["x" * 1000]
    assert max(len(piece.text) for piece in pieces) == 31


def test_a_piece_of_exactly_the_full_size_is_not_cut(small_pieces):
    assert list(split_documents(["a b c de"])) == [Piece("a b c de", True)]
    assert list(split_documents(["a b c d e"])) == [Piece("a b c d", False), Piece(" e", True)]


@pytest.mark.parametrize("n_before", [0, 1, 4, 5, 6, 1_000_003, 2_097_151])
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3(", b"\xe4\xb8", b"\xed\xa0\x80"])
def test_a_byte_that_is_not_utf8_is_named_with_its_offset(n_before, bad):
    before = ("é" * (n_before // 2) + "x" * (n_before % 2)).encode()
    with pytest.raises(
        DataError, match=rf"story is not UTF-8: byte 0x{bad[0]:02x} at offset {n_before:,} \("
    ):
        for _ in decoded(io.BytesIO(before + bad), "story"):
            pass


def test_bad_bytes_are_found_wherever_a_block_ends(small_pieces):
    for n_before in range(23):
        with pytest.raises(DataError, match=rf"offset {n_before} "):
            list(
                decoded(io.BytesIO(b"\xc3\xa9" * (n_before // 2) + b"x" * (n_before % 2) + b"\xff tail"), "f")
            )


def test_bad_bytes_in_jsonl_have_their_offset_in_the_file(tmp_path):
    first = b'{"text": "one"}\n'
    (tmp_path / "a.jsonl").write_bytes(first + b'{"text": "\xff"}\n')
    with pytest.raises(DataError, match=rf"offset {len(first) + 10} "):
        list(read_file(tmp_path / "a.jsonl"))


def test_a_byte_order_mark_before_jsonl_counts_in_offsets_and_is_dropped(tmp_path):
    line = codecs.BOM_UTF8 + b'{"text": "one"}\n'
    (tmp_path / "a.jsonl").write_bytes(line)
    assert documents(read_file(tmp_path / "a.jsonl")) == ["one"]
    (tmp_path / "a.jsonl").write_bytes(line + b'{"text": "\xff"}\n')
    with pytest.raises(DataError, match=rf"offset {len(line) + 10} "):
        list(read_file(tmp_path / "a.jsonl"))


def test_jsonl_gives_the_chosen_field_of_each_line(tmp_path):
    rows = [{"text": "one", "body": "eins"}, {"text": "two <|endoftext|> three", "body": "zwei"}]
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    assert documents(read_file(tmp_path / "a.jsonl")) == ["one", "two <|endoftext|> three"]
    assert documents(read_file(tmp_path / "a.jsonl", "body")) == ["eins", "zwei"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "cut', r"line 2, is not JSON"),
        ('["text"]', r"line 2, holds a list"),
        ("[" * 100_000, r"line 2, is not JSON"),
        (
            '{"body": "x", "n": 3}',
            r"line 2, has no text in field 'text'\. Fields with text: body\. .*glassgpt prepare --field NAME",
        ),
        ('{"text": 3}', r"Fields with text: none\."),
        ('{"text": "ab\\ud83d"}', r"line 2, has half a character at place 2: '\\ud83d'"),
    ],
)
def test_a_line_that_is_wrong_is_named_by_its_number(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        list(read_file(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("damage", ["cut short", "altered", "not gzip"])
def test_a_damaged_gzip_file_is_an_error(tmp_path, damage):
    data = bytearray(gzip.compress(random.Random(0).randbytes(9973).hex().encode()))
    if damage == "cut short":
        data = data[:5003]
    elif damage == "altered":
        data[5003] ^= 0xFF
    else:
        data[0] = 0
    (tmp_path / "a.txt.gz").write_bytes(data)
    with pytest.raises(DataError, match="is not a whole gzip file"):
        list(read_file(tmp_path / "a.txt.gz"))


def test_a_file_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"Cannot read .*gone\.txt: No such file"):
        list(read_file(tmp_path / "gone.txt"))


def test_standard_input_can_be_gone_through_twice(monkeypatch):
    class Stdin:
        buffer = io.BytesIO("Grüße<|endoftext|>two".encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    source = StandardInput()
    assert documents(source.pieces()) == documents(source.pieces()) == ["Grüße", "two"]
