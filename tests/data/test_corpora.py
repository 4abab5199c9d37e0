"""Corpora by name and by path; what a server can do wrong never reaches the final name."""

import contextlib
import gzip
import hashlib
import http.server
import re
import socket
import threading

import pytest

from glassgpt.data import CORPUS_NAMES, Corpus, corpora, read_corpus
from glassgpt.data.download import download
from glassgpt.errors import DataError, DownloadError

BODY = b"To be, or not to be: " * 9973
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write({"/short": BODY[:1009], "/endless": BODY + b"more"}.get(self.path, BODY))

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_download_appears_when_it_is_whole(server, tmp_path):
    path = tmp_path / "corpora" / "hamlet.txt"
    download(f"{server}/good", path, n_bytes=len(BODY), sha256=SHA256)
    assert path.read_bytes() == BODY
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("page", "sha256", "reason"),
    [
        ("good", "0" * 64, rf"its SHA-256 is {SHA256}, not 0000"),
        ("missing", SHA256, r"the server answers 404 Not Found"),
        ("short", SHA256, r"the connection broke off"),
        ("endless", SHA256, rf"more than {len(BODY):,} bytes came"),
    ],
)
def test_a_download_that_fails_leaves_nothing(server, tmp_path, page, sha256, reason):
    with pytest.raises(DownloadError, match=reason) as caught:
        download(f"{server}/{page}", tmp_path / "a.txt", n_bytes=len(BODY), sha256=sha256)
    assert f"put the file at {tmp_path / 'a.txt'}" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_no_network_is_one_clear_line(tmp_path):
    with socket.socket() as taken:  # bound, not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.txt"
        with pytest.raises(DownloadError, match="there is no connection to the server") as caught:
            download(url, tmp_path / "a.txt", n_bytes=7, sha256=SHA256)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_an_error(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file, not a folder"):
        download(f"{server}/good", tmp_path / "file" / "a.txt", n_bytes=len(BODY), sha256=SHA256)


def test_a_named_corpus_is_downloaded_once(server, tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    wanted = corpora._Download(f"{server}/good", len(BODY), SHA256)
    monkeypatch.setitem(corpora._DOWNLOADS, "tinyshakespeare", wanted)
    assert list(read_corpus("tinyshakespeare").documents()) == [BODY.decode()]
    monkeypatch.setitem(corpora._DOWNLOADS, "tinyshakespeare", wanted._replace(url="http://127.0.0.1:9/"))
    assert list(read_corpus("tinyshakespeare").documents()) == [BODY.decode()]


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


def test_a_folder_without_text_is_an_error(tmp_path):
    (tmp_path / "a.png").write_text("")
    with pytest.raises(DataError, match=r"holds no text: none of its files ends in \.txt"):
        read_corpus(tmp_path)


@pytest.mark.parametrize("text", ["", " \n\t\n", "<|endoftext|> \n<|endoftext|>"])
def test_an_empty_text_is_an_error(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DataError, match=r"a\.txt holds no text"):
        list(read_corpus(tmp_path / "a.txt").documents())


def test_texts_in_memory_are_a_corpus():
    corpus = Corpus.of(["one", " ", "two"], name="mine")
    assert corpus.name == "mine"
    assert list(corpus.documents()) == ["one", "two"]
