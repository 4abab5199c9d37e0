"""Vectors in the two formats of the word2vec program, which every library of word vectors reads.

    3000000 300⏎               n words, d numbers each
    of 0.073 0.019 …⏎          text: a line for each word
    of␣1,200 bytes[⏎]          binary: the word, a space, d little-endian float32, a newline or none

Neither has a checksum. What can be found is found: a file that was cut off anywhere, that holds more or
fewer words than its first line says, or numbers that are none. A file may be compressed with gzip.
"""

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from glassgpt.checks import is_count
from glassgpt.data.sources import readable
from glassgpt.embeddings.word_vectors import WordVectors
from glassgpt.errors import ConfigError, DataError
from glassgpt.storage import staged_file

READ_BYTES = 1 << 22
LONGEST_WORD = 4096  # bytes; what is longer is no word but damage
DEFLATE_LIMIT = 1032  # no gzip file unpacks to more than that many times its size
FETCH_AGAIN = "Fetch or write the file again."

Undecodable = Literal["strict", "replace", "ignore"]


def load_word2vec(
    path: str | Path,
    limit: int | None = None,
    *,
    binary: bool | None = None,
    errors: Undecodable = "strict",
) -> WordVectors:
    """The vectors in a word2vec file, text or binary, plain or gzip.

    `limit` takes that many words from the beginning, where files have the frequent ones; the rest is neither
    read nor checked. `binary=None` looks at the first word to find out. Words that are not UTF-8, as
    word2vec's own program makes when it cuts long ones, are refused, or with errors="replace" or "ignore"
    their wrong bytes are, as `bytes.decode` does. Of a word that comes twice the first vector counts.

    Raises ConfigError for a limit below 1, DataError for a file that cannot be read or is not whole.
    """
    path = Path(path)
    if limit is not None and not is_count(limit, 1):
        raise ConfigError(f"limit={limit!r} must be a number of words, at least 1, or None for all.")
    with readable(path, FETCH_AGAIN):
        if binary is None:
            with _unpacked(path) as file:
                _, d = _read_header(file, path)
                binary = _looks_binary(file.read(LONGEST_WORD + 64 * d), d)
        with _unpacked(path) as file:
            n, d = _read_header(file, path)
            rows = _Rows(path, min(limit or n, n), d, binary, errors)
            rest = rows.fill_binary(file) if binary else rows.fill_text(file)
            if rows.n_wanted == n and (rest := (rest + file.read(64)).strip(b"\r\n")):
                raise DataError(
                    f"{path} goes on after the {n:,} words that its first line announces: {rest[:20]!r}. "
                    f"{FETCH_AGAIN}"
                )
    return WordVectors(rows.words, rows.vectors[: len(rows.words)])


def write_word2vec(vectors: WordVectors, path: str | Path, *, binary: bool | None = None) -> None:
    """Write a word2vec file, compressed if its name ends in .gz; it is whole or not there.

    `binary=None` makes files binary whose names end in .bin or .bin.gz, and others text. Text gives each
    number just the digits that bring the same float32 back.

    Raises DataError for words that the format cannot hold (empty, not UTF-8, with a space or a newline) or
    that are longer than `load_word2vec` takes, and when the disk will not take the file.
    """
    path = Path(path)
    if binary is None:
        binary = path.name.removesuffix(".gz").endswith(".bin")
    for word in vectors.words:
        if not word or " " in word or "\n" in word or not _is_utf8(word):
            raise DataError(
                f"{word!r} cannot be written: a word in a word2vec file is UTF-8, is not empty, and has no "
                "space and no newline. Put _ for a space, as Google does."
            )
        if len(word.encode("utf-8")) > LONGEST_WORD:
            raise DataError(
                f"{word[:40]!r}… cannot be written: it has {len(word.encode('utf-8')):,} bytes, and a word "
                f"has at most {LONGEST_WORD:,}. Leave it out."
            )
    with staged_file(path, DataError) as file, contextlib.ExitStack() as stack:
        if path.suffix == ".gz":  # no name and no time inside: the same vectors make the same file
            packed = gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0)
            file = stack.enter_context(packed)  # type: ignore[assignment]
        file.write(b"%d %d\n" % vectors.vectors.shape)
        for word, vector in zip(vectors.words, vectors.vectors, strict=True):
            numbers = vector.astype("<f4").tobytes() if binary else " ".join(map(str, vector)).encode()
            file.write(word.encode("utf-8") + b" " + numbers + b"\n")


