"""What every tokenizer can do, and the checks that they share."""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from glassgpt.errors import ConfigError, TokenizerError
from glassgpt.tokenizers import files

END_OF_TEXT = "<|endoftext|>"

_BATCH_CHARACTERS = 1 << 16  # for one thread at a time

Own = TypeVar("Own", bound="Tokenizer")
Item = TypeVar("Item")


@runtime_checkable
class Tokenizer(Protocol):
    """Text ↔ token ids 0 … vocab_size - 1.

    A class of ours inherits from it, gives `encode`, `decode_bytes`, `content` and `from_content`, and gets
    the rest. Tokenizers never change once built.
    """

    kind: ClassVar[str]
    vocab_size: int
    special_tokens: dict[str, int]

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of `text`. Special tokens in it are text like any other unless `allow_special`.

        Raises TokenizerError for text that the vocabulary cannot express.
        """
        ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The UTF-8 bytes behind `ids`; ids may end in the middle of a character.

        Raises TokenizerError for an id outside the vocabulary.
        """
        ...

    def content(self) -> dict[str, Any]:
        """All that makes this tokenizer what it is, as JSON can hold it."""
        ...

    @classmethod
    def from_content(cls: type[Own], content: dict[str, Any]) -> Own:
        """The inverse of `content`. Raises TokenizerError when it does not describe a tokenizer."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text behind `ids`; bytes that are no UTF-8 become U+FFFD. Raises as `decode_bytes` does."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def encode_array(self, text: str) -> NDArray[np.integer]:
        """The ids that `encode` gives, as an array. Raises as it does."""
        return np.array(self.encode(text), dtype=np.int64)

    def encode_arrays(self, texts: str | Iterable[str]) -> list[NDArray[np.integer]]:
        """`encode_array` of each text, in this thread; a single string is one text. Raises as it does."""
        return [self.encode_array(text) for text in each_text(texts)]

    def encode_batch(
        self, texts: str | Iterable[str], n_workers: int | None = None
    ) -> list[NDArray[np.integer]]:
        """`encode_arrays` in `n_workers` threads; None takes as many as Python thinks fit.

        Threads help where the work is done outside Python, as byte-pair encoding is. Each takes about 64,000
        characters at a time, or one text. Raises as `encode_arrays` does, and ConfigError for fewer than one.
        """
        if n_workers is not None and n_workers < 1:
            raise ConfigError(f"n_workers={n_workers} must be at least 1, or None.")
        with ThreadPoolExecutor(n_workers) as pool:
            found = pool.map(self.encode_arrays, batches(each_text(texts), len, _BATCH_CHARACTERS))
            return [ids for batch in found for ids in batch]

    @property
    def end_of_text_id(self) -> int | None:
        """The id that separates documents, or None where the vocabulary has none."""
        return self.special_tokens.get(END_OF_TEXT)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the whole content: equal exactly when every id means the same."""
        return files.fingerprint_of(self.kind, self.content())

    def save(self, path: Path | str) -> None:
        """Write one JSON file. Raises TokenizerError when the disk is full or may not be written."""
        files.write(Path(path), self.kind, self.content())

    @classmethod
    def load(cls: type[Own], path: Path | str) -> Own:
        """Read what `save` wrote.

        Raises TokenizerError when the file is missing, damaged, altered, or another kind of tokenizer's.
        """
        kind, content = files.read(Path(path))
        if kind != cls.kind:
            raise TokenizerError(
                f"{path} holds a {kind!r} tokenizer, not {cls.kind!r}. Read it with load_tokenizer."
            )
        return cls.from_content(content)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    r"""How `text` is cut: one readable string for each id; bytes of a divided character read as \xf0."""
    return [
        tokenizer.decode_bytes([token_id]).decode("utf-8", errors="backslashreplace")
        for token_id in tokenizer.encode(text)
    ]


def each_text(texts: str | Iterable[str]) -> Iterator[str]:
    """The texts one by one, checked; a single string is one text, not its characters."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        texts = [texts]  # if it is no text, it is refused as one
    for text in texts:
        require_utf8(text)
        yield text


def batches(items: Iterable[Item], length: Callable[[Item], int], least: int) -> Iterator[list[Item]]:
    """`items` in groups of neighbours, all but the last with lengths of at least `least` together."""
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += length(item)
        if size >= least:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def require_utf8(text: object) -> None:
    """Raise TokenizerError unless `text` is a string that UTF-8 can hold."""
    if not isinstance(text, str):
        remedy = "Decode it first: data.decode('utf-8')." if isinstance(text, bytes) else "Give a str."
        raise TokenizerError(f"Expected text (str), got {type(text).__name__}. {remedy}")
    if text.isascii():
        return  # known without looking
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as fault:
        raise TokenizerError(
            f"The text has a lone surrogate, U+{ord(text[fault.start]):04X}, at position {fault.start:,} of "
            f"{len(text):,}; UTF-8 cannot hold it. Read the text with its real encoding, or replace such "
            "characters: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
        ) from None


def unknown_id(token_id: object, vocab_size: int) -> TokenizerError:
    """The error for an id that the vocabulary does not have."""
    return TokenizerError(
        f"Token id {token_id!r} is outside vocab_size={vocab_size} (valid: 0–{vocab_size - 1}). "
        "Was another tokenizer used?"
    )


def split_special(text: str, special_tokens: Iterable[str]) -> list[str]:
    """Cut `text` around `special_tokens`: text at even places, a special token at each odd one.

    Where one special token begins another, the longer is taken.
    """
    names = sorted(special_tokens, key=len, reverse=True)
    if not any(name in text for name in names):
        return [text]
    return re.split("(" + "|".join(map(re.escape, names)) + ")", text)
