"""Byte-level byte-pair encoding: lossless for any text, a vocabulary of any size from 256 up."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import tiktoken
from numpy.typing import NDArray

from glassgpt.errors import TokenizerError
from glassgpt.tokenizers.bpe_training import N_BYTES, learn_merges
from glassgpt.tokenizers.gpt2_files import read_gpt2_merges
from glassgpt.tokenizers.interface import (
    END_OF_TEXT,
    Tokenizer,
    batches,
    each_text,
    require_utf8,
    split_special,
    unknown_id,
)
from glassgpt.tokenizers.long_pieces import LongPieceEncoder
from glassgpt.tokenizers.pattern import PATTERN, chunks, cut
from glassgpt.tokenizers.piece_counts import count_pieces
from glassgpt.tokenizers.piece_table import PieceTable
from glassgpt.tokenizers.printable import GPT2_BYTE_ORDER, from_printable, read_merges, to_printable

_BYTES_IN_ORDER = bytes(range(N_BYTES))

# tiktoken's regular expressions overflow their stack on long white space, and some of its releases take n²
# steps for a piece of n bytes. It gets text in chunks; a piece longer than any is merged by LongPieceEncoder.
_CHUNK_CHARACTERS = 1 << 13

_BATCH_CHARACTERS = 1 << 18  # looked up in the table of pieces at a time
_LEAST_CHARACTERS = 1 << 15  # below this `tiktoken` alone is as fast


class BPETokenizer(Tokenizer):
    """Ids 0–255 are the bytes, one more for each merge in the order learnt, then the special tokens.

    Text is cut by GPT-2's pattern, each piece becomes its UTF-8 bytes, and in it the pair learnt first is
    merged first (Sennrich et al. 2016, arXiv:1508.07909; over bytes: Radford et al. 2019 §2.2). Encoding is
    `tiktoken` on our merges, and for long texts a table of the pieces met before (`piece_table`);
    `by_hand.bpe.encode` gives the same ids. Chapter 01.
    """

    kind: ClassVar[str] = "bpe"

    def __init__(
        self,
        merges: Sequence[tuple[int, int]],
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        byte_order: bytes = _BYTES_IN_ORDER,
    ) -> None:
        """`merges` as training gives them; `byte_order[i]` is the byte that id i stands for.

        Raises TokenizerError for a merge of ids that do not exist yet, or two tokens that are the same.
        """
        names = list(special_tokens)
        if sorted(byte_order) != list(range(N_BYTES)):
            raise TokenizerError("byte_order must hold each of the 256 bytes once.")
        _check_special(names)
        self.merges = [(left, right) for left, right in merges]
        self.byte_order = byte_order
        tokens = [bytes([byte]) for byte in byte_order]
        for rank, (left, right) in enumerate(self.merges):
            if not (0 <= left < len(tokens) and 0 <= right < len(tokens)):
                raise TokenizerError(
                    f"Merge {rank} joins ids {left} and {right}; before it only 0–{len(tokens) - 1} exist."
                )
            tokens.append(tokens[left] + tokens[right])
        self._id_of = {token: token_id for token_id, token in enumerate(tokens)}
        if len(self._id_of) < len(tokens):
            raise TokenizerError("Two merges make the same token; each must make one of its own.")
        self.special_tokens = {name: len(tokens) + i for i, name in enumerate(names)}
        self._bytes_of = dict(enumerate([*tokens, *(name.encode("utf-8") for name in names)]))
        self.vocab_size = len(self._bytes_of)
        # Ours are found before it sees the text. One must be there all the same: where there is none,
        # `encode_to_numpy` looks for it at every letter.
        self._tiktoken = tiktoken.Encoding(
            "glassgpt",
            pat_str=PATTERN,
            mergeable_ranks=self._id_of,
            special_tokens={END_OF_TEXT: len(tokens)},
        )

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int,
        *,
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        progress: bool = False,
    ) -> "BPETokenizer":
        """Learn a vocabulary: the merges of `by_hand.bpe.train`, fast; `special_tokens` divide the texts.

        `texts` may be a generator over more text than memory holds. When all pieces of text have become one
        token each before `vocab_size` is reached, the vocabulary stays smaller.
        Raises TokenizerError for a vocab_size below the 256 bytes and the special tokens, and for no text.
        """
        names = list(special_tokens)
        _check_special(names)
        n_merges = vocab_size - N_BYTES - len(names)
        if n_merges < 0:
            raise TokenizerError(
                f"vocab_size={vocab_size} is too small: 256 bytes and {len(names)} special tokens need at "
                f"least {N_BYTES + len(names)}."
            )
        pieces = count_pieces(texts, names, progress=progress)
        if not pieces:
            raise TokenizerError("There is no text to learn a vocabulary from: 0 characters. Give some text.")
        return cls(learn_merges(pieces, n_merges, progress=progress), names)

    @classmethod
    def gpt2(cls) -> "BPETokenizer":
        """GPT-2's own 50,257 tokens, from OpenAI's two files in the cache folder.

        Raises TokenizerError when they are missing or not the ones OpenAI published.
        """
        return cls(read_gpt2_merges(), (END_OF_TEXT,), GPT2_BYTE_ORDER)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of `text`. Special tokens in it are text like any other unless `allow_special`.

        Raises TokenizerError for a lone surrogate, the one thing that UTF-8 cannot hold.
        """
        require_utf8(text)
        if not allow_special:
            return self._encode_text(text)
        ids: list[int] = []
        for place, part in enumerate(split_special(text, self.special_tokens)):
            ids += [self.special_tokens[part]] if place % 2 else self._encode_text(part)
        return ids

    def encode_array(self, text: str) -> NDArray[np.integer]:
        """The ids that `encode` gives, as an array that no Python number is made for. Raises as it does."""
        return self.encode_arrays([text])[0]

    def encode_arrays(self, texts: str | Iterable[str]) -> list[NDArray[np.integer]]:
        """`encode_array` of each text; of many short ones faster than one by one. Raises as `encode` does."""
        parts: list[str] = []
        n_parts = [0]
        for text in each_text(texts):
            parts += chunks(text, _BATCH_CHARACTERS)
            n_parts.append(len(parts))
        arrays = [
            ids for batch in batches(parts, len, _BATCH_CHARACTERS) for ids in self._encode_together(batch)
        ]
        none = np.empty(0, np.uint32)
        return [np.concatenate([none, *arrays[start:end]]) for start, end in itertools.pairwise(n_parts)]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes behind `ids`. Raises TokenizerError for an id outside the vocabulary."""
        try:
            return b"".join([self._bytes_of[token_id] for token_id in ids])
        except KeyError as fault:
            raise unknown_id(fault.args[0], self.vocab_size) from None

    def content(self) -> dict[str, Any]:
        """The bytes in the order of their ids, the merges and the special tokens, all readable."""
        written = {token_id: to_printable(token) for token, token_id in self._id_of.items()}
        return {
            "bytes": to_printable(self.byte_order),
            "merges": [f"{written[left]} {written[right]}" for left, right in self.merges],
            "special_tokens": list(self.special_tokens),
        }

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> "BPETokenizer":
        """The inverse of `content`. Raises TokenizerError when it does not describe a tokenizer."""
        try:
            byte_order = from_printable(content["bytes"])
            merges, _ = read_merges(content["merges"], byte_order)
            return cls(merges, content["special_tokens"], byte_order)
        except (KeyError, TypeError, ValueError) as fault:
            raise TokenizerError(
                f"This is not a BPE vocabulary ({fault!r}). Save the tokenizer again."
            ) from fault

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it is made of: `tiktoken`'s half lives in Rust and is built again."""
        return type(self), (self.merges, tuple(self.special_tokens), self.byte_order)

    def _encode_text(self, text: str) -> list[int]:
        if len(text) <= _CHUNK_CHARACTERS:
            return self._tiktoken.encode_ordinary(text)
        return self.encode_array(text).tolist()

    def _encode_together(self, texts: list[str]) -> list[NDArray[np.integer]]:
        """The ids of each of `texts`, one of the batches that `encode_arrays` makes."""
        if sum(map(len, texts)) >= _LEAST_CHARACTERS:
            return self._piece_table.encode(texts)
        return [self._encode_by_tiktoken(text) for text in texts]

    def _encode_by_tiktoken(self, text: str) -> NDArray[np.uint32]:
        parts: list[NDArray[np.uint32]] = [np.empty(0, np.uint32)]
        for part in _parts(text):
            if len(part) <= 2 * _CHUNK_CHARACTERS:
                parts.append(self._tiktoken.encode_to_numpy(part, disallowed_special=()))
            else:
                parts.append(np.array(self._encode_long(part), np.uint32))
        return np.concatenate(parts)

    def _encode_long(self, piece: str) -> list[int]:
        data = np.frombuffer(piece.encode("utf-8"), dtype=np.uint8)
        return self._long_pieces.encode(self._id_of_byte[data])

    @cached_property
    def _piece_table(self) -> PieceTable:
        n_bytes = np.array([len(self._bytes_of[token_id]) for token_id in range(self.vocab_size)])
        return PieceTable(self._encode_by_tiktoken, n_bytes)

    @cached_property
    def _long_pieces(self) -> LongPieceEncoder:
        return LongPieceEncoder(self.merges, N_BYTES)

    @cached_property
    def _id_of_byte(self) -> np.ndarray:
        return np.argsort(np.frombuffer(self.byte_order, dtype=np.uint8))


def _parts(text: str) -> Iterator[str]:
    """`text` in parts that can be encoded each alone; one that is longer than the most is a single piece."""
    for chunk in chunks(text, _CHUNK_CHARACTERS):
        if len(chunk) <= 2 * _CHUNK_CHARACTERS:
            yield chunk
        else:
            yield from cut(chunk)


def _check_special(names: list[str]) -> None:
    wrong = [name for name in names if not isinstance(name, str) or not name]
    if wrong or len(set(names)) < len(names):
        raise TokenizerError(
            f"special_tokens={names!r} must be different strings that are not empty, such as {END_OF_TEXT!r}."
        )
    for name in names:
        require_utf8(name)
