"""20 MB of English to learn from and to encode: what this installation's documents and docstrings say.

Nothing is downloaded, so the text differs from machine to machine; everybody on one machine reads the same.
"""

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import Setting
from glassgpt.storage import cache_folder

N_BYTES, N_BYTES_QUICK = 20_000_000, 500_000


def read_prose(setting: Setting) -> str:
    return prose_file(setting).read_text(encoding="utf-8")


def prose_file(setting: Setting) -> Path:
    return setting.folder / "prose.txt"


def write_prose(setting: Setting) -> None:
    """As many texts as make 20 MB, with an empty line between them; unless another row has done it."""
    if prose_file(setting).exists():
        return
    parts, size = [], 0
    for text in prose():
        parts.append(text)
        size += len(text.encode("utf-8")) + 2
        if size >= (N_BYTES_QUICK if setting.quick else N_BYTES):
            break
    prose_file(setting).write_text("\n\n".join(parts), encoding="utf-8")


def prose() -> Iterator[str]:
    """No text twice: corpora in the cache, then documents and docstrings."""
    seen: set[str] = set()
    folders = [sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"], "/usr/share/doc"]
    paths = [*sorted((cache_folder() / "corpora").glob("*.txt"))]
    for folder in folders:
        paths += sorted(
            path for path in Path(folder).rglob("*") if path.suffix in {".rst", ".md", ".txt", ".py"}
        )
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
            found = docstrings(text) if path.suffix == ".py" else [text]
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue  # some packages ship files that are broken on purpose, for their tests
        for text in found:
            text = text.replace("<|endoftext|>", "")  # `prepare` ends a text there
            if len(text) >= 200 and text not in seen:
                seen.add(text)
                yield text


def docstrings(source: str) -> list[str]:
    """The docstrings of a module and of all that is defined in it."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


def cut_safely(text: str, n_characters: int = 1000) -> list[str]:
    """`text` in parts of about that length, cut where GPT-2's pattern cuts too: before a space inside a line
    of words. The tokens of the parts are the tokens of the whole."""
    parts, start = [], 0
    while start < len(text):
        found = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])").search(text, start + n_characters)
        end = found.start() if found else len(text)
        parts.append(text[start:end])
        start = end
    return parts
