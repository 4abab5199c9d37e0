"""A server that misbehaves: the right file under its name, or none and a line that says why."""

import base64
import contextlib
import errno
import gzip
import hashlib
import io
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest
import requests

from glassgpt.data import transfer
from glassgpt.data.download import Expected, download
from glassgpt.data.locking import exclusive
from glassgpt.data.patience import Patience, asked_wait_seconds
from glassgpt.data.progress import byte_bar
from glassgpt.errors import DownloadError
from tests.data.misbehaving_server import (
    BODY,
    ETAG,
    Server,
    chunked,
    cut,
    drip,
    good,
    hang_up,
    raw,
    reset_now,
    send,
    silence,
    status,
    whole,
)

N = len(BODY)
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()
WRONG_MD5 = base64.b64encode(bytes(16)).decode()
OTHER = BODY[::-1]
KNOWN = Expected(n_bytes=N, sha256=SHA256)
UNKNOWN = Expected()
HTML = b"<!DOCTYPE html><title>Log in to this network</title>"


class Sleeps(list):
    """Instead of sleeping: a list of what would have been slept."""

    def __call__(self, seconds):
        self.append(seconds)


def fetch(server, path, expected=KNOWN, **patience):
    options = {"n_tries": 4, "stall_seconds": 5.0, "sleep": Sleeps()} | patience
    return download(f"{server.url}/file", path, expected, progress=False, patience=Patience(**options))


def left_over(folder):
    return sorted(path.name for path in folder.iterdir())


def whatever_was_meant(request, connection):
    """The rest of the file that there is now, where the client asked for the rest of an earlier one."""
    here = f"bytes 4093-{N - 1}/{N}"
    send(request, connection, "206 Partial Content", BODY[4093:], ETag=ETAG, Content_Range=here)


def no_rest_of_anything(request, connection):
    """416 to whoever asks for a range, the file to others."""
    (status("416 Range Not Satisfiable") if "range" in request.headers else good())(request, connection)


