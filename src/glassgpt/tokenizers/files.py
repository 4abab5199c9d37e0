"""One JSON file a tokenizer: what kind it is, its content, and the fingerprint of both."""

import hashlib
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassgpt.errors import TokenizerError
from glassgpt.storage import write_atomically

if TYPE_CHECKING:
    from glassgpt.tokenizers.interface import Tokenizer

_CLASSES = {
    "simple_v1": ("simple", "SimpleTokenizerV1"),
    "simple_v2": ("simple", "SimpleTokenizerV2"),
    "char": ("characters", "CharTokenizer"),
    "bpe": ("bpe", "BPETokenizer"),
}


def load_tokenizer(path: Path | str) -> "Tokenizer":
    """Read a tokenizer of any kind from the file that its `save` wrote.

    Raises TokenizerError when the file is missing, damaged, altered, or no tokenizer's.
    """
    kind, content = read(Path(path))
    module, name = _CLASSES[kind]
    return getattr(importlib.import_module(f"glassgpt.tokenizers.{module}"), name).from_content(content)


def fingerprint_of(kind: str, content: dict[str, Any]) -> str:
    """SHA-256, in hexadecimal, of the one canonical way to write `kind` and `content`."""
    canonical = json.dumps({**content, "kind": kind}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def write(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write `content` with its kind before it and its fingerprint after it."""
    whole = {"kind": kind, **content, "fingerprint": fingerprint_of(kind, content)}
    write_atomically(path, json.dumps(whole, ensure_ascii=False, indent=1) + "\n", TokenizerError)


def read(path: Path) -> tuple[str, dict[str, Any]]:
    """Return kind and content of the file at `path`, once its fingerprint has been checked."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise TokenizerError(
            f"Cannot read {path}: {fault.strerror}. Save a tokenizer there first."
        ) from fault
    except (ValueError, RecursionError) as fault:
        raise TokenizerError(
            f"{path} is not a whole tokenizer file ({fault}). It is damaged or another file: save it again."
        ) from fault
    kind = content.pop("kind", None) if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in _CLASSES:
        raise TokenizerError(
            f"{path} is not a tokenizer file: its kind is {kind!r}. Known kinds: {', '.join(_CLASSES)}."
        )
    expected = content.pop("fingerprint", None)
    actual = fingerprint_of(kind, content)
    if expected != actual:
        raise TokenizerError(
            f"{path} was altered: its fingerprint is {str(expected)[:12]}…, that of its content "
            f"{actual[:12]}…. Ids would no longer mean what they meant; restore the file, or train and save "
            "again."
        )
    return kind, content
