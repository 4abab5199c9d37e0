"""Preparing a corpus: the same files however it is done, whole or not there, the sides without overlap."""

import gc
import io
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc

import numpy as np
import pytest

from glassgpt.data import Corpus, TokenShards, preparation, prepare, read_corpus, sources
from glassgpt.data.split import Part
from glassgpt.errors import ConfigError, DataError, TokenizerError
from glassgpt.tokenizers import CharTokenizer, SimpleTokenizerV2

SENTENCE = "the cat sat on a mat and saw how one dog ran to far red hills"
SEPARATED = SimpleTokenizerV2.train([SENTENCE])
LETTERS = CharTokenizer.train("abcdefghijklmnopqrstuvwxyz .\n")


def stories(n, n_words=13):
    choices = np.random.default_rng(n).choice(SENTENCE.split(), (n, n_words))
    return [" ".join(words) for words in choices]


def documents_of(tokens, tokenizer):
    ids = tokens[:]
    ends = np.flatnonzero(ids == tokenizer.end_of_text_id)
    assert ends[-1] == len(ids) - 1, "the last document ends like the others"
    return [tokenizer.decode(part[1:] if i else part) for i, part in enumerate(np.split(ids, ends)[:-1])]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_document_is_cut_at_its_character(tmp_path):
    text = "abc def.\n" * 113 + "tail"
    dataset = prepare(Corpus.of([text]), tmp_path / "out", LETTERS)
    cut = int(0.9 * len(text))
    assert LETTERS.decode(dataset.train[:]) == text[:cut]
    assert LETTERS.decode(dataset.val[:]) == text[cut:]
    assert (dataset.train_bytes, dataset.val_bytes) == (cut, len(text) - cut)
    assert dataset.info.split == "in order"
    assert dataset.info.train.n_documents == dataset.info.val.n_documents == 1