# What a server did, and then did right: (its answers, how many requests the file takes).
MENDED = {
    **{f"cut after {n:,} bytes": ([cut(n), good()], 2) for n in (0, 1, 2, 4093, 8191, 16_384, N - 2, N - 1)},
    **{f"reset after {n:,} bytes": ([cut(n, reset=True), good()], 2) for n in (0, 1, 4093, N - 1)},
    "cut three times": ([cut(101), cut(4093), cut(7), good()], 4),
    "reset before the headers": ([reset_now, good()], 2),
    "hung up before the headers": ([hang_up, good()], 2),
    "cut inside the headers": ([raw(b"HTTP/1.1 200 OK\r\nContent-Le"), good()], 2),
    "garbage for a status line": ([raw(b"\x16\x03\x01 I am no web server\r\n\r\n"), good()], 2),
    "garbage for a status": ([raw(b"HTTP/1.1 abc OK\r\n\r\n"), good()], 2),
    "500, then the file": ([status("500 Internal Server Error"), good()], 2),
    "502 and 504, then the file": ([status("502 Bad Gateway"), status("504 Gateway Timeout"), good()], 3),
    "503, then the file": ([status("503 Service Unavailable"), good()], 2),
    "429, then the file": ([status("429 Too Many Requests"), good()], 2),
    "408, then the file": ([status("408 Request Timeout"), good()], 2),
    "200 for 206": ([cut(4093), whole(ETag=ETAG)], 2),
    "206 from another place": ([cut(4093), good(Content_Range=f"bytes 5-{N - 1}/{N}"), good()], 3),
    "206 of another length": ([cut(4093), good(Content_Range=f"bytes 4093-{N}/{N + 1}"), good()], 3),
    "206 without its range": ([cut(4093), good(Content_Range=None), good()], 3),
    "206 with a garbled range": ([cut(4093), good(Content_Range="bytes four-five/six"), good()], 3),
    "206 in several parts": (
        [cut(4093), good(Content_Range=None, Content_Type="multipart/byteranges; boundary=x"), good()],
        3,
    ),
    "206 of another file with that ETag": (
        [cut(4093, body=OTHER, etag='"v0"'), good(etag='"v0"'), good()],
        3,
    ),
    "206 whose ETag is another": (
        [cut(4093, body=OTHER, etag='"v0"'), whatever_was_meant, good()],
        3,
    ),
    "206 of half the rest": ([cut(4093), cut(4093), good()], 3),
    "changed between two tries": ([cut(4093, body=OTHER, etag='"v0"'), good()], 2),
    "changed to a shorter file": ([cut(N, body=BODY + OTHER, etag='"v0"'), good()], 2),
    "no validator to go on with": ([cut(4093, body=OTHER, etag=None), good(etag=None)], 2),
    "a weak validator": ([cut(4093, body=OTHER, etag='W/"v1"'), good(etag='W/"v1"')], 2),
    "416 to every rest": ([cut(4093), no_rest_of_anything], 3),
    "chunks that break off": ([chunked(end=b""), good()], 2),
    "chunks with a garbled length": ([chunked(end=b"zz\r\n"), good()], 2),
    "a body that ends with the line": ([raw(b"HTTP/1.0 200 OK\r\n\r\n" + BODY[:1009]), good()], 2),
    "a redirect to another path": (
        [status("302 Found", Location="/elsewhere/file"), good()],
        2,
    ),
    "a redirect, and then a cut": (
        [
            status("302 Found", Location="/a"),
            cut(4093),
            status("307 Temporary Redirect", Location="/a"),
            good(),
        ],
        4,
    ),
}
APART = {
    ("changed to a shorter file", KNOWN): "a length that is known forbids it",
    ("a body that ends with the line", UNKNOWN): "refused, as no length is told",
    ("cut inside the headers", UNKNOWN): "the same: the header that tells it did not come",
    ("206 of another file with that ETag", UNKNOWN): "a lie that only a checksum finds",
}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param(case, expected, id=f"{case}, {'digest known' if expected is KNOWN else 'nothing known'}")
        for case in MENDED
        for expected in (KNOWN, UNKNOWN)
        if (case, expected) not in APART
    ],
)
def test_what_goes_wrong_on_the_way_is_mended(case, expected, tmp_path):
    answers, n_requests = MENDED[case]
    path = tmp_path / "folder" / "file"
    with Server(answers) as server:
        assert fetch(server, path, expected)
    assert path.read_bytes() == BODY
    assert left_over(path.parent) == ["file"]
    assert len(server.log) == n_requests


