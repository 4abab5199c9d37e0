"""Google's word2vec vectors: 3,000,000 words and phrases, 300 numbers each, learnt from Google's news.

The file has 1.6 GB packed and 3.6 GB unpacked. It is fetched only on request, by one of two packages that
know where it lies. Mikolov et al. 2013, arXiv:1310.4546.
"""

import importlib
import os
from pathlib import Path
from typing import Literal, get_args

from glassgpt.checks import is_count, not_one_of
from glassgpt.embeddings.word2vec_files import load_word2vec
from glassgpt.embeddings.word_vectors import WordVectors
from glassgpt.errors import ConfigError, DataError, DownloadError
from glassgpt.storage import cache_folder

NAMES = ("GoogleNews-vectors-negative300.bin", "GoogleNews-vectors-negative300.bin.gz")
GENSIM_NAME = "word2vec-google-news-300"
KAGGLE_NAME = "leadbest/googlenewsvectorsnegative300"

Downloader = Literal["gensim", "kagglehub"]


def load_google_news(limit: int | None = None, *, download: Downloader | None = None) -> WordVectors:
    """Google's vectors, the `limit` most frequent words of them if that is given.

    Taken from `cache_folder()/word2vec`, or from where gensim's downloader keeps them. Nothing is fetched
    unless `download` names the package that shall do it: "gensim" (`gensim.downloader`) or "kagglehub". All
    words need 5 GB of memory, 100,000 of them 0.2 GB.

    Raises DataError when they are not there, ConfigError without the package or for a limit below 1,
    DownloadError when it fails.
    """
    if download is not None and download not in get_args(Downloader):
        raise ConfigError(not_one_of("download", download, Downloader))
    if limit is not None and not is_count(limit, 1):  # before 1.6 GB are fetched
        raise ConfigError(f"limit={limit!r} must be a number of words, at least 1, or None for all.")
    path = find_google_news()
    if path is None and download is not None:
        path = _fetch(download)
    if path is None:
        raise DataError(
            f"Google's vectors are not in {cache_folder() / 'word2vec'}. Put {NAMES[1]} there, or have it "
            'fetched (1.6 GB) with load_google_news(download="gensim"), or "kagglehub".'
        )
    return load_word2vec(path, limit, binary=True)


def find_google_news() -> Path | None:
    """Where the file lies, if it is on this machine."""
    gensim = Path(os.environ.get("GENSIM_DATA_DIR") or Path.home() / "gensim-data")
    places = [cache_folder() / "word2vec" / name for name in NAMES]
    places.append(gensim / GENSIM_NAME / f"{GENSIM_NAME}.gz")
    return next((path for path in places if path.is_file()), None)


def _fetch(downloader: Downloader) -> Path:
    try:
        package = importlib.import_module("gensim.downloader" if downloader == "gensim" else "kagglehub")
    except ImportError as fault:
        raise ConfigError(
            f"download={downloader!r} needs the package {downloader}, which is not installed: "
            f"pip install {downloader}"
        ) from fault
    try:
        if downloader == "gensim":
            found = Path(package.load(GENSIM_NAME, return_path=True))
        else:
            found = Path(package.dataset_download(KAGGLE_NAME))
    except Exception as fault:  # each package has errors of its own, and passes on others'
        raise DownloadError(
            f"{downloader} could not fetch Google's vectors: {fault}. Try again, or put {NAMES[1]} in "
            f"{cache_folder() / 'word2vec'} by other means."
        ) from fault
    files = [found] if found.is_file() else [path for name in NAMES for path in sorted(found.rglob(name))]
    if not files:
        raise DownloadError(f"{downloader} brought no {NAMES[1]} into {found}. Try the other downloader.")
    return files[0]
