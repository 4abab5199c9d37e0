"""One token a character: the smallest vocabulary a text can have."""

from collections.abc import Iterable
from typing import Any, ClassVar

from glassgpt.errors import TokenizerError
from glassgpt.tokenizers.interface import Tokenizer, each_text, require_utf8, unknown_id


class CharTokenizer(Tokenizer):
    """Ids 0 … are the characters of an alphabet, in the order of their code points. Chapter 01.

    A character that was not in the training text has no id: what is lossless here is only that alphabet.
    """

    kind: ClassVar[str] = "char"

    def __init__(self, alphabet: str) -> None:
        """Raises TokenizerError for an alphabet that is empty or names a character twice."""
        require_utf8(alphabet)
        self.alphabet = "".join(sorted(set(alphabet)))
        if not alphabet or len(alphabet) != len(self.alphabet):
            raise TokenizerError(
                f"An alphabet names each character once, at least one; this one has {len(alphabet)}, "
                f"{len(self.alphabet)} of them different."
            )
        self.vocab_size = len(self.alphabet)
        self.special_tokens: dict[str, int] = {}
        self._id_of = {character: token_id for token_id, character in enumerate(self.alphabet)}
        self._bytes_of = {token_id: character.encode("utf-8") for character, token_id in self._id_of.items()}

    @classmethod
    def train(cls, texts: str | Iterable[str]) -> "CharTokenizer":
        """Every character of `texts`. Raises TokenizerError when there is none."""
        characters: set[str] = set()
        for text in each_text(texts):
            characters.update(text)
        if not characters:
            raise TokenizerError("There is no text to learn an alphabet from: 0 characters. Give some text.")
        return cls("".join(sorted(characters)))

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """One id a character; there are no special tokens to allow.

        Raises TokenizerError naming the first character that the alphabet lacks, and where it stands.
        """
        try:
            return list(map(self._id_of.__getitem__, text))
        except KeyError as fault:
            unknown = fault.args[0]
        require_utf8(text)
        raise TokenizerError(
            f"Character {unknown!r} (U+{ord(unknown):04X}) at position {text.index(unknown):,} is not among "
            f"the {self.vocab_size} of this alphabet (different unknown characters in this text: "
            f"{len(set(text) - self._id_of.keys())}). "
            "Train on text that has it, or use a BPETokenizer, which takes any text."
        )

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The characters' UTF-8 bytes. Raises TokenizerError for an id outside the vocabulary."""
        try:
            return b"".join([self._bytes_of[token_id] for token_id in ids])
        except KeyError as fault:
            raise unknown_id(fault.args[0], self.vocab_size) from None

    def content(self) -> dict[str, Any]:
        """The alphabet, in the order of the ids."""
        return {"alphabet": self.alphabet}

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> "CharTokenizer":
        """The inverse of `content`. Raises TokenizerError when it does not describe a tokenizer."""
        if content.keys() != {"alphabet"} or not isinstance(content["alphabet"], str):
            raise TokenizerError("This is not an alphabet. Save the tokenizer again.")
        return cls(content["alphabet"])