class _Rows:
    """The words read so far, and the matrix that their vectors are read into."""

    def __init__(self, path: Path, n_wanted: int, d: int, binary: bool, errors: Undecodable) -> None:
        self.path = path
        self.n_wanted = n_wanted
        self.n_read = 0
        self.errors: Undecodable = errors
        self.words: list[str] = []
        self._seen: set[str] = set()
        # Before memory is asked for: a damaged first line can announce anything.
        least = n_wanted * (4 * d + 2 if binary else 2 * d + 2)
        size = path.stat().st_size
        if least > size * (DEFLATE_LIMIT if _is_gzip(path) else 1):
            raise DataError(
                f"{path} was cut off: {n_wanted:,} words with {d:,} numbers each, as its first line has it, "
                f"take at least {least:,} bytes, and it has {size:,}. {FETCH_AGAIN}"
            )
        try:
            self.vectors: NDArray[np.float32] = np.empty((n_wanted, d), "<f4")
        except MemoryError as fault:
            raise DataError(
                f"{n_wanted:,} vectors of {d:,} numbers do not fit into memory. Read fewer of {path} with "
                "limit=100_000."
            ) from fault

    def fill_binary(self, file: BinaryIO) -> bytes:
        """Read all words that are wanted; return what was read beyond them."""
        n_bytes = 4 * self.vectors.shape[1]
        matrix = memoryview(self.vectors).cast("B")  # type: ignore[arg-type]
        chunk, start = b"", 0
        while self.n_read < self.n_wanted:
            space = chunk.find(b" ", start, start + LONGEST_WORD + 2)
            end = space + 1 + n_bytes
            if space < 0 and len(chunk) - start > LONGEST_WORD + 1:
                raise self.damaged(f"no space within {LONGEST_WORD:,} bytes")
            if space < 0 or end > len(chunk):
                if not (more := file.read(READ_BYTES)):
                    raise self.damaged("the file ends before it does")
                chunk, start = chunk[start:] + more, 0
                continue
            row = self._add(chunk[start:space].lstrip(b"\n"))
            if row is not None:
                matrix[row * n_bytes : (row + 1) * n_bytes] = chunk[space + 1 : end]
            start = end
        return chunk[start:]

    def fill_text(self, file: BinaryIO) -> bytes:
        """Read all words that are wanted; nothing is read beyond them."""
        d = self.vectors.shape[1]
        longest = LONGEST_WORD + 64 * d
        while self.n_read < self.n_wanted:
            line = file.readline(longest)
            if not line.endswith(b"\n"):  # without it, 0.25 may have been 0.257
                raise self.damaged("the file ends, or its line has no end")
            word, _, numbers = line.partition(b" ")
            try:
                vector = list(map(float, numbers.split()))
            except ValueError as fault:
                raise self.damaged(f"{fault}") from fault
            if len(vector) != d:
                raise self.damaged(f"{len(vector):,} numbers, not {d:,}")
            row = self._add(word)
            if row is not None:
                self.vectors[row] = vector
        return b""

    def damaged(self, problem: str) -> DataError:
        """The error for the word that is being read."""
        return DataError(f"{self.path}, word {self.n_read + 1:,}: {problem}. {FETCH_AGAIN}")

    def _add(self, word: bytes) -> int | None:
        """The row for the vector of the next word. None: the word came before."""
        if not word:
            raise self.damaged("it has no letters")
        try:
            text = word.decode("utf-8", self.errors)
        except UnicodeDecodeError as fault:
            raise DataError(
                f"{self.path}, word {self.n_read + 1:,}, is not UTF-8: {word[:40]!r} ({fault.reason}). If "
                'the file is good otherwise, read it with errors="replace".'
            ) from fault
        self.n_read += 1
        if text in self._seen:
            return None
        self._seen.add(text)
        self.words.append(text)
        return len(self.words) - 1


def _read_header(file: BinaryIO, path: Path) -> tuple[int, int]:
    """The number of words and the number of numbers of each."""
    line = file.readline(64)
    fields = line.split()
    if not line.endswith(b"\n") or len(fields) != 2 or not all(field.isdigit() for field in fields):
        raise DataError(
            f"{path} does not begin as a word2vec file, with a line such as '3000000 300', but with "
            f"{line[:40]!r}. {FETCH_AGAIN} GloVe's files lack that line: put it before them."
        )
    n, d = map(int, fields)
    if n < 1 or d < 1:
        raise DataError(f"{path} announces {n:,} words with {d:,} numbers each: nothing to read.")
    return n, d


def _looks_binary(start: bytes, d: int) -> bool:
    """Whether what follows the first word is other than numbers written in digits."""
    numbers = start.partition(b"\n")[0].partition(b" ")[2].lower()
    only_digits = not numbers.strip(b"0123456789+-.eEinfaty \t\r")
    return not only_digits or len(numbers) < min(2 * d - 1, 8)


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"  # a word2vec file begins with a digit


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    with open(path, "rb") as raw:
        yield gzip.GzipFile(fileobj=raw) if _is_gzip(path) else raw  # type: ignore[misc]


def _is_utf8(word: str) -> bool:
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True
