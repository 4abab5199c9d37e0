"""What a transfer decides: to try again or not, to go on or begin anew, to wait or leave."""

import contextlib
import os
import shutil
import sys
import threading
import time

import pytest
import requests

from glassgpt.data import transfer
from glassgpt.data.download import Expected, download
from glassgpt.data.locking import exclusive
from glassgpt.errors import DownloadError
from tests.data.misbehaving_server import BODY, ETAG, Server, chunked, cut, good, send, silence, status, whole
from tests.data.test_download import HTML, KNOWN, OTHER, UNKNOWN, N, fetch

# ---- which answers are worth another try, and where that one begins ----


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(code, tmp_path):
    with Server([status(f"{code} Later"), good()]) as server:
        fetch(server, tmp_path / "file")
    assert len(server.log) == 2


@pytest.mark.parametrize(
    "answer", [status(f"{code} No") for code in (400, 401, 403, 404, 410)] + [whole(OTHER)]
)
def test_what_will_not_pass_is_asked_for_once(answer, tmp_path):
    with Server([answer]) as server, pytest.raises(DownloadError):
        fetch(server, tmp_path / "file")
    assert len(server.log) == 1


def test_a_redirect_loop_is_left_after_five(tmp_path):
    with Server([status("302 Found", Location="/again")]) as server, pytest.raises(DownloadError):
        fetch(server, tmp_path / "file")
    assert len(server.log) == 1 + transfer.MAX_REDIRECTS == 6


def test_a_rest_from_the_wrong_place_has_it_begin_anew(tmp_path):
    with Server([cut(4093), good(Content_Range=f"bytes 5-{N - 1}/{N}"), good()]) as server:
        fetch(server, tmp_path / "file")
    assert ["range" in request.headers for request in server.log] == [False, True, False]


def test_a_part_of_unknown_length_is_not_gone_on_with(tmp_path):
    with Server([chunked(end=b"", headers=f"ETag: {ETAG}\r\n"), good()]) as server:
        fetch(server, tmp_path / "file", UNKNOWN)
    assert "range" not in server.log[1].headers
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_part_of_a_file_of_another_length_is_not_gone_on_with(tmp_path):
    path = tmp_path / "file"
    longer = cut(4093, body=BODY + OTHER)
    with Server([longer, status("404 Not Found"), good()]) as server:
        with pytest.raises(DownloadError):
            fetch(server, path, UNKNOWN)
        fetch(server, path, KNOWN)
    assert "range" not in server.log[2].headers
    assert path.read_bytes() == BODY


def test_a_part_that_is_too_long_is_not_gone_on_with(tmp_path):
    path = tmp_path / "file"
    with Server([cut(4093), status("404 Not Found"), good()]) as server:
        with pytest.raises(DownloadError):
            fetch(server, path, UNKNOWN)
        (tmp_path / ".file.part").write_bytes(BODY + b"!")
        fetch(server, path, UNKNOWN)
    assert "range" not in server.log[2].headers
    assert path.read_bytes() == BODY


# ---- what a body may claim of itself ----


def test_a_body_that_is_said_to_be_itself_is_taken(tmp_path):
    with Server([whole(Content_Encoding="Identity")]) as server:
        assert fetch(server, tmp_path / "file")


def test_a_web_page_is_one_in_capitals_too(tmp_path):
    with (
        Server([whole(HTML, Content_Type="Text/HTML")]) as server,
        pytest.raises(DownloadError, match="a web page"),
    ):
        fetch(server, tmp_path / "file", UNKNOWN)


def test_a_length_beside_chunks_means_nothing(tmp_path):
    """RFC 9112 §6.3: the chunks tell where the body ends."""
    with Server([chunked(headers="Content-Length: 5\r\n")]) as server:
        fetch(server, tmp_path / "file", UNKNOWN)
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_body_without_end_is_not_read_to_its_end(tmp_path):
    def endless(request, connection):
        send(request, connection, "200 OK", Content_Length=None, Transfer_Encoding="chunked", ETag=ETAG)
        block = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
        for _ in range(4096):  # 268 MB, which is end enough for a test
            connection.sendall(block)
            request.n_sent += len(block)

    with Server([endless]) as server, pytest.raises(DownloadError, match="bytes came"):
        fetch(server, tmp_path / "file")
    assert server.log[0].n_sent < 64e6  # what was under way when the line was closed


