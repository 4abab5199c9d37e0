"""Both formats: there and back, with gensim on the other side, cut anywhere, and with odd words."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from glassgpt.embeddings import WordVectors, load_word2vec, word2vec_files, write_word2vec
from glassgpt.errors import ConfigError, DataError
from tests.embeddings.conftest import NEEDS_GENSIM

FORMS = ["vectors.txt", "vectors.txt.gz", "vectors.bin", "vectors.bin.gz"]


def assert_same(ours: WordVectors, words, matrix):
    assert ours.words == list(words)
    np.testing.assert_array_equal(ours.vectors, matrix)


@pytest.mark.parametrize("name", FORMS)
def test_what_was_written_is_read_back_bit_for_bit(tmp_path, random_vectors, name):
    write_word2vec(random_vectors, tmp_path / name)

    assert_same(load_word2vec(tmp_path / name), random_vectors.words, random_vectors.vectors)


@pytest.mark.parametrize("limit", [None, 1, 17, 53, 99])
@pytest.mark.parametrize("name", FORMS)
def test_gensim_reads_what_we_write(tmp_path, random_vectors, keyed_vectors, name, limit):
    write_word2vec(random_vectors, tmp_path / name)

    theirs = keyed_vectors.load_word2vec_format(tmp_path / name, binary=".bin" in name, limit=limit)

    assert_same(load_word2vec(tmp_path / name, limit), theirs.index_to_key, theirs.vectors)
    assert len(theirs) == min(limit or 53, 53)


@pytest.mark.parametrize("limit", [None, 17])
@pytest.mark.parametrize("name", FORMS)
def test_we_read_what_gensim_writes(tmp_path, random_vectors, keyed_vectors, name, limit):
    theirs = keyed_vectors(vector_size=7)
    theirs.add_vectors(random_vectors.words, random_vectors.vectors)
    theirs.save_word2vec_format(tmp_path / name, binary=".bin" in name)

    ours = load_word2vec(tmp_path / name, limit)

    assert_same(ours, random_vectors.words[:limit], random_vectors.vectors[:limit])


def test_the_format_is_found_out_whatever_the_name(tmp_path, random_vectors):
    for binary in (True, False):
        write_word2vec(random_vectors, tmp_path / "vectors", binary=binary)

        assert_same(load_word2vec(tmp_path / "vectors"), random_vectors.words, random_vectors.vectors)


def test_text_as_the_c_program_writes_it_is_read(tmp_path):
    (tmp_path / "c.txt").write_bytes(b"2 3\n</s> 0.004003 -0.5 1e-05 \nof 1 2 -3.25 \r\n")

    assert_same(
        load_word2vec(tmp_path / "c.txt"), ["</s>", "of"], np.float32([[0.004003, -0.5, 1e-5], [1, 2, -3.25]])
    )


def test_a_vector_with_a_newline_and_spaces_among_its_bytes_is_read(tmp_path):
    odd = np.frombuffer(b"\n  \n 1\n\n", "<f4")
    for path, separator in ((tmp_path / "a.bin", b""), (tmp_path / "b.bin", b"\n")):
        path.write_bytes(b"2 2\none " + odd.tobytes() + separator + b"two " + odd.tobytes() + separator)

        assert_same(load_word2vec(path), ["one", "two"], [odd, odd])


@pytest.mark.parametrize("read_bytes", [1, 7, 64])
def test_where_the_blocks_of_a_read_end_does_not_matter(tmp_path, monkeypatch, random_vectors, read_bytes):
    write_word2vec(random_vectors, tmp_path / "v.bin")
    monkeypatch.setattr(word2vec_files, "READ_BYTES", read_bytes)

    assert_same(load_word2vec(tmp_path / "v.bin"), random_vectors.words, random_vectors.vectors)


@pytest.mark.parametrize("name", FORMS)
def test_a_file_cut_anywhere_is_an_error_or_whole(tmp_path, name):
    matrix = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    words = ["the", "Ünïcöde", "日本", "of_the", "x"]
    write_word2vec(WordVectors(words, matrix), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    n_whole = 0
    for length in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:length])
        try:
            assert_same(load_word2vec(tmp_path / "cut"), words, matrix)
        except DataError:
            continue
        n_whole += 1

    assert n_whole == (name == "vectors.bin")  # there the last byte, a newline, holds nothing


@pytest.mark.parametrize("binary", [False, True])
def test_a_file_with_more_words_than_it_announces_is_refused(tmp_path, random_vectors, binary):
    path = tmp_path / "v"
    write_word2vec(random_vectors, path, binary=binary)
    path.write_bytes(path.read_bytes().replace(b"53 7\n", b"5 7\n", 1))

    with pytest.raises(DataError, match="goes on after the 5 words"):
        load_word2vec(path)
    assert len(load_word2vec(path, limit=4)) == 4


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"word2vec\n",
        b"2\n",
        b"-2 3\n",
        b"0 3\nof 1 2 3\n",
        b"1 3\nof 1 2\n",
        b"1 3\nof 1 2 3 4\n",
        b"1 3\nof 1 two 3\n",
        b"1 3\n 1 2 3\n",
        b"1 3\nof 1 2 nan\n",
        b"2 3\nof 1.00000000\nand 1 2 3\n",
        b"999999999999 300\nof 1 2 3\n",
        b"99999999999999999999999999 3\nof 1 2 3\n",
        b"of 0.1 0.2 0.3\nand 0.3 0.2 0.1\n",
        b"1 300\n" + b"x" * 9000,
        b"\x1f\x8b not gzip",
    ],
)
def test_what_is_no_word2vec_file_is_refused(tmp_path, content):
    (tmp_path / "v.txt").write_bytes(content)

    with pytest.raises(DataError, match=r"v\.txt|'of' holds nan"):
        load_word2vec(tmp_path / "v.txt")


def test_a_word_without_an_end_is_not_searched_to_the_end_of_the_file(tmp_path):
    (tmp_path / "v.bin").write_bytes(b"1 300\n" + b"x" * 9000)

    with pytest.raises(DataError, match="no space within 4,096 bytes"):
        load_word2vec(tmp_path / "v.bin")


def test_a_missing_file_and_a_limit_of_none_are_refused(tmp_path, random_vectors):
    with pytest.raises(DataError, match="Cannot read"):
        load_word2vec(tmp_path / "missing.bin")
    with pytest.raises(ConfigError, match="limit=0"):
        load_word2vec(tmp_path / "missing.bin", limit=0)


@pytest.mark.parametrize("name", ["v.txt.gz", "v.bin.gz"])
def test_a_packed_file_that_was_altered_is_refused(tmp_path, random_vectors, name):
    path = tmp_path / name
    write_word2vec(random_vectors, path)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in the checksum, the last but one thing that gzip writes

    path.write_bytes(data)

    with pytest.raises(DataError, match="gzip"):
        load_word2vec(path)


@pytest.mark.parametrize("binary", [False, True])
def test_of_a_word_that_comes_twice_the_first_vector_counts_as_with_gensim(tmp_path, keyed_vectors, binary):
    one, two, three = np.float32([[1, 2], [3, 4], [5, 6]])
    records = [(b"a", one), (b"a", two), (b"b", three)]
    lines = [
        word + b" " + (v.tobytes() if binary else b"%d %d" % tuple(map(int, v))) + b"\n"
        for word, v in records
    ]
    (tmp_path / "v").write_bytes(b"3 2\n" + b"".join(lines))

    theirs = keyed_vectors.load_word2vec_format(tmp_path / "v", binary=binary)

    ours = load_word2vec(tmp_path / "v")
    assert_same(ours, ["a", "b"], [one, three])
    np.testing.assert_array_equal(ours.vectors, [theirs["a"], theirs["b"]])


@pytest.mark.parametrize("errors", ["replace", "ignore"])
def test_words_that_are_not_utf8_are_refused_or_read_as_gensim_reads_them(tmp_path, keyed_vectors, errors):
    path = tmp_path / "v.txt"
    path.write_bytes(b"2 2\nna\xc3 1 2\nb 3 4\n")  # é, cut in the middle

    with pytest.raises(DataError, match=r'word 1, is not UTF-8.*errors="replace"'):
        load_word2vec(path)
    theirs = keyed_vectors.load_word2vec_format(path, unicode_errors=errors)
    assert_same(load_word2vec(path, errors=errors), theirs.index_to_key, theirs.vectors)


# Anything but what ends a word, and surrogates, which no UTF-8 file can hold.
ODD_WORDS = st.text(st.characters(exclude_characters=" \n", exclude_categories=["Cs"]), min_size=1)
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(ODD_WORDS, min_size=1, max_size=5, unique=True),
    matrix=arrays.arrays(np.float32, (5, 3), elements=FINITE),
    name=st.sampled_from(FORMS),
)
def test_words_of_any_characters_come_back_and_gensim_agrees(tmp_path_factory, words, matrix, name):
    KeyedVectors = pytest.importorskip("gensim.models", reason=NEEDS_GENSIM).KeyedVectors
    path = tmp_path_factory.mktemp("odd") / name
    written = WordVectors(words, matrix[: len(words)])
    write_word2vec(written, path)

    theirs = KeyedVectors.load_word2vec_format(path, binary=".bin" in name)

    for ours in (load_word2vec(path), load_word2vec(path, binary=".bin" in name)):
        assert_same(ours, words, written.vectors)
    assert_same(written, theirs.index_to_key, theirs.vectors)


@pytest.mark.parametrize("word", ["", "two words", "two\nlines", "\ud800"])
def test_a_word_that_the_format_cannot_hold_is_not_written(tmp_path, word):
    with pytest.raises(DataError, match="cannot be written"):
        write_word2vec(WordVectors([word], [[1, 2]]), tmp_path / "v.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FORMS)
def test_the_longest_word_that_is_read_is_the_longest_that_is_written(tmp_path, name):
    vectors = WordVectors(["x" * 4096, "ä" * 2048, "b"], np.arange(1, 7).reshape(3, 2))
    write_word2vec(vectors, tmp_path / name)
    assert_same(load_word2vec(tmp_path / name), vectors.words, vectors.vectors)

    with pytest.raises(DataError, match=r"ä'… cannot be written: it has 4,098 bytes.*at most 4,096"):
        write_word2vec(WordVectors(["ä" * 2049], [[1, 2]]), tmp_path / f"long {name}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_same_vectors_make_the_same_packed_file(tmp_path, random_vectors):
    write_word2vec(random_vectors, tmp_path / "a.bin.gz")
    write_word2vec(random_vectors, tmp_path / "b.bin.gz")

    assert (tmp_path / "a.bin.gz").read_bytes() == (tmp_path / "b.bin.gz").read_bytes()
    assert (tmp_path / "a.bin.gz").read_bytes()[4:8] == bytes(4)  # no time
    assert gzip.decompress((tmp_path / "a.bin.gz").read_bytes()).startswith(b"53 7\nw0 ")
