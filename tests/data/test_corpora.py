"""Corpora by name and by path."""

import errno
import gzip
import hashlib
import os
import re
from pathlib import Path

import pytest

from glassgpt.data import CORPUS_NAMES, Corpus, corpora, read_corpus
from glassgpt.errors import DataError, DownloadError, TokenizerError
from tests.data.misbehaving_server import Server, good

BODY = b"To be, or not to be: " * 9973


def test_a_named_corpus_is_downloaded_once(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    with Server([good(BODY)]) as server:
        wanted = corpora._Download(f"{server.url}/hamlet", len(BODY), hashlib.sha256(BODY).hexdigest())
        monkeypatch.setitem(corpora._DOWNLOADS, "tinyshakespeare", wanted)
        for _ in range(2):
            assert list(read_corpus("tinyshakespeare").documents()) == [BODY.decode()]
    assert len(server.log) == 1


def test_a_corpus_that_is_not_the_one_expected_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    with Server([good(BODY)]) as server:
        wanted = corpora._Download(f"{server.url}/hamlet", len(BODY), "0" * 64)
        monkeypatch.setitem(corpora._DOWNLOADS, "tinyshakespeare", wanted)
        with pytest.raises(DownloadError, match="its SHA-256 is"):
            read_corpus("tinyshakespeare")
    assert not list((tmp_path / "corpora").iterdir())


def test_an_altered_file_in_the_cache_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    path = tmp_path / "corpora" / "the-verdict.txt"
    path.parent.mkdir()
    path.write_bytes(b"x" * 20_479)
    with pytest.raises(DataError, match=rf"{re.escape(str(path))} is not the-verdict.*Remove it"):
        read_corpus("the-verdict")


@pytest.mark.parametrize("name", ["tinyshakespeare", "the-verdict"])
def test_digests_are_those_of_the_published_files(cache, monkeypatch, name):
    monkeypatch.setenv("GLASSGPT_CACHE", str(cache))
    (document,) = read_corpus(name).documents()
    assert document == (cache / "corpora" / f"{name}.txt").read_text(encoding="utf-8")


def test_an_unknown_name_suggests_a_neighbour_and_lists_all():
    with pytest.raises(
        DataError, match=r"no corpus, file or folder 'tinyshakespear'.*mean tinyshakespeare\?"
    ) as e:
        read_corpus("tinyshakespear")
    assert all(name in str(e.value) for name in CORPUS_NAMES)
    with pytest.raises(DataError) as e:
        read_corpus("qqqq")
    assert "Did you mean" not in str(e.value)


def test_a_folder_gives_its_text_files_in_order(tmp_path):
    for name in ("b.txt", "a/z.md", "a/.hidden/no.txt", ".no.txt", "a/picture.png", "c/UPPER.TXT", "a/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "c" / "d.rst.gz").write_bytes(gzip.compress(b"c/d.rst.gz"))
    assert list(read_corpus(tmp_path).documents()) == ["a/z.md", "b.txt", "c/UPPER.TXT", "c/d.rst.gz"]


def test_a_pattern_gives_every_file_that_fits_in_order(tmp_path):
    for name in ("b.tex", "a/z.tex", "a/y.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    corpus = read_corpus(f"{tmp_path}/**/*.tex")
    assert list(corpus.documents()) == list(corpus.documents()) == ["a/z.tex", "b.tex"]
    assert corpus.n_bytes == 12


@pytest.mark.parametrize("source", ["~/a.txt", "~", "~/*.txt"])
def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch, source):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # HOME on Windows
    (tmp_path / "a.txt").write_text("at home", encoding="utf-8")
    assert list(read_corpus(source).documents()) == ["at home"]


def test_a_path_is_never_the_name_of_a_corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("embedded", "the-verdict", "-"):
        (tmp_path / name).write_text("mine", encoding="utf-8")
        assert list(read_corpus(Path(name)).documents()) == ["mine"]


def test_an_empty_name_is_an_error_and_not_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("private", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"name of the corpus is empty\. Corpora: embedded, "):
        read_corpus("")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + "/*.txt", "a\0b"])
def test_a_name_that_no_file_can_have_is_an_error(name):
    with pytest.raises(DataError, match=r"Cannot read x+.*File name too long|There is no corpus"):
        read_corpus(name)


def test_a_link_to_a_file_that_is_gone_is_an_error(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(DataError, match=r"Cannot read .*a\.txt: No such file"):
        read_corpus(tmp_path)


def test_a_folder_inside_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.txt").write_text("open", encoding="utf-8")
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match=r"Cannot read .*closed: Permission denied\. Ask for"):
        read_corpus(tmp_path)


def test_a_link_to_a_folder_is_not_followed(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("here", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text("there", encoding="utf-8")
    (tmp_path / "texts" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert list(read_corpus(tmp_path / "texts").documents()) == ["here"]


def test_a_folder_without_text_is_an_error(tmp_path):
    (tmp_path / "a.png").write_text("")
    with pytest.raises(DataError, match=r"holds no text: none of its files ends in \.txt"):
        read_corpus(tmp_path)


@pytest.mark.parametrize("text", ["", " \n\t\n", "<|endoftext|> \n<|endoftext|>"])
def test_an_empty_text_is_an_error(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DataError, match=r"a\.txt holds no text"):
        list(read_corpus(tmp_path / "a.txt").documents())


def test_one_string_is_one_document_and_not_its_characters():
    assert list(Corpus.of("To be, or not to be").documents()) == ["To be, or not to be"]


@pytest.mark.parametrize(
    ("text", "message"), [("a\ud800b", "lone surrogate, U\\+D800"), (b"bytes", "got bytes")]
)
def test_what_is_no_text_is_refused_at_once(text, message):
    with pytest.raises(TokenizerError, match=message):
        Corpus.of(["fine", text])


def test_texts_in_memory_are_a_corpus():
    corpus = Corpus.of(["one", " ", "two"], name="mine")
    assert corpus.name == "mine"
    assert list(corpus.documents()) == ["one", "two"]