# What no further try mends: (the answers, what is known of the file, what the message says).
GIVEN_UP = {
    "404": ([status("404 Not Found")], KNOWN, r"the server answers 404 Not Found"),
    "403": ([status("403 Forbidden")], KNOWN, r"the server answers 403 Forbidden"),
    "401": ([status("401 Unauthorized")], KNOWN, r"the server answers 401"),
    "410, without a reason": ([status("410 ")], KNOWN, r"the server answers 410\."),
    "204": ([raw(b"HTTP/1.1 204 No Content\r\n\r\n")], KNOWN, r"the server answers 204"),
    "206 to the first request": ([status("206 Partial Content")], KNOWN, r"the server answers 206"),
    "304 to the first request": ([raw(b"HTTP/1.1 304 Not Modified\r\n\r\n")], KNOWN, r"answers 304"),
    "a redirect to nowhere": ([status("302 Found")], KNOWN, r"the server answers 302"),
    "a redirect loop": ([status("302 Found", Location="/again")], KNOWN, r"redirects more than 5 times"),
    "a redirect to a file": ([status("302 Found", Location="file:///etc/passwd")], KNOWN, r"file://"),
    "a redirect to no address": ([status("302 Found", Location="http://[")], KNOWN, r"Cannot download"),
    "fewer bytes than it has": ([whole(BODY[:-1])], KNOWN, rf"has {N - 1:,} bytes for it, not {N:,}"),
    "more bytes than it has": ([whole(BODY + b"!")], KNOWN, rf"has {N + 1:,} bytes for it, not {N:,}"),
    "more bytes than it has, in chunks": ([chunked(BODY + b"!")], KNOWN, rf"more than {N:,} bytes came"),
    "another file of its length": ([whole(OTHER)], KNOWN, rf"its SHA-256 is [0-9a-f]{{64}}, not {SHA256}"),
    "an empty body": ([whole(b"")], KNOWN, rf"has 0 bytes for it, not {N:,}"),
    "an empty body, length unknown": ([whole(b"")], UNKNOWN, r"it is empty"),
    "no length at all": ([raw(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)], UNKNOWN, r"does not say how long it is"),
    "a length that is no number": ([whole(Content_Length="many")], UNKNOWN, r"does not say how long it is"),
    "a web page": ([whole(HTML, Content_Type="text/html; charset=utf-8")], UNKNOWN, r"a web page comes"),
    "a web page of the right length": (
        [whole(HTML, Content_Type="application/octet-stream")],
        Expected(problem=lambda path: "it is no checkpoint" if path.read_bytes() == HTML else None),
        r"it is no checkpoint",
    ),
    "a compressed body": (
        [whole(gzip.compress(BODY), Content_Encoding="gzip")],
        UNKNOWN,
        r"comes compressed \(gzip\)",
    ),
    "another MD5 than it says": ([good(Content_MD5=WRONG_MD5)], UNKNOWN, rf"MD5 is {re.escape(MD5)}"),
    "another MD5 than the blob's": (
        [good(x_ms_blob_content_md5=WRONG_MD5)],
        UNKNOWN,
        rf"and the server said {WRONG_MD5}",
    ),
    "an MD5 that is none": ([good(Content_MD5="none")], UNKNOWN, r"and the server said none"),
    "500 for ever": ([status("500 Internal Server Error")], KNOWN, r"answers 500 .* last of 4 tries"),
    "503 for ever": ([status("503 Service Unavailable")], KNOWN, r"answers 503 .* last of 4 tries"),
    "429 and a wait of days": (
        [status("429 Too Many Requests", Retry_After="172800")],
        KNOWN,
        r"asks to be left alone for 172,800 seconds",
    ),
    "garbage for ever": ([raw(b"\0" * 1009)], KNOWN, r"the connection broke off, at the last of 4 tries"),
    "headers without end": (
        [raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1009 + b"\r\n")],
        KNOWN,
        r"the connection broke off",
    ),
}


@pytest.mark.parametrize("case", GIVEN_UP)
def test_what_cannot_be_mended_is_one_line_and_leaves_nothing(case, tmp_path):
    answers, expected, message = GIVEN_UP[case]
    path = tmp_path / "folder" / "file"
    with Server(answers) as server, pytest.raises(DownloadError, match=message) as caught:
        fetch(server, path, expected)
    assert f"put the file at {path} by other means." in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left_over(path.parent) == []


def test_there_are_forty_misbehaviours_and_more():
    assert len(MENDED) + len(GIVEN_UP) > 60


def test_a_good_server_is_asked_once_and_never_for_a_compressed_form(tmp_path):
    with Server([good(Content_MD5=MD5)]) as server:
        assert fetch(server, tmp_path / "file")
        assert not fetch(server, tmp_path / "file"), "what is there and right is not fetched again"
    (request,) = server.log
    assert request.headers["accept-encoding"] == "identity"
    assert "range" not in request.headers


def test_resuming_asks_for_the_rest_alone(tmp_path):
    with Server([cut(16_384), good()]) as server:
        fetch(server, tmp_path / "file")
    assert server.log[1].headers["range"] == "bytes=16384-"
    assert server.log[1].headers["if-range"] == ETAG
    assert [request.n_sent for request in server.log] == [16_384, N - 16_384]


