"""Documents out of files, one piece at a time: .txt, .jsonl, either of them as .gz, and standard input.

A document may be larger than memory, so it travels in pieces of about a million characters. A piece ends
just before a space or newline that follows something else. No token of GPT-2's pattern reaches from
something else into white space, and none looks further ahead than the white space that it starts with, so
the ids of the pieces, laid end to end, are those of the whole document.
"""

import codecs
import contextlib
import gzip
import io
import json
import re
import shutil
import sys
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from glassgpt.errors import DataError
from glassgpt.tokenizers.interface import END_OF_TEXT

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".jsonl")
PIECE_CHARACTERS = 1 << 20
LONGEST_PIECE = 16 * PIECE_CHARACTERS  # text without white space is cut here, wherever that is
READ_BYTES = 1 << 20

_LAST_SAFE_PLACE = re.compile(r"(?s).*\S(?=[ \n])")
_NEXT_SAFE_PLACE = re.compile(r"\S(?=[ \n])")


class Piece(NamedTuple):
    """Some text, and whether its document ends with it."""

    text: str
    ends_document: bool


def read_file(path: Path, field: str = "text") -> Iterator[Piece]:
    """The documents of one file.

    A .jsonl file holds one in `field` of each line; any other file is one document, or several with
    <|endoftext|> between them; both also as .gz, in letters of any case. Documents of white space alone are
    left out.

    Raises DataError for a file that cannot be read, is not UTF-8 (with the offset of the byte), or whose
    JSON is not as expected (with the number of the line).
    """
    with readable(path), open(path, "rb") as raw:
        name = path.name.lower()
        is_gzip = name.endswith(".gz")
        file: BinaryIO = gzip.GzipFile(fileobj=raw) if is_gzip else raw  # type: ignore[assignment]
        if name.removesuffix(".gz").endswith(".jsonl"):
            yield from _read_jsonl(file, str(path), field)
        else:
            yield from split_documents(decoded(file, str(path)))


class StandardInput:
    """Standard input, which can be read once, kept in a temporary file so that it can be read again."""

    def __init__(self) -> None:
        self._copy: BinaryIO | None = None

    def pieces(self) -> Iterator[Piece]:
        """The documents of standard input. Raises DataError as `read_file` does."""
        if self._copy is None:
            try:
                copy = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
                weakref.finalize(self, copy.close)
                shutil.copyfileobj(sys.stdin.buffer, copy, READ_BYTES)
            except OSError as fault:
                raise DataError(
                    f"Standard input could not be copied to {tempfile.gettempdir()}: {fault.strerror}. "
                    "Set TMPDIR to a folder with room for it."
                ) from fault
            self._copy = copy
        self._copy.seek(0)
        yield from split_documents(decoded(self._copy, "standard input"))


def decoded(file: BinaryIO, name: str) -> Iterator[str]:
    """The text of a UTF-8 file, block by block, as `open` gives it: every line ends with a newline alone.

    A byte order mark at the beginning is dropped.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    n_before = 0  # bytes of the blocks before this one
    while True:
        block = file.read(READ_BYTES)
        n_held = len(decoder.getstate()[0])  # the beginning of a character that the last block cut
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as fault:
            raise _not_utf8(name, n_before - n_held + fault.start, fault) from fault
        if n_before == 0:
            text = text.removeprefix("\ufeff")
        yield newlines.decode(text, final=not block)
        if not block:
            return
        n_before += len(block)


def split_documents(blocks: Iterable[str]) -> Iterator[Piece]:
    """Cut a stream of text at <|endoftext|> into documents, and those into pieces.

    Where the pieces end depends on the document alone, not on the blocks in which it arrives.
    """
    held = ""
    begun = False  # a piece of the present document has been given
    for block in blocks:
        *ended, held = (held + block).split(END_OF_TEXT)
        for document in ended:
            yield from document_pieces(document, begun)
            begun = False
        start = 0
        n_sure = len(held) - len(END_OF_TEXT) + 1  # what follows may be the beginning of a separator
        while cut := _next_cut(held, start, n_sure):
            yield Piece(held[start:cut], ends_document=False)
            start, begun = cut, True
        held = held[start:]
    yield from document_pieces(held, begun)


def document_pieces(text: str, begun: bool = False) -> Iterator[Piece]:
    """The pieces of one document, or of what remains of a document that has `begun`."""
    if not begun and not text.strip():
        return
    start = 0
    while cut := _next_cut(text, start, len(text)):
        yield Piece(text[start:cut], ends_document=False)
        start = cut
    yield Piece(text[start:], ends_document=True)


def _next_cut(text: str, start: int, end: int) -> int:
    """Where the piece from `start` ends; 0 when all up to `end` may be one piece, or more text may decide."""
    full = start + PIECE_CHARACTERS
    if end <= full + 1:
        return 0
    if place := _LAST_SAFE_PLACE.match(text, start, full + 1):
        return place.end()
    if place := _NEXT_SAFE_PLACE.search(text, full - 1, min(end, start + LONGEST_PIECE)):
        return place.end()
    return start + LONGEST_PIECE if end > start + LONGEST_PIECE else 0


def _read_jsonl(file: BinaryIO, name: str, field: str) -> Iterator[Piece]:
    offset = 0
    for number, line in enumerate(file, start=1):
        if number == 1 and line.startswith(codecs.BOM_UTF8):
            line, offset = line[3:], 3
        where = f"{name}, line {number:,}"
        try:
            record = json.loads(line.decode("utf-8")) if line.strip() else None
        except UnicodeDecodeError as fault:
            raise _not_utf8(name, offset + fault.start, fault) from fault
        except (ValueError, RecursionError) as fault:
            raise DataError(f"{where}, is not JSON: {fault}. Each line must hold one object.") from fault
        offset += len(line)
        if record is None:
            continue
        if not isinstance(record, dict):
            raise DataError(f"{where}, holds a {type(record).__name__}. Each line must hold one object.")
        text = record.get(field)
        if not isinstance(text, str):
            has = ", ".join(key for key, value in record.items() if isinstance(value, str)) or "none"
            raise DataError(
                f"{where}, has no text in field {field!r}. Fields with text: {has}. "
                "Choose the field with glassgpt prepare --field NAME."
            )
        if not text.isascii():
            _refuse_surrogates(text, where)
        yield from document_pieces(text)


def _refuse_surrogates(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as fault:
        raise DataError(
            f"{where}, has half a character at place {fault.start:,}: {text[fault.start]!r}, a surrogate "
            "without its partner. Write the text again with a tool that keeps such pairs together."
        ) from fault


def _not_utf8(name: str, offset: int, fault: UnicodeDecodeError) -> DataError:
    byte = fault.object[fault.start]
    return DataError(
        f"{name} is not UTF-8: byte 0x{byte:02x} at offset {offset:,} ({fault.reason}). "
        "Convert it first, e.g. iconv -f latin1 -t utf-8."
    )


@contextlib.contextmanager
def readable(path: Path, remedy: str = "Fetch or compress it again.") -> Iterator[None]:
    """Turn what goes wrong in reading `path` into a DataError; `remedy` is for a gzip file that is cut."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as fault:
        raise DataError(f"{path} is not a whole gzip file: {fault}. {remedy}") from fault
    except OSError as fault:
        raise DataError(f"Cannot read {path}: {fault.strerror or fault}. Check the path.") from fault
