"""The texts that Python carries: they differ between versions, so properties are tested, not words."""

import errno
import io
import os
import re
import sysconfig

import pytest

from glassgpt.data import embedded, read_corpus
from glassgpt.errors import DataError


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLASSGPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield list(read_corpus("embedded").documents())


@pytest.fixture
def paragraphs(documents):
    return [paragraph for document in documents for paragraph in document.strip().split("\n\n")]


def test_there_is_enough_for_a_demonstration(documents):
    assert len(documents) > 300
    assert 900_000 < sum(map(len, documents)) < 2_500_000


def test_a_paragraph_comes_once(paragraphs):
    assert len(set(paragraphs)) == len(paragraphs) > 5000


def test_every_paragraph_is_one_line_that_ends_as_a_sentence_does(paragraphs):
    assert all(re.search(r"[.!?][)\"']?$", paragraph) for paragraph in paragraphs)
    assert not any("\n" in paragraph or "  " in paragraph for paragraph in paragraphs)


@pytest.mark.parametrize("junk", [">>>", "::=", ":func:", ":class:", "----", "====", "`", "\\", "Copyright"])
def test_no_examples_tables_markup_or_licences_are_left(paragraphs, junk):
    assert not [paragraph for paragraph in paragraphs if junk in paragraph]


def test_a_cache_gives_the_same_documents_and_is_optional(documents, tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "fresh"))
    assert list(embedded.python_docs()) == documents
    assert len(list((tmp_path / "fresh" / "corpora").iterdir())) == 1
    assert list(embedded.python_docs()) == documents  # now from the file
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "file"))  # nothing can be written beneath a file
    assert list(embedded.python_docs()) == documents


@pytest.mark.parametrize(
    "damaged",
    [
        lambda whole: whole[: len(whole) // 3],
        lambda whole: whole[:100_003] + b"\xff" + whole[100_004:],
        lambda whole: whole[:100_003] + bytes([whole[100_003] ^ 1]) + whole[100_004:],
        lambda whole: b"",
    ],
    ids=["cut", "not UTF-8", "altered", "empty"],
)
def test_a_damaged_cache_is_written_again(documents, tmp_path, monkeypatch, damaged):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    assert list(embedded.python_docs()) == documents
    (path,) = (tmp_path / "corpora").iterdir()
    whole = path.read_bytes()

    path.write_bytes(damaged(whole))

    assert list(embedded.python_docs()) == documents
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_read_costs_time_and_nothing_else(documents, tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    assert list(embedded.python_docs()) == documents
    (path,) = (tmp_path / "corpora").iterdir()
    opened = io.open

    def closed(file, *args, **kwargs):
        if file == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(file, *args, **kwargs)

    monkeypatch.setattr(io, "open", closed)
    assert list(embedded.python_docs()) == documents


def test_python_code_is_the_library_without_its_tests():
    sources = list(embedded.python_code())
    assert 5_000_000 < sum(map(len, sources)) < 30_000_000
    assert any("class JSONEncoder" in source for source in sources)


def test_a_python_without_sources_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="carries no source of its library"):
        list(embedded.python_code())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Return the :class:`~a.B` that ``name`` is bound to,\nor *None* if there is [2]_ none.",
            ["Return the a.B that name is bound to, or None if there is none."],
        ),
        (
            "The value is rounded as it should be -- see `round'.\n\n>>> round(2.5)\n2\n",
            ["The value is rounded as it should be – see round."],
        ),
        (
            "There are two ways to do that:\n\n- The first one is to wait for it.\n- The second one is not"
            " to wait\n  until it has come.\n",
            ["The first one is to wait for it.", "The second one is not to wait until it has come."],
        ),
        (
            "Name    Meaning\n------  -------\na       the first of all the letters that are there.",
            [],
        ),
        ("open(file, mode='r') is what you call if the file is to be read.", []),
        ("Of no use.", []),
        ("Foo bar baz qux quux corge grault garply waldo.", []),
        (
            "value is what the caller of this function has given it.",
            ["value is what the caller of this function has given it."],
        ),
        ("half of a sentence that has lost the beginning of it.", []),
    ],
)
def test_prose_is_kept_and_nothing_else(text, expected):
    assert list(embedded.prose(text)) == expected