def test_resuming_by_the_date_of_the_last_change(tmp_path):
    date = "Wed, 25 Sep 2019 17:11:07 GMT"
    with Server([cut(4093, etag=None), good(etag=None)]) as server:
        server.answers[0] = lambda request, connection: connection.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Length: {N}\r\nLast-Modified: {date}\r\n\r\n".encode() + BODY[:4093]
        )
        fetch(server, tmp_path / "file")
    assert server.log[1].headers["if-range"] == date


def test_a_download_given_up_goes_on_at_the_next_call(tmp_path):
    path = tmp_path / "file"
    with Server([cut(4093), status("404 Not Found"), good()]) as server:
        with pytest.raises(DownloadError, match=r"goes on after the 4,093 bytes that came"):
            fetch(server, path)
        assert not path.exists()
        fetch(server, path)
    assert path.read_bytes() == BODY
    assert [request.n_sent for request in server.log] == [4093, 2, N - 4093]


def test_a_part_of_another_address_is_not_gone_on_with(tmp_path):
    path = tmp_path / "file"
    with Server([cut(4093)]) as server, pytest.raises(DownloadError):
        fetch(server, path, n_tries=1)
    with Server([good()]) as server:
        fetch(server, path)
    assert "range" not in server.log[0].headers
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("note", ["", "{", "[]", '{"url": 1}'])
def test_a_part_whose_note_is_damaged_is_not_gone_on_with(note, tmp_path):
    with Server([cut(4093), status("404 Not Found"), good()]) as server:
        with pytest.raises(DownloadError):
            fetch(server, tmp_path / "file")
        (tmp_path / ".file.part.json").write_text(note)
        fetch(server, tmp_path / "file")
    assert "range" not in server.log[-1].headers
    assert left_over(tmp_path) == ["file"]


def test_pieces_of_two_files_are_found_out_and_fetched_anew(tmp_path):
    """A server that changes a file and keeps its ETag is lying; the checksum is not."""
    with Server([cut(4093, body=OTHER), good(), good()]) as server:
        fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert ["range" in request.headers for request in server.log] == [False, True, False]


