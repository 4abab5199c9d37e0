"""Google's vectors: found where they lie, and fetched by nobody who was not asked to."""

import sys
import types

import numpy as np
import pytest

from glassgpt.embeddings import load_google_news, write_word2vec
from glassgpt.embeddings.google_news import GENSIM_NAME, KAGGLE_NAME
from glassgpt.errors import ConfigError, DataError, DownloadError

NAME = "GoogleNews-vectors-negative300.bin"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """A cache and a folder of gensim's, both empty; and packages that must not be called."""
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GENSIM_DATA_DIR", str(tmp_path / "gensim"))
    stand_in(monkeypatch, "gensim.downloader", load=never)
    stand_in(monkeypatch, "kagglehub", dataset_download=never)


def stand_in(monkeypatch, name, **functions):
    module = types.ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


def never(*_, **__):
    raise AssertionError("a download began that nobody asked for")


@pytest.mark.parametrize("place", [f"cache/word2vec/{NAME}", f"cache/word2vec/{NAME}.gz"])
def test_the_file_in_the_cache_is_read(tmp_path, random_vectors, place):
    write_word2vec(random_vectors, tmp_path / place)

    for download in (None, "gensim"):
        np.testing.assert_array_equal(
            load_google_news(5, download=download).vectors, random_vectors.vectors[:5]
        )


def test_what_gensim_fetched_before_is_read(tmp_path, random_vectors):
    write_word2vec(random_vectors, tmp_path / "gensim" / GENSIM_NAME / f"{GENSIM_NAME}.gz", binary=True)

    assert load_google_news().words == random_vectors.words


def test_nothing_is_fetched_unasked(tmp_path):
    with pytest.raises(DataError, match=r"are not in .*word2vec.*download=\"gensim\""):
        load_google_news()


def test_gensim_fetches_on_request(tmp_path, monkeypatch, random_vectors):
    path = tmp_path / "elsewhere" / "file.gz"

    def load(name, return_path):
        assert (name, return_path) == (GENSIM_NAME, True)
        write_word2vec(random_vectors, path, binary=True)
        return str(path)

    stand_in(monkeypatch, "gensim.downloader", load=load)

    assert load_google_news(download="gensim").words == random_vectors.words


def test_kagglehub_fetches_on_request(tmp_path, monkeypatch, random_vectors):
    def dataset_download(name):
        assert name == KAGGLE_NAME
        write_word2vec(random_vectors, tmp_path / "kaggle" / "versions" / f"{NAME}.gz")
        return str(tmp_path / "kaggle")

    stand_in(monkeypatch, "kagglehub", dataset_download=dataset_download)

    assert load_google_news(download="kagglehub").words == random_vectors.words


def test_a_senseless_limit_is_refused_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr("glassgpt.embeddings.google_news._fetch", pytest.fail)

    with pytest.raises(ConfigError, match="limit=0 must be a number of words"):
        load_google_news(limit=0, download="gensim")


def test_a_download_that_fails_or_brings_nothing_is_explained(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ConnectionError("no route")

    stand_in(monkeypatch, "gensim.downloader", load=fails)
    with pytest.raises(DownloadError, match="gensim could not fetch Google's vectors: no route"):
        load_google_news(download="gensim")
    stand_in(monkeypatch, "kagglehub", dataset_download=lambda name: str(tmp_path))
    with pytest.raises(DownloadError, match="kagglehub brought no"):
        load_google_news(download="kagglehub")


def test_a_package_that_is_missing_or_unknown_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ConfigError, match="pip install kagglehub"):
        load_google_news(download="kagglehub")
    with pytest.raises(ConfigError, match="download='wget' is not one of gensim, kagglehub"):
        load_google_news(download="wget")
