"""Text to learn from, by name or by path, read as a stream."""

import difflib
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from glassgpt.data import embedded
from glassgpt.data.download import Expected, download
from glassgpt.data.sources import TEXT_SUFFIXES, Piece, StandardInput, document_pieces, read_file, readable
from glassgpt.errors import DataError
from glassgpt.storage import cache_folder
from glassgpt.tokenizers.interface import each_text


class _Download(NamedTuple):
    url: str
    n_bytes: int
    sha256: str


_GITHUB = "https://raw.githubusercontent.com"
_BOOKS = f"{_GITHUB}/mlschmitt/classic-books-markdown/944882722e9a96fa6cf2739dc2ea757e101f412f"
_DOWNLOADS = {  # all in the public domain
    "tinyshakespeare": _Download(
        f"{_GITHUB}/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        1_115_394,
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "the-verdict": _Download(
        f"{_GITHUB}/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
        20_479,
        "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
    ),
    "alice": _Download(
        f"{_BOOKS}/Lewis%20Carroll/Alice%27s%20Adventures%20in%20Wonderland.md",
        146_330,
        "9e230a8a7a35d94af5cdaeecc7c26b1528c195c7af64ad9436bdf3658a42c6f6",
    ),
    "pride-and-prejudice": _Download(
        f"{_BOOKS}/Jane%20Austen/Pride%20and%20Prejudice.md",
        688_493,
        "1a7b76fa6d827b79926f09c33101216c9044b1c27a0461ab22315d952674dc31",
    ),
    "moby-dick": _Download(
        f"{_BOOKS}/Herman%20Melville/Moby-Dick.md",
        1_200_152,
        "664746ebf8a3532450f24cb76022c34e54547f61480602c57efa4c73c83ec6ca",
    ),
    "war-and-peace": _Download(
        f"{_BOOKS}/Leo%20Tolstoy/War%20and%20Peace.md",
        3_236_872,
        "32efbebb4fa346b0051b32a4f9225267f0e737135a996f635424051c3b57f787",
    ),
}
_EMBEDDED = {
    "embedded": embedded.python_docs,
    "python-docs": embedded.python_docs,
    "python-code": embedded.python_code,
}
CORPUS_NAMES = (*_EMBEDDED, *_DOWNLOADS)


@dataclass(frozen=True)
class Corpus:
    """Documents that can be gone through again and again, and need never be in memory together."""

    name: str
    read: Callable[[], Iterator[Piece]]
    """Begins a new pass over the text."""
    n_bytes: int | None = None
    """About how much there is to read, for progress bars. None: not known."""

    def pieces(self) -> Iterator[Piece]:
        """The documents in pieces of bounded size. Raises DataError if there is no text at all."""
        empty = True
        for piece in self.read():
            empty = False
            yield piece
        if empty:
            raise DataError(f"{self.name} holds no text: 0 documents that are more than white space.")

    def documents(self) -> Iterator[str]:
        """The documents, each whole. Raises DataError if there is none."""
        parts: list[str] = []
        for piece in self.pieces():
            parts.append(piece.text)
            if piece.ends_document:
                yield "".join(parts)
                parts = []

    @classmethod
    def of(cls, texts: str | Iterable[str], name: str = "texts") -> "Corpus":
        """A corpus of documents in memory; a single string is one document.

        Raises TokenizerError for what is no text, or text that UTF-8 cannot hold.
        """
        kept = list(each_text(texts))
        return cls(name, lambda: _pieces(kept), sum(map(len, kept)))


def read_corpus(source: str | os.PathLike[str], *, field: str = "text") -> Corpus:
    """Open a named corpus, a file, a folder, a glob pattern, or - for standard input.

    Names come first: for a file of that name write ./embedded, or give a Path. A folder stands for its .txt,
    .text, .md, .rst and .jsonl files, .gz of these included, in all its folders that are neither hidden nor
    symbolic links; a glob pattern (** for folders) for every file that fits. Documents are what lies between
    <|endoftext|> in a text file, and `field` of each line in a .jsonl file. A corpus that is not in
    `cache_folder()/corpora` is downloaded there.

    Raises DataError if there is nothing of that name or it cannot be read, DownloadError if a corpus cannot
    be fetched.
    """
    if not source:
        raise DataError(f"The name of the corpus is empty. Corpora: {', '.join(CORPUS_NAMES)}.")
    if isinstance(source, str):
        if source in _EMBEDDED:
            documents = _EMBEDDED[source]
            return Corpus(source, lambda: _pieces(documents()))
        if source in _DOWNLOADS:
            return _files(source, [_fetched(source)], field)
        if source == "-":
            return Corpus("standard input", StandardInput().pieces)
    name = os.path.expanduser(source)  # a shell leaves the ~ of a quoted pattern
    path = Path(name)
    with readable(path):
        is_folder, is_there = path.is_dir(), path.exists()
    if is_folder:
        if files := _text_files(path):
            return _files(name, files, field)
        raise DataError(
            f"The folder {name} holds no text: none of its files ends in {', '.join(TEXT_SUFFIXES)} "
            f"(or that and .gz). For other files give a pattern, such as '{path / '**' / '*.tex'}'."
        )
    if is_there:
        return _files(name, [path], field)
    if files := [Path(match) for match in sorted(glob.glob(name, recursive=True)) if os.path.isfile(match)]:
        return _files(name, files, field)
    raise _unknown(name)


def _files(name: str, files: list[Path], field: str) -> Corpus:
    def read() -> Iterator[Piece]:
        for file in files:
            yield from read_file(file, field)

    n_bytes = 0
    for file in files:
        with readable(file):
            n_bytes += file.stat().st_size
    return Corpus(name, read, n_bytes)


def _pieces(documents: Iterable[str]) -> Iterator[Piece]:
    for document in documents:
        yield from document_pieces(document)


def _text_files(folder: Path) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(root) / name
            for name in names
            if not name.startswith(".") and name.lower().removesuffix(".gz").endswith(TEXT_SUFFIXES)
        ]
    return sorted(found)


def _refuse(fault: OSError) -> None:
    raise DataError(
        f"Cannot read {fault.filename}: {fault.strerror}. Ask for the permission, or name what is to be read "
        "by a pattern."
    ) from fault


def _fetched(name: str) -> Path:
    """Where the named corpus lies once it is there and whole."""
    path = cache_folder() / "corpora" / f"{name}.txt"
    wanted = _DOWNLOADS[name]
    expected = Expected(n_bytes=wanted.n_bytes, sha256=wanted.sha256)
    if not path.exists():
        download(wanted.url, path, expected)
    elif difference := expected.difference(path):
        raise DataError(f"{path} is not {name}: {difference}. Remove it, and it is downloaded again.")
    return path


def _unknown(name: str) -> DataError:
    near = difflib.get_close_matches(name, CORPUS_NAMES, n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    return DataError(
        f"There is no corpus, file or folder {name!r}, and no file fits it as a pattern.{guess} "
        f"Corpora: {', '.join(CORPUS_NAMES)}."
    )