def test_a_part_that_is_whole_is_checked_and_not_fetched(tmp_path, monkeypatch):
    """A process can end between the last byte and the name."""
    with Server([good()]) as server:
        with monkeypatch.context() as patch:
            patch.setattr(transfer.Part, "become", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                fetch(server, tmp_path / "file")
        assert fetch(server, tmp_path / "file")
    assert len(server.log) == 1
    assert left_over(tmp_path) == ["file"]


def test_a_wrong_file_under_the_final_name_is_replaced(tmp_path):
    (tmp_path / "file").write_bytes(BODY[:1009])
    with Server([good()]) as server:
        assert fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_wrong_file_stays_where_no_right_one_comes(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with Server([status("404 Not Found")]) as server, pytest.raises(DownloadError):
        fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_body_in_chunks_needs_no_length(tmp_path):
    with Server([chunked()]) as server:
        fetch(server, tmp_path / "file", UNKNOWN)
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize("answer", [drip(97, 0.005), silence(0.3)], ids=["drips", "is silent"])
def test_a_server_that_hardly_sends_is_not_waited_for(answer, tmp_path):
    with Server([answer, good()]) as server:
        start = time.monotonic()
        fetch(server, tmp_path / "file", stall_seconds=0.1)
    assert time.monotonic() - start < 5
    assert (tmp_path / "file").read_bytes() == BODY


def test_what_a_dripping_server_sent_is_kept(tmp_path):
    with Server([drip(10_000, 0.001), good()]) as server:
        fetch(server, tmp_path / "file", stall_seconds=0.05)
    assert server.log[0].n_sent < 10_000, "it was left while it still dripped"
    assert int(server.log[1].headers["range"].removeprefix("bytes=").removesuffix("-")) > 0


def test_waits_double_with_some_chance_in_them(tmp_path):
    sleeps = Sleeps()
    with Server([status("500 Oops")]) as server, pytest.raises(DownloadError):
        fetch(server, tmp_path / "file", KNOWN, n_tries=9, sleep=sleeps)
    assert len(server.log) == 9
    assert len(sleeps) == 8, "no wait after the last try"
    longest = [1, 2, 4, 8, 16, 32, 60, 60]
    assert all(most / 2 <= slept <= most for slept, most in zip(sleeps, longest, strict=True))
    assert sleeps != longest


def test_a_server_that_asks_for_a_wait_gets_it(tmp_path):
    sleeps = Sleeps()
    with Server([status("503 Busy", Retry_After="7"), good()]) as server:
        fetch(server, tmp_path / "file", sleep=sleeps)
    assert sleeps == [7.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("soon", None), ("-5", None), ("", None), ("0", 0), (" 17 ", 17), ("1" + "0" * 20, 1e20)],
)
def test_retry_after_is_read_or_passed_over(header, seconds):
    assert asked_wait_seconds(header) == seconds


def test_retry_after_may_be_a_date():
    assert asked_wait_seconds(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=5)
    assert asked_wait_seconds(formatdate(time.time() - 100, usegmt=True)) == 0
    in_no_zone = formatdate(time.time() + 100)
    assert in_no_zone.endswith("-0000")
    assert asked_wait_seconds(in_no_zone) == pytest.approx(100, abs=5)


def test_no_server_is_one_line_at_once(tmp_path):
    sleeps = Sleeps()
    with socket.socket() as taken:  # bound, not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file"
        with pytest.raises(DownloadError, match="there is no connection to the server") as caught:
            download(url, tmp_path / "file", KNOWN, progress=False, patience=Patience(sleep=sleeps))
    assert "\n" not in str(caught.value)
    assert sleeps == []
    assert left_over(tmp_path) == []


def test_a_server_that_goes_away_is_waited_for(tmp_path, monkeypatch):
    """Unlike one that was never there: what went away may come back."""
    get = requests.Session.get
    sleeps = Sleeps()

    def away_for_two_tries(session, *arguments, **options):
        if 1 <= len(sleeps) <= 2:
            raise requests.ConnectTimeout
        return get(session, *arguments, **options)

    monkeypatch.setattr(requests.Session, "get", away_for_two_tries)
    with Server([cut(4093), good()]) as server:
        fetch(server, tmp_path / "file", sleep=sleeps)
    assert len(sleeps) == 3
    assert [request.n_sent for request in server.log] == [4093, N - 4093]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/file", "http://", "/file", "http://[/"])
def test_an_address_that_is_none_is_an_error(url, tmp_path):
    with pytest.raises(DownloadError, match="Cannot download"):
        download(url, tmp_path / "file", KNOWN, progress=False)


def test_a_certificate_that_nobody_signed_is_refused(tmp_path, self_signed):
    with pytest.raises(DownloadError, match="its certificate cannot be verified"):
        download(f"{self_signed}/file", tmp_path / "file", KNOWN, progress=False)
    assert left_over(tmp_path) == []


def test_a_redirect_away_from_https_is_refused():
    class Hop:
        def __init__(self, url):
            self.url, self.status_code, self.reason, self.headers = url, 200, "OK", {}
            self.history = []

    answer = Hop("http://mirror.example/file")
    answer.history = [Hop("https://example.com/file")]
    with pytest.raises(transfer.Refused, match="redirects from https"):
        transfer._check_answer(answer, None, resuming=False)


def test_a_disk_without_room_is_known_before_it_is_full(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1009))
    with Server([good()]) as server, pytest.raises(DownloadError, match=r"the disk has room for 1,009"):
        fetch(server, tmp_path / "file")
    assert left_over(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_a_disk_that_fills_up_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer.Part, "begin", lambda part, origin: part.path.symlink_to("/dev/full"))
    with Server([good()]) as server, pytest.raises(DownloadError, match="The disk is full"):
        fetch(server, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="is a file, not a folder"):
        download("http://127.0.0.1:9/", tmp_path / "file" / "a", KNOWN, progress=False)


