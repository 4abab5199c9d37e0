"""Text in, new text out, each piece as soon as it is certain.

Between token ids and text stand three things that can wait for the next token. A token may end in the
middle of a character: its bytes are kept until the character is whole. A tokenizer of words chooses the
spaces: whether one belongs before an apostrophe shows in the word after it. And the end of the text so far
may be the beginning of a stop string: it is kept until it is one, or cannot become one any more.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from glassgpt.errors import GenerationError
from glassgpt.generation.config import SamplingConfig
from glassgpt.generation.tokens import generate
from glassgpt.model.gpt import GPT
from glassgpt.tokenizers import Tokenizer


@overload
def generate_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: SamplingConfig | None = None,
    *,
    allow_special: bool = False,
) -> Iterator[str]: ...
@overload
def generate_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: list[str],
    sampling: SamplingConfig | None = None,
    *,
    allow_special: bool = False,
) -> Iterator[list[str]]: ...
def generate_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str | list[str],
    sampling: SamplingConfig | None = None,
    *,
    allow_special: bool = False,
) -> Iterator[str] | Iterator[list[str]]:
    """Continue `prompt`, yielding the new text in pieces as it is made. Chapter 05.

    One prompt yields strings. A list of prompts yields lists with one string a prompt, "" where there is
    nothing new; each is continued as it would be alone (with seed + i for prompt i). The text ends at the
    end-of-text token, before the first stop string, or after `max_new_tokens`; bytes that are then left
    of an unfinished character are dropped. An empty prompt starts a new document, from end-of-text.

    Raises GenerationError at the call when the tokenizer is not the model's, or as `generate` does;
    TokenizerError for text that the tokenizer cannot encode.
    """
    sampling = sampling or SamplingConfig()
    rows = _encode(model, tokenizer, [prompt] if isinstance(prompt, str) else prompt, allow_special)
    streams = [_TextStream(tokenizer, row, sampling.stop) for row in rows]
    size = tokenizer.vocab_size
    stop = [] if tokenizer.end_of_text_id is None else [tokenizer.end_of_text_id]
    if isinstance(prompt, str):
        alone = generate(model, rows[0], sampling, stop_token_ids=stop, vocab_size=size)
        return (piece for (piece,) in _pieces(([token_id] for token_id in alone), streams))
    return _pieces(generate(model, rows, sampling, stop_token_ids=stop, vocab_size=size), streams)


@overload
def complete(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: SamplingConfig | None = None,
    *,
    allow_special: bool = False,
) -> str: ...
@overload
def complete(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: list[str],
    sampling: SamplingConfig | None = None,
    *,
    allow_special: bool = False,
) -> list[str]: ...
def complete(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str | list[str],
    sampling: SamplingConfig | None = None,
    *,
    allow_special: bool = False,
) -> str | list[str]:
    """The new text of `generate_text` in one piece, without the prompt; a list of them for a list.

    Raises what `generate_text` raises.
    """
    if isinstance(prompt, str):
        return "".join(generate_text(model, tokenizer, prompt, sampling, allow_special=allow_special))
    steps = generate_text(model, tokenizer, prompt, sampling, allow_special=allow_special)
    texts = [""] * len(prompt)
    for pieces in steps:
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
    return texts


def _encode(model: GPT, tokenizer: Tokenizer, prompts: list[str], allow_special: bool) -> list[list[int]]:
    if tokenizer.vocab_size > model.config.vocab_size:
        raise GenerationError(
            f"This is a tokenizer that does not belong to the model: it has {tokenizer.vocab_size:,} tokens, "
            f"the model's vocab_size is {model.config.vocab_size:,}. "
            f"Use the tokenizer.json beside the weights."
        )
    nothing = [] if tokenizer.end_of_text_id is None else [tokenizer.end_of_text_id]
    rows = [tokenizer.encode(prompt, allow_special=allow_special) or nothing for prompt in prompts]
    if not all(rows):
        name = "The prompt" if len(prompts) == 1 else f"Prompt {rows.index([])}"
        raise GenerationError(
            f"{name} has no tokens, and this tokenizer has no end-of-text token to start "
            f"from. Write at least a character."
        )
    return rows


def _pieces(steps: Iterable[Sequence[int | None]], streams: list["_TextStream"]) -> Iterator[list[str]]:
    for step in steps:
        pieces = [
            stream.finish() if token_id is None else stream.add(token_id)
            for stream, token_id in zip(streams, step, strict=True)
        ]
        if any(pieces):
            yield pieces
        if all(stream.ended for stream in streams):
            return
    rest = [stream.finish() for stream in streams]
    if any(rest):
        yield rest


class _TextStream:
    """One row's new text: token ids go in, and come out as text that no later token can change."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: list[int], stop: tuple[str, ...]) -> None:
        self.tokenizer = tokenizer
        self.stop = stop
        self.token_ids = list(prompt_ids)
        self.written = tokenizer.decode_bytes(prompt_ids)
        self.n_certain = len(self.written)
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.held = ""  # certain, but perhaps the beginning of a stop string
        self.ended = False

    def add(self, token_id: int) -> str:
        """The text that has become certain with this token; nothing after the end."""
        if self.ended:
            return ""
        before = self.written
        self.token_ids.append(token_id)
        self.written = self.tokenizer.decode_bytes(self.token_ids)
        if self.written == before + self.tokenizer.decode_bytes([token_id]):
            n_certain = len(self.written)
        else:  # a space came with it, or went: what follows may change that again
            n_certain = _n_common(before, self.written)
        certain = self.written[self.n_certain : n_certain]
        self.n_certain = n_certain
        return self._release(certain)

    def finish(self) -> str:
        """What was held back, now that no token follows; once."""
        if self.ended:
            return ""
        piece = self._release(self.written[self.n_certain :])
        if not self.ended:
            piece += self.held
        self.ended = True
        return piece

    def _release(self, certain: bytes) -> str:
        """The characters that are whole and not held for a stop string; ends the row where one is found."""
        self.held += self.decoder.decode(certain)
        found = [(start + len(stop), start) for stop in self.stop if (start := self.held.find(stop)) >= 0]
        if found:
            # The stop string that was complete first, the longest of several: so the end does not
            # depend on how the text was cut into tokens.
            self.ended = True
            return self.held[: min(found)[1]]
        n_undecided = max(
            (n for stop in self.stop for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0
        )
        n_sure = len(self.held) - n_undecided
        piece, self.held = self.held[:n_sure], self.held[n_sure:]
        return piece


def _n_common(first: bytes, second: bytes) -> int:
    """How many bytes both begin with."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
