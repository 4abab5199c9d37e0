"""A server on the loopback that does what servers do on bad days, and keeps a log of what it was asked.

An answer is a function of the request and the connection; a server is given a list of them, one for each
request, the last one for all that follow. They write the bytes of HTTP themselves, since a library for
servers would not let them be wrong.
"""

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

BODY = bytes(range(251)) * 131  # 32,881 bytes, no two blocks of them alike
ETAG = '"v1"'


@dataclass
class Request:
    """What the client asked for; header names in lower case."""

    path: str
    headers: dict[str, str]
    n_sent: int = 0
    """How many bytes of a body it was sent."""


Answer = Callable[[Request, socket.socket], None]


@dataclass
class Server:
    """Serves `answers` at `url`; `log` holds the requests."""

    answers: list[Answer]
    log: list[Request] = field(default_factory=list)

    def __enter__(self) -> "Server":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # how a closed listener says so
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            received = b""
            while b"\r\n\r\n" not in received:
                if not (more := connection.recv(65536)):
                    return
                received += more
            first, *lines = received.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
            pairs = (line.split(": ", 1) for line in lines)
            request = Request(first.split(" ")[1], {name.lower(): value for name, value in pairs})
            self.log.append(request)
            self.answers[min(len(self.log), len(self.answers)) - 1](request, connection)


def send(
    request: Request, connection: socket.socket, status: str, body: bytes = b"", **headers: str | None
) -> None:
    """Send a whole answer; a header that is None is left out, names have _ for -."""
    headers = {"Content_Length": str(len(body)), "Connection": "close"} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    connection.sendall("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1"))
    connection.sendall(body)
    request.n_sent += len(body)


def good(body: bytes = BODY, etag: str | None = ETAG, **headers: str | None) -> Answer:
    """A server that does all that is asked of it: the whole, or the rest of the file that was meant."""

    def answer(request, connection):
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if asked is None or request.headers.get("if-range") not in (None, etag):
            send(request, connection, "200 OK", body, ETag=etag, **headers)
        elif (start := int(asked[1])) >= len(body):
            send(request, connection, "416 Range Not Satisfiable", Content_Range=f"bytes */{len(body)}")
        else:
            part = f"bytes {start}-{len(body) - 1}/{len(body)}"
            send(
                request,
                connection,
                "206 Partial Content",
                body[start:],
                ETag=etag,
                **({"Content_Range": part} | headers),
            )

    return answer


def status(line: str, **headers: str | None) -> Answer:
    """An answer of that status, with a little text."""
    return lambda request, connection: send(request, connection, line, b"no", **headers)


def whole(body: bytes = BODY, **headers: str | None) -> Answer:
    """200 and the whole `body`, whatever was asked for."""
    return lambda request, connection: send(request, connection, "200 OK", body, **headers)


def cut(n_bytes: int, *, reset: bool = False, etag: str | None = ETAG, body: bytes = BODY) -> Answer:
    """All of `body` is announced, and the line is cut after `n_bytes` of it, or of the rest asked for."""

    def answer(request, connection):
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        start = int(asked[1]) if asked and request.headers.get("if-range") == etag else 0
        headers = {"ETag": etag, "Content_Length": str(len(body) - start)}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        line = "206 Partial Content" if start else "200 OK"
        send(request, connection, line, body[start : start + n_bytes], **headers)
        if reset:
            reset_now(request, connection)

    return answer


def reset_now(request: Request, connection: socket.socket) -> None:
    """Send RST, which is what a crashed machine's peer gets."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang_up(request: Request, connection: socket.socket) -> None:
    """Close without a word."""


def raw(content: bytes) -> Answer:
    """Exactly these bytes, headers and all."""
    return lambda request, connection: connection.sendall(content)


def chunked(body: bytes = BODY, *, end: bytes = b"0\r\n\r\n", headers: str = "") -> Answer:
    """The body in chunks of 4,093 bytes, its length told nowhere."""
    chunks = [body[start : start + 4093] for start in range(0, len(body), 4093)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n{headers}\r\n".encode()
    return raw(head + framed + end)


def drip(n_bytes: int, every_seconds: float, *, etag: str | None = ETAG) -> Answer:
    """`n_bytes` of the body, one at a time."""

    def answer(request, connection):
        send(request, connection, "200 OK", Content_Length=str(len(BODY)), ETag=etag)
        for value in BODY[:n_bytes]:
            connection.sendall(bytes([value]))
            request.n_sent += 1
            time.sleep(every_seconds)

    return answer


def silence(seconds: float) -> Answer:
    """Take the request, and say nothing for a while."""
    return lambda request, connection: time.sleep(seconds)