def test_a_folder_without_permission_is_an_error(tmp_path, monkeypatch):
    def forbidden(*_, **__):  # permissions do not stop root, who runs the tests in containers
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(DownloadError, match="No permission"):
        download("http://127.0.0.1:9/", tmp_path / "new" / "a", KNOWN, progress=False)


def test_two_at_once_fetch_it_once(tmp_path):
    path = tmp_path / "file"
    results = []
    with Server([drip(0, 0), good()]) as server:
        server.answers = [lambda request, connection: (time.sleep(0.2), good()(request, connection))]
        threads = [threading.Thread(target=lambda: results.append(fetch(server, path))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == [False, False, False, False, True]
    assert len(server.log) == 1
    assert path.read_bytes() == BODY
    assert left_over(tmp_path) == ["file"]


def test_the_lock_keeps_others_out_and_tells_them(tmp_path):
    inside, waited = [], []

    def enter():
        with exclusive(tmp_path / "lock", lambda: waited.append(True)):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.005)
            inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not inside
    assert waited
    assert left_over(tmp_path) == []


PROGRAM = """
import sys
from pathlib import Path
from glassgpt.data.download import Expected, download
download(sys.argv[1], Path(sys.argv[2]), Expected(), progress=False)
"""


def test_a_killed_download_goes_on_where_it_stopped(tmp_path):
    """SIGKILL half-way: its lock stops nobody, and what it got is not fetched again."""
    path = tmp_path / "file"
    half = N // 2
    stop = threading.Event()

    def stall(request, connection):
        cut(half)(request, connection)
        stop.wait(60)

    with Server([stall, good()]) as server:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, f"{server.url}/file", str(path)])
        part = tmp_path / ".file.part"
        with contextlib.ExitStack() as stack:
            stack.callback(stop.set)
            deadline = time.monotonic() + 60
            # The file object of a killed process takes its last buffer along: up to 8 KiB.
            while not part.exists() or part.stat().st_size < half - 8192:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
            process.wait()
        n_kept = part.stat().st_size
        assert not path.exists()
        assert fetch(server, path, UNKNOWN)
    assert path.read_bytes() == BODY
    assert server.log[1].headers["range"] == f"bytes={n_kept}-"
    assert server.log[1].n_sent == N - n_kept < N
    assert left_over(tmp_path) == ["file"]


def test_a_bar_goes_on_where_the_file_does(tmp_path, monkeypatch, capsys):
    bars = []

    class Bar(contextlib.nullcontext):
        def __init__(self, name, n_bytes, progress, n_done):
            super().__init__(self)
            self.state = [name, n_bytes, n_done, 0]
            bars.append(self.state)

        def update(self, n):
            self.state[3] += n

    monkeypatch.setattr(transfer, "byte_bar", Bar)
    with Server([cut(4093), good()]) as server:
        download(f"{server.url}/file", tmp_path / "file", KNOWN, patience=Patience(sleep=Sleeps()))
    assert bars == [["file", N, 0, 4093], ["file", N, 4093, N - 4093]]
    assert re.search(r"file: the connection broke off; try 2 of 8 in \d\.\d s", capsys.readouterr().err)


def test_the_bar_on_a_terminal_shows_speed_and_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with byte_bar("file", 1000, True, n_done=500) as bar:
        bar.start_t -= 5
        bar.update(250)
        bar.refresh()
    assert re.search(r"75%.* 750/1.00k \[00:05<00:0[45], [45]\d\.\dB/s", sys.stderr.getvalue())


@pytest.fixture
def self_signed(tmp_path):
    """The address of a server with a certificate that it made itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl, to make a certificate (Debian: apt install openssl)")
    folder = tmp_path.parent / f"{tmp_path.name}-certificate"
    folder.mkdir()
    options = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out certificate.pem"
    names = "-days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    command = ["openssl", "req", "-x509", *options.split(), *names.split()]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake_hands():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection, contextlib.suppress(ssl.SSLError):
                    context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=shake_hands)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()
