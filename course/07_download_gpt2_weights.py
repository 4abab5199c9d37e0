"""Chapter 07. How do half a gigabyte of numbers get here, and how do we know that they are the right ones?

OpenAI trained GPT-2 in 2019 and published what it had learnt, in four sizes. This script brings one of
them into the cache, where chapters 08 to 10 take it apart:

    python course/07_download_gpt2_weights.py --size 124M

A download is easy to write and easy to get wrong. To see how, without any network:

    python course/07_download_gpt2_weights.py --rehearse

It starts a server in this process whose line breaks half-way, and downloads from it twice: with four lines
that everybody has written once, and with the library.

Exercises
  1. Interrupt a real download with Ctrl-C, look at what lies in the folder (`ls -a`), and start it again.
     Which two headers make the server send the rest alone? (Range and If-Range; see data/transfer.py.)
  2. Why does If-Range have to come with Range? (Without it, a file that changed in between would be
     glued to the beginning of the old one.)
  3. 124M parameters take 497,759,232 bytes. Which number format is that, and what would bfloat16 take?
     (float32, 4 bytes each; half of it.)
"""

import argparse
import contextlib
import hashlib
import http.client
import http.server
import json
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

from glassgpt.data.download import Expected, download
from glassgpt.data.patience import Patience
from glassgpt.errors import GlassGPTError
from glassgpt.model import count_parameters, gpt2
from glassgpt.pretrained import download_gpt2
from glassgpt.pretrained.gpt2_files import DATA, INDEX, INDEX_MAGIC, published_files

# 1. The rehearsal: a line that breaks.

BODY = bytes(range(256)) * 4096  # 1,048,576 bytes


class BreakingHandler(http.server.BaseHTTPRequestHandler):
    """Sends BODY, or the rest of it; on the first two connections the line breaks half-way."""

    starts: list[int] = []  # noqa: RUF012 - one log for all connections, each of which is a new object

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"the first edition"')
        self.send_header("Content-Length", str(len(BODY) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.end_headers()
        self.wfile.write(BODY[start : len(BODY) // 2 if len(self.starts) <= 2 else len(BODY)])

    def log_message(self, format: str, *arguments: object) -> None:
        """No lines about requests."""


def naive_download(url: str, path: Path) -> None:
    """What everybody has written once."""
    with urllib.request.urlopen(url) as answer, open(path, "wb") as file:
        while block := answer.read(65536):
            file.write(block)


def rehearse() -> None:
    """Download twice over a line that breaks, and compare what is there afterwards."""
    BreakingHandler.starts.clear()
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), BreakingHandler) as server,
        tempfile.TemporaryDirectory() as name,
    ):
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/weights"
        try:
            naive, ours = Path(name) / "naive", Path(name) / "ours"
            with contextlib.suppress(http.client.IncompleteRead):  # some versions of Python notice
                naive_download(url, naive)
            print(f"Four lines:   {naive.stat().st_size:>9,} of {len(BODY):,} bytes, under the final name.")
            assert naive.read_bytes() == BODY[: len(BODY) // 2]

            expected = Expected(n_bytes=len(BODY), sha256=hashlib.sha256(BODY).hexdigest())
            download(url, ours, expected, patience=Patience(first_wait_seconds=0.1))
            print(
                f"The library:  {ours.stat().st_size:>9,} of {len(BODY):,} bytes, and the SHA-256 is right."
            )
            assert ours.read_bytes() == BODY
        finally:
            server.shutdown()
            thread.join()
    _, first, second = BreakingHandler.starts
    print(f"It connected twice: from byte {first:,}, and, after the break, from byte {second:,}.")
    assert (first, second) == (0, len(BODY) // 2)


# 2. What OpenAI published.


def explain(size: str) -> None:
    """Say what each of the seven files is for, and what is known of it beforehand."""
    n_parameters = count_parameters(gpt2(size)).total
    print(f"GPT-2 {size} is seven files:\n")
    for file in published_files(size):
        n_bytes = file.expected.n_bytes
        length = f"{n_bytes:,} bytes" if n_bytes else "length not known"
        print(f"  {file.name:<31}{length:>20}  {file.about}")
        if file.name == DATA:
            assert n_bytes == 4 * n_parameters
    print(
        f"\nThe weights are {n_parameters:,} parameters of 4 bytes each, and nothing else. A file gets its\n"
        "name only when its length is right, and its SHA-256 where one is known.\n"
    )


# 3. What has come.


def look_into(folder: Path) -> None:
    """Open what can be read by eye; the weights themselves are chapter 08."""
    hparams = json.loads((folder / "hparams.json").read_text(encoding="utf-8"))
    print(f"\nWhat has come to {folder}:\n")
    print(f"  checkpoint    {(folder / 'checkpoint').read_text(encoding='utf-8').splitlines()[0]}")
    print(f"  hparams.json  {hparams}")
    print(
        "                n_layer, n_head, n_embd and n_ctx are our n_layers, n_heads, d_model, context_length"
    )

    encoder = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    version, *merges = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()
    print(f"  encoder.json  {len(encoder):,} tokens; the first: {' '.join(list(encoder)[:9])}")
    print(f"  vocab.bpe     {version}; {len(merges):,} merges; the first: {', '.join(merges[:5])}")

    index = (folder / INDEX).read_bytes()
    assert index.endswith(INDEX_MAGIC)
    print(f"  {INDEX} ends with {index[-8:].hex(' ')}, the mark of a table of TensorFlow's")
    print("\nNow we know that these are the bytes that OpenAI published. Chapter 08 asks what they mean.")


def main(arguments: list[str] | None = None) -> int:
    """Rehearse, or download and look; the exit code is 0, or 2 with one line that says what is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="124M", help="124M (default), 355M, 774M or 1558M")
    parser.add_argument("--mirror", help="an address to take instead of OpenAI's")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: the cache)")
    parser.add_argument("--rehearse", action="store_true", help="watch a download break and go on, offline")
    options = parser.parse_args(arguments)
    try:
        if options.rehearse:
            rehearse()
        else:
            explain(options.size)
            look_into(download_gpt2(options.size, mirror=options.mirror, folder=options.folder))
    except GlassGPTError as mistake:
        print(f"{Path(__file__).name}: {mistake}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