def test_a_file_of_another_length_is_another_file(tmp_path):
    (tmp_path / "file").write_bytes(BODY[:-1])
    assert Expected(n_bytes=N).difference(tmp_path / "file") == f"it has {N - 1:,} bytes, not {N:,}"


# ---- slow servers ----


def test_a_server_that_says_nothing_is_left(tmp_path):
    stop = threading.Event()
    with Server([lambda *_: stop.wait(30), good()]) as server, contextlib.ExitStack() as stack:
        stack.callback(stop.set)
        start = time.monotonic()
        fetch(server, tmp_path / "file", stall_seconds=0.1)
        assert time.monotonic() - start < 15


def test_what_came_of_waiting_is_said(tmp_path):
    with (
        Server([silence(0.3)]) as server,
        pytest.raises(DownloadError, match=r"nothing came for 0\.1 seconds"),
    ):
        fetch(server, tmp_path / "file", stall_seconds=0.1, n_tries=1)


def test_a_proxy_that_does_not_answer_is_no_connection(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise requests.exceptions.ProxyError("Cannot connect to proxy.")

    monkeypatch.setattr(requests.Session, "get", refuse)
    with pytest.raises(DownloadError, match="there is no connection to the server"):
        download("http://127.0.0.1:9/file", tmp_path / "file", KNOWN, progress=False)


def test_a_server_that_was_fast_and_drips_now_is_left(tmp_path):
    """What counts is the last while, not the average since the beginning."""

    def tires(request, connection):
        send(request, connection, "200 OK", BODY[:20_000], Content_Length=str(N), ETag=ETAG)
        for value in BODY[20_000:22_000]:
            connection.sendall(bytes([value]))
            request.n_sent += 1
            time.sleep(0.002)

    with Server([tires, good()]) as server:
        fetch(server, tmp_path / "file", stall_seconds=0.2, slowest_bytes_per_second=3000)
    assert server.log[0].n_sent < 22_000, "it was left while it still dripped"


# ---- the disk, and the terminal ----


def test_a_file_that_is_there_needs_no_lock(tmp_path, monkeypatch):
    """A cache that can only be read will do."""
    (tmp_path / "file").write_bytes(BODY)
    monkeypatch.setattr(
        sys.modules[download.__module__], "exclusive", lambda *_: pytest.fail("it was locked")
    )
    assert not download("http://127.0.0.1:9/", tmp_path / "file", KNOWN)


def test_only_the_rest_needs_room(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    frees = iter([N, N - 16_384])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=next(frees)))
    with Server([cut(16_384), good()]) as server:
        assert fetch(server, tmp_path / "file")


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    become = transfer.Part.become
    monkeypatch.setattr(os, "fsync", lambda _: done.append("bytes"))
    monkeypatch.setattr(transfer.Part, "become", lambda *both: (done.append("name"), become(*both)))
    monkeypatch.setattr(sys.modules[download.__module__], "sync_folder", lambda _: done.append("folder"))
    with Server([good()]) as server:
        fetch(server, tmp_path / "file")
    assert done == ["bytes", "name", "folder"]


def test_without_progress_nothing_is_said(tmp_path, capfd):
    with Server([cut(4093), good()]) as server:
        fetch(server, tmp_path / "file")
    assert capfd.readouterr() == ("", "")


def test_a_lock_that_is_removed_while_it_is_looked_at_is_taken_again(tmp_path, monkeypatch):
    """Its owner may remove it between any two questions."""
    lock, fstat = tmp_path / "lock", os.fstat

    def removed_meanwhile(descriptor):
        monkeypatch.setattr(os, "fstat", fstat)
        lock.unlink()
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", removed_meanwhile)
    with exclusive(lock, lambda: None):
        assert lock.exists()
