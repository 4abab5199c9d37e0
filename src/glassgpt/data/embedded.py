"""English and code that every Python installation carries, so that a GPT can be trained without a network.

`python-docs` is the prose of the language reference (`pydoc_data.topics`) and of the docstrings of the
standard library; `python-code` is the library's source. Files are parsed, never imported. What is left of
a docstring when its examples, tables, signatures and markup are gone reads as English. The texts differ
between versions of Python.
"""

import ast
import contextlib
import functools
import hashlib
import itertools
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from glassgpt.errors import DataError
from glassgpt.storage import cache_folder, write_atomically
from glassgpt.tokenizers.interface import END_OF_TEXT

_NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "pydoc_data"}

# Words that hold English sentences together, and hold little else together.
_COMMON = re.compile(
    r"\b(?:a|an|and|any|are|as|at|be|been|but|by|can|do|does|each|for|from|has|have|if|in|into|is|it|its|may|"
    r"must|no|not|of|on|one|only|or|same|should|so|than|that|the|their|then|there|these|they|this|to|used|"
    r"using|was|when|where|which|will|with|you|your)\b",
    re.IGNORECASE,
)

_MARKUP = [
    (re.compile(r":[a-z:]+:`[~!]?([^`<]+?)(?: <[^`]*>)?`"), r"\1"),  # :func:`~os.walk`
    (re.compile(r"``([^`]+)``"), r"\1"),
    (re.compile(r"`([^`']+)['`]_{0,2}"), r"\1"),  # `name`, `name', `title`_
    (re.compile(r"(?<![\w*])\*{1,2}(\w[^*]*?)\*{1,2}(?![\w*])"), r"\1"),  # *emphasis*, **strong**
    (re.compile(r" ?\[\d+\]_?"), ""),  # footnotes
    (re.compile(r"\s+--?-?\s+"), " – "),
    (re.compile(r"::(?=$|\s)"), ":"),
    (re.compile("[‘’´]"), "'"),
    (re.compile("[“”]"), '"'),
    (re.compile(r"\s+"), " "),
]
_NOT_PROSE = re.compile(
    r">>>|::=|\.\.\.\s|[|+=]{2}|->|=>|[{}\\]|\w+\(.*\w=|https?:|Copyright|XXX"
    r"|^(?:[-=~*+#|]{3,}|@|:\w+[: ](?!`))"
)
_BULLET = re.compile(r" *(?:[-*+•o]|\(?\d{1,2}[.)]) +(?=\S)")
_SENTENCE = re.compile(
    r"(?:[\"'(]?[A-Z]|[\"']?\w+[\"']?(?:,? (?:is|are|if|can|may|must|should|will)) ).*[.!?][)\"']?"
)
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")


def python_docs() -> Iterator[str]:
    """English prose, a topic or module at a time, in a fixed order; a paragraph comes once.

    Raises DataError where Python was installed without the source of its library.
    """
    path = _cache_file()
    if (kept := _kept(path)) is not None:
        yield from kept.split(END_OF_TEXT)
        return
    documents = _gathered()
    text = END_OF_TEXT.join(documents).encode("utf-8")
    # A cache that cannot be written costs some seconds the next time, and nothing else.
    with contextlib.suppress(DataError):
        write_atomically(path, _digest(text) + b"\n" + text, DataError)
    yield from documents


def python_code() -> Iterator[str]:
    """The source files of the standard library, in a fixed order. Raises DataError as `python_docs` does."""
    return map(_source, _library_files())


@functools.cache
def _gathered() -> tuple[str, ...]:
    from pydoc_data.topics import topics

    texts = [[topics[name]] for name in sorted(topics)]
    sources = map(_docstrings, python_code())
    documents = []
    seen: set[str] = set()
    for document in itertools.chain(texts, sources):
        paragraphs = []
        for paragraph in itertools.chain.from_iterable(map(prose, document)):
            if paragraph not in seen:
                seen.add(paragraph)
                paragraphs.append(paragraph)
        if paragraphs:
            documents.append("\n\n".join(paragraphs) + "\n")
    return tuple(documents)


def prose(text: str) -> Iterator[str]:
    """The paragraphs of `text` that are English prose, each on one line and without markup."""
    for lines in _blocks(text):
        paragraph = " ".join(lines)
        if _NOT_PROSE.search(paragraph):
            continue
        for pattern, plain in _MARKUP:
            paragraph = pattern.sub(plain, paragraph)
        paragraph = paragraph.strip()
        if _is_prose(paragraph):
            yield paragraph


def _blocks(text: str) -> Iterator[list[str]]:
    """Neighbouring lines that begin in the same column; an item of a list begins a block of its own."""
    block: list[str] = []
    column = 0  # where the last line of the block begins
    for line in text.expandtabs().splitlines():
        bullet = _BULLET.match(line)
        words = line[bullet.end() :] if bullet else line.strip()
        begins = bullet.end() if bullet else len(line) - len(line.lstrip())
        hangs = block and begins > column and len(block[-1]) > 40 and block[-1][-1] not in ".:!?"
        if block and (bullet or not words or begins != column) and not hangs:
            yield block
            block = []
        if words:
            block.append(words)
            column = begins
    if block:
        yield block


def _is_prose(paragraph: str) -> bool:
    words = _WORD.findall(paragraph)
    return (
        len(words) >= 5
        and "`" not in paragraph
        and _SENTENCE.fullmatch(paragraph) is not None
        and len(_COMMON.findall(paragraph)) >= 0.2 * len(words)
        and sum(map(len, words)) >= 0.7 * len(paragraph)
    )


def _docstrings(source: str) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # a doubtful escape in the library is not our affair
        tree = ast.parse(source)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    for node in sorted(nodes, key=lambda node: getattr(node, "lineno", 0)):
        if docstring := ast.get_docstring(node):
            yield docstring


def _library_files() -> list[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    files = [
        path for path in library.rglob("*.py") if not _NOT_LIBRARY & set(path.relative_to(library).parts)
    ]
    if not files:
        raise DataError(
            f"This Python carries no source of its library (none in {library}). Name a text file of yours, "
            "or use a Python from python.org, uv or your system."
        )
    return sorted(files)


def _source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _kept(path: Path) -> str | None:
    """The text in the cache, under a line with its SHA-256; None when it is not there, or not that text."""
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return text.decode("utf-8") if digest == _digest(text) else None


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode("ascii")


def _cache_file() -> Path:
    """Another Python, or another version of this file, gathers anew."""
    rules = hashlib.sha256(Path(__file__).read_bytes() + sysconfig.get_path("stdlib").encode()).hexdigest()
    return cache_folder() / "corpora" / f"python-docs-{platform.python_version()}-{rules[:8]}.txt"