def test_tinyshakespeare_is_parted_90_10_in_order(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(cache))
    text = (cache / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    tokenizer = CharTokenizer.train(text)
    dataset = prepare("tinyshakespeare", tmp_path / "out", tokenizer)
    assert dataset.train[:].tolist() == tokenizer.encode(text[: int(0.9 * len(text))])
    assert dataset.val[:].tolist() == tokenizer.encode(text[int(0.9 * len(text)) :])


@pytest.mark.parametrize("val_fraction", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("piece_characters", [1 << 20, 31], ids=["in one piece", "in pieces"])
def test_many_documents_are_parted_whole_and_about_as_asked(
    tmp_path, monkeypatch, piece_characters, val_fraction
):
    monkeypatch.setattr(sources, "PIECE_CHARACTERS", piece_characters)
    texts = stories(997)
    dataset = prepare(Corpus.of(texts), tmp_path / "out", SEPARATED, val_fraction=val_fraction)
    train, val = (documents_of(tokens, SEPARATED) for tokens in (dataset.train, dataset.val))
    assert dataset.info.split == "by document"
    assert sorted(train + val) == sorted(texts)
    assert [text for text in texts if text in set(train)] == train, "the order is kept"
    # The share of n documents has a standard deviation of at most 1/(2 √n) = 0.016: three times that.
    assert abs(len(val) / len(texts) - val_fraction) < 0.048
    assert (dataset.info.train.n_documents, dataset.info.val.n_documents) == (len(train), len(val))
    assert dataset.val_bytes == sum(map(len, val))


def test_equal_documents_fall_on_the_same_side(tmp_path):
    dataset = prepare(Corpus.of(stories(101) * 3), tmp_path / "out", SEPARATED)
    train, val = (set(documents_of(tokens, SEPARATED)) for tokens in (dataset.train, dataset.val))
    assert val
    assert not train & val


def test_a_few_documents_are_parted_in_order(tmp_path):
    texts = ["the cat sat", "a dog ran far", "on red hills and on a mat"]
    dataset = prepare(Corpus.of(texts), tmp_path / "out", SEPARATED, val_fraction=0.4)
    text = "".join(texts)
    assert dataset.info.split == "in order"
    assert dataset.train_bytes == int(0.6 * len(text))
    end = SEPARATED.end_of_text_id
    assert np.count_nonzero(dataset.train[:] == end) == 2, "a document that was cut does not end at the cut"
    assert np.count_nonzero(dataset.val[:] == end) == 1
    assert (dataset.info.train.n_documents, dataset.info.val.n_documents) == (3, 1)


def test_without_a_fraction_all_is_for_training(tmp_path):
    dataset = prepare(Corpus.of(stories(11)), tmp_path / "out", SEPARATED, val_fraction=0)
    assert documents_of(dataset.train, SEPARATED) == stories(11)
    assert len(dataset.val) == dataset.val_bytes == 0
    assert dataset.info.split == "none"


def test_bytes_are_those_of_utf8(tmp_path):
    text = "Grüße, 世界 🦆 " * 11
    dataset = prepare(Corpus.of([text]), tmp_path / "out", CharTokenizer.train(text))
    assert dataset.train_bytes + dataset.val_bytes == len(text.encode())


def test_separators_in_the_text_are_text_unless_they_part_documents(tmp_path):
    dataset = prepare(
        Corpus.of(["the <|endoftext|> cat", "sat"]), tmp_path / "out", SEPARATED, val_fraction=0
    )
    assert np.count_nonzero(dataset.train[:] == SEPARATED.end_of_text_id) == 2


def test_shards_read_as_one_whatever_their_size(tmp_path):
    text = "".join(np.random.default_rng(0).choice(list("abc def.\n"), 1009))
    whole = prepare(Corpus.of([text]), tmp_path / "whole", LETTERS)
    parts = prepare(Corpus.of([text]), tmp_path / "parts", LETTERS, shard_tokens=97)
    assert len(parts.info.train.shards) == 10
    assert parts.train[:].tolist() == whole.train[:].tolist()
    assert [shard.n_tokens for shard in parts.info.train.shards] == [97] * 9 + [35]


@pytest.mark.parametrize("piece_characters", [1 << 20, 31], ids=["whole documents", "pieces"])
def test_the_files_do_not_depend_on_how_many_threads_write_them(tmp_path, monkeypatch, piece_characters):
    monkeypatch.setattr(preparation, "JOB_CHARACTERS", 997)
    monkeypatch.setattr(sources, "PIECE_CHARACTERS", piece_characters)
    corpus = Corpus.of(stories(499))
    for n_workers in (1, 2):
        prepare(corpus, tmp_path / str(n_workers), SEPARATED, shard_tokens=1009, n_workers=n_workers)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


def test_only_so_many_jobs_are_under_way():
    drawn = []

    def jobs():
        for text in ["abc"] * 101:
            drawn.append(text)
            yield [Part(text, is_val=False, ends_document=True)]

    results = preparation._encode_all(jobs(), LETTERS, n_workers=2)
    next(results)
    assert len(drawn) == 5  # two for each thread, and the one that is done
    results.close()


def test_memory_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "JOB_CHARACTERS", 1 << 14)
    monkeypatch.setattr(sources, "PIECE_CHARACTERS", 1 << 14)
    block = "the cat sat.\n" * 1009

    def peak(n_blocks):
        corpus = Corpus("stream", lambda: sources.split_documents(block for _ in range(n_blocks)))
        gc.collect()
        tracemalloc.start()
        prepare(corpus, tmp_path / str(n_blocks), LETTERS, n_workers=1, val_fraction=0.1)
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    peak(2)
    few, many = (
        peak(7),
        peak(43),
    )  # the text that the latter has more is half a megabyte, its ids in a list 4 MB
    assert many < few + 500_000


def test_the_tokenizer_travels_with_the_ids(tmp_path):
    prepare(Corpus.of(stories(11)), tmp_path / "out", SEPARATED)
    tokenizer = TokenShards.open(tmp_path / "out").tokenizer()
    assert tokenizer.fingerprint == SEPARATED.fingerprint
    assert tokenizer.encode("the cat") == SEPARATED.encode("the cat")


def test_an_existing_dataset_is_replaced_only_on_request(tmp_path):
    prepare(Corpus.of(stories(11)), tmp_path / "out", SEPARATED)
    before = files_of(tmp_path / "out")
    with pytest.raises(DataError, match=r"already holds a dataset.*overwrite=True \(--overwrite\)"):
        prepare(Corpus.of(stories(13)), tmp_path / "out", SEPARATED)
    assert files_of(tmp_path / "out") == before
    prepare(Corpus.of(stories(13)), tmp_path / "out", SEPARATED, overwrite=True)
    assert files_of(tmp_path / "out") != before


def test_what_is_no_dataset_is_never_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and is not a dataset"):
        prepare(Corpus.of(stories(11)), tmp_path / "out", SEPARATED, overwrite=True)
    with pytest.raises(DataError, match="is a file"):
        prepare(Corpus.of(stories(11)), tmp_path / "out" / "thesis.txt", SEPARATED, overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def in_the_second_pass(happens):
    """A corpus of stories; `happens` while they are tokenised."""
    passes = itertools.count()

    def read():
        if next(passes):
            happens()
        return (sources.Piece(text, True) for text in stories(11))

    return Corpus("slow", read)


def test_a_dataset_that_another_process_wrote_meanwhile_is_kept(tmp_path):
    corpus = in_the_second_pass(lambda: prepare(Corpus.of(stories(13)), tmp_path / "out", SEPARATED))
    with pytest.raises(DataError, match="was written by another process in the meantime"):
        prepare(corpus, tmp_path / "out", SEPARATED)
    assert TokenShards.open(tmp_path / "out").info.corpus == "texts"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_somebody_put_there_meanwhile_is_kept(tmp_path, overwrite):
    out = tmp_path / "out"
    out.mkdir()
    if overwrite:
        prepare(Corpus.of(stories(13)), out, SEPARATED)
    corpus = in_the_second_pass(lambda: (out / "thesis.docx").write_text("mine"))
    with pytest.raises(DataError, match=r"not written with it: thesis\.docx"):
        prepare(corpus, out, SEPARATED, overwrite=overwrite)
    assert (out / "thesis.docx").read_text() == "mine"


@pytest.mark.parametrize("place", ["current", "mounted"])
def test_a_place_that_no_folder_can_take_is_known_before_a_tokenizer_is_trained(tmp_path, monkeypatch, place):
    (tmp_path / "out").mkdir()
    if place == "current":
        monkeypatch.chdir(tmp_path / "out")
    else:
        monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "out")
    with pytest.raises(DataError, match="Choose a folder inside it"):
        preparation.check_destination(tmp_path / "out", overwrite=False)


def test_a_name_that_no_file_system_takes_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"Cannot write .*File name too long"):
        prepare(Corpus.of(stories(11)), tmp_path / ("x" * 300), SEPARATED)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_text_that_the_tokenizer_cannot_take_leaves_nothing(tmp_path, monkeypatch, n_workers):
    monkeypatch.setattr(preparation, "JOB_CHARACTERS", 97)
    with pytest.raises(TokenizerError, match="Ω"):
        prepare(
            Corpus.of([*["abc def."] * 101, "Ω"]),
            tmp_path / "out",
            LETTERS,
            n_workers=n_workers,
            val_fraction=0,
        )
    assert not list(tmp_path.iterdir())


