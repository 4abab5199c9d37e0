"""Words as tokens, as one would first do it: cut text into words and marks, number them, look them up.

The two tokenizers differ in one thing: what happens to a word that the training text did not have.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from glassgpt.errors import TokenizerError
from glassgpt.tokenizers.interface import (
    END_OF_TEXT,
    Tokenizer,
    each_text,
    require_utf8,
    split_special,
    unknown_id,
)

UNKNOWN = "<|unk|>"

Own = TypeVar("Own", bound="SimpleTokenizerV1")

_MARKS = r""",.:;?!_"“”'‘’()\[\]{}—…"""
_WORD_OR_MARK = re.compile(rf"--|[{_MARKS}]|(?:(?!--)[^\s{_MARKS}])+")

_CLOSING = set(",.:;?!)]}”…")
_OPENING = set("([{“‘")
_JOINING = {"--", "—"}
_APOSTROPHES = {"'", "’"}
_PAIRED = {'"', "_", *_APOSTROPHES}  # the same mark opens and closes
_CONTRACTED = {"s", "S", "t", "d", "m", "ll", "re", "ve"}  # what follows the apostrophe of an English word


def split_words(text: str) -> list[str]:
    """The words and marks of `text` without the white space between them. Chapter 01."""
    return _WORD_OR_MARK.findall(text)


def join_words(words: Iterable[str]) -> str:
    """Words and marks as a text, with spaces where English has them: nearly the inverse of `split_words`.

    Which white space stood where is lost; every gap becomes one space. A mark that both opens and closes is
    taken to open when it is the first, third, … of its kind.
    """
    words = ["", *words, ""]
    parts: list[str] = []
    is_open: set[str] = set()
    glued = True  # the next word follows without a space
    for previous, word, following in zip(words, words[1:], words[2:], strict=False):
        to_left = to_right = False  # glued on that side?
        if word in _CLOSING:
            to_left = True
        elif word in _OPENING:
            to_right = True
        elif word in _JOINING:
            to_left = previous in _JOINING or not previous.endswith("-")  # "---" would begin with the dash
            to_right = True
        elif word in _APOSTROPHES and previous[-1:].isalnum() and following in _CONTRACTED:
            to_left = to_right = True
        elif word in _APOSTROPHES and word not in is_open and previous.endswith("s"):
            to_left = True  # the boys' books
        elif word in _PAIRED:
            to_left = word in is_open
            to_right = not to_left
            is_open ^= {word}
        parts += [word] if glued or to_left else [" ", word]
        glued = to_right
    return "".join(parts)


class SimpleTokenizerV1(Tokenizer):
    """Each word and mark of the training text has an id; a word without one is an error. Chapter 01."""

    kind: ClassVar[str] = "simple_v1"
    own_tokens: ClassVar[tuple[str, ...]] = ()

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        """Raises TokenizerError unless the ids are 0, 1, 2, … in some order."""
        ids = dict(vocabulary)
        for name in self.own_tokens:
            ids.setdefault(name, len(ids))
        if not ids or sorted(ids.values()) != list(range(len(ids))):
            raise TokenizerError(
                f"A vocabulary has at least one word, and its {len(ids)} words have the ids "
                f"0–{len(ids) - 1}, each once. Number them with enumerate(sorted(words))."
            )
        self.special_tokens = {name: ids[name] for name in self.own_tokens}
        self.vocab_size = len(ids)
        self._word_of = {token_id: word for word, token_id in ids.items()}
        self._id_of = {word: token_id for word, token_id in ids.items() if word not in self.special_tokens}

    @classmethod
    def train(cls: type[Own], texts: str | Iterable[str]) -> Own:
        """Number the words of `texts` in sorted order. Raises TokenizerError when there is none."""
        words: set[str] = set()
        for text in each_text(texts):
            words.update(split_words(text))
        if not words:
            raise TokenizerError("There is no text to learn words from. Give some text.")
        return cls({word: token_id for token_id, word in enumerate(sorted(words - set(cls.own_tokens)))})

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of the words and marks of `text`.

        Raises TokenizerError naming words that are not in the vocabulary.
        """
        require_utf8(text)
        words = split_words(text)
        unknown = list(dict.fromkeys(word for word in words if word not in self._id_of))
        if unknown:
            others = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise TokenizerError(
                f"Not among the {self.vocab_size} words of this vocabulary: "
                f"{', '.join(map(repr, unknown[:5]))}{others}. Train on text that has them, or use "
                f"SimpleTokenizerV2, which reads them as {UNKNOWN}."
            )
        return [self._id_of[word] for word in words]

    def decode(self, ids: Iterable[int]) -> str:
        """The words behind `ids`, spaced by `join_words`. Raises TokenizerError for an unknown id."""
        try:
            return join_words([self._word_of[token_id] for token_id in ids])
        except KeyError as fault:
            raise unknown_id(fault.args[0], self.vocab_size) from None

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """`decode` as UTF-8."""
        return self.decode(ids).encode("utf-8")

    def content(self) -> dict[str, Any]:
        """The words in the order of their ids."""
        return {"words": [self._word_of[token_id] for token_id in range(self.vocab_size)]}

    @classmethod
    def from_content(cls: type[Own], content: dict[str, Any]) -> Own:
        """The inverse of `content`. Raises TokenizerError when it does not describe a tokenizer."""
        words = content.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise TokenizerError("This is not a list of words. Save the tokenizer again.")
        return cls({word: token_id for token_id, word in enumerate(words)})


class SimpleTokenizerV2(SimpleTokenizerV1):
    """As V1, but an unknown word becomes <|unk|>, and <|endoftext|> can stand between texts. Chapter 01."""

    kind: ClassVar[str] = "simple_v2"
    own_tokens: ClassVar[tuple[str, ...]] = (END_OF_TEXT, UNKNOWN)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of the words and marks of `text`; with `allow_special`, of special tokens in it as well."""
        require_utf8(text)
        parts = split_special(text, self.special_tokens) if allow_special else [text]
        ids: list[int] = []
        for place, part in enumerate(parts):
            if place % 2:
                ids.append(self.special_tokens[part])
            else:
                ids += [self._id_of.get(word, self.special_tokens[UNKNOWN]) for word in split_words(part)]
        return ids