def test_an_id_outside_the_vocabulary_never_reaches_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(CharTokenizer, "encode", lambda self, text: [len(LETTERS.special_tokens) + 10_007])
    with pytest.raises(TokenizerError, match=r"Token id 1\d+ is outside vocab_size"):
        prepare(Corpus.of(["abc def."] * 11), tmp_path / "out", LETTERS)
    assert not list(tmp_path.iterdir())


def test_too_little_text_to_split_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"has 1 characters, too few to keep 10%.*a lower val_fraction"):
        prepare(Corpus.of(["a"]), tmp_path / "out", LETTERS)


def test_an_empty_text_leaves_nothing(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="holds no text"):
        prepare(tmp_path / "empty.txt", tmp_path / "out", LETTERS)
    assert not (tmp_path / "out").exists()


def test_a_text_that_changes_while_it_is_read_is_an_error(tmp_path):
    passes = iter([["abc def."] * 11, ["abc def."] * 12])
    corpus = Corpus("growing", lambda: (sources.Piece(text, True) for text in next(passes)))
    with pytest.raises(DataError, match="growing changed while it was read: 88 bytes, then 96"):
        prepare(corpus, tmp_path / "out", LETTERS)
    assert not (tmp_path / "out").exists()


def test_settings_out_of_range_are_named_together(tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)shard_tokens=0.*n_workers=0"):
        prepare(Corpus.of(["abc"]), tmp_path / "out", LETTERS, shard_tokens=0, n_workers=0)
    for val_fraction in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=f"val_fraction={val_fraction}"):
            prepare(Corpus.of(["abc"]), tmp_path / "out", LETTERS, val_fraction=val_fraction)


ENDLESS = """
    import itertools, sys
    from pathlib import Path
    from glassgpt.data import Corpus, prepare, preparation
    from glassgpt.data.sources import Piece
    from glassgpt.tokenizers import CharTokenizer

    def pieces(passes=itertools.count()):
        yield Piece("abc def." * 997, False)
        if next(passes):                 # planned with one piece, tokenised without end
            yield from itertools.repeat(Piece("abc def." * 997, False))

    if __name__ == "__main__":
        preparation.JOB_CHARACTERS = 997
        corpus = Corpus("endless", pieces)
        prepare(
            corpus, Path(sys.argv[1]), CharTokenizer.train("abcdef. "),
            n_workers=int(sys.argv[2]), overwrite=True, val_fraction=0,
        )
"""


def wait_until(is_so):
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end, "did not happen within a minute"
        time.sleep(0.02)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("n_workers", [1, 2])
def test_kill_9_leaves_what_was_there(tmp_path, n_workers):
    out = tmp_path / "out"
    prepare(Corpus.of(stories(11)), out, SEPARATED)
    before = files_of(out)
    (tmp_path / "endless.py").write_text(textwrap.dedent(ENDLESS))
    process = subprocess.Popen([sys.executable, tmp_path / "endless.py", out, str(n_workers)])
    try:
        wait_until(lambda: any(path.stat().st_size > 99_991 for path in tmp_path.glob(".out.*/*.bin")))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert files_of(out) == before
    assert len(TokenShards.open(out, verify=True).train) > 0


def test_standard_input_can_be_prepared(tmp_path, monkeypatch):
    class Stdin:
        buffer = io.BytesIO("<|endoftext|>".join(stories(101)).encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    dataset = prepare(read_corpus("-"), tmp_path / "out", SEPARATED)
    both = documents_of(dataset.train, SEPARATED) + documents_of(dataset.val, SEPARATED)
    assert sorted(both) == sorted(stories(101))
