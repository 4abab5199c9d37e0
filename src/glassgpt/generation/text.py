"""Text in, new text out, each piece as soon as it is certain.

Between token ids and text stand two things that can wait for the next token. A token may end in the
middle of a character: its bytes are kept until the character is whole. And the end of the text so far may
be the beginning of a stop string: it is kept until it is one, or cannot become one any more.
"""

import codecs
from collections.abc import Iterator
from typing import overload

from glassgpt.errors import GenerationError
from glassgpt.generation.config import SamplingConfig
from glassgpt.generation.tokens import generate
from glassgpt.model.gpt import GPT
from glassgpt.tokenizers import Tokenizer

_N_NEAREST = 16
"""Tokens that a new one is decoded together with: its spacing may depend on them, its bytes never do."""


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
    prompts = [prompt] if isinstance(prompt, str) else prompt
    rows = _encode(model, tokenizer, prompts, allow_special)
    end = tokenizer.end_of_text_id
    steps = generate(
        model,
        rows,
        sampling,
        stop_token_ids=() if end is None else (end,),
        vocab_size=tokenizer.vocab_size,
    )
    pieces = _pieces(steps, [_TextStream(tokenizer, row, sampling.stop) for row in rows])
    return (step[0] for step in pieces) if isinstance(prompt, str) else pieces


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
    prompts = [prompt] if isinstance(prompt, str) else prompt
    steps = list(generate_text(model, tokenizer, prompts, sampling, allow_special=allow_special))
    texts = ["".join(step[i] for step in steps) for i in range(len(prompts))]
    return texts[0] if isinstance(prompt, str) else texts


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
        raise GenerationError(
            f"Prompt {rows.index([])} has no tokens, and this tokenizer has no end-of-text token to start "
            f"from. Write at least a character."
        )
    return rows


def _pieces(steps: Iterator[list[int | None]], streams: list["_TextStream"]) -> Iterator[list[str]]:
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
        self.nearest = prompt_ids[-_N_NEAREST:]
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.held = ""
        """Decoded, and perhaps the beginning of a stop string."""
        self.ended = False

    def add(self, token_id: int) -> str:
        """The text that has become certain with this token; nothing after the end."""
        if self.ended:
            return ""
        self.held += self.decoder.decode(self._bytes_of(token_id))
        found = [(start + len(stop), start) for stop in self.stop if (start := self.held.find(stop)) >= 0]
        if found:
            # The stop string that was complete first, the longest of several: so the end does not
            # depend on how the text was cut into tokens.
            self.ended = True
            return self.held[: min(found)[1]]
        certain = len(self.held) - self._n_undecided()
        piece, self.held = self.held[:certain], self.held[certain:]
        return piece

    def finish(self) -> str:
        """What was held back, now that no token follows; once."""
        piece = "" if self.ended else self.held
        self.ended = True
        return piece

    def _bytes_of(self, token_id: int) -> bytes:
        """What the token adds to the text behind the ones before it: a word, say, adds a space as well."""
        token_ids = [*self.nearest, token_id]
        n_before = len(self.tokenizer.decode_bytes(self.nearest))
        self.nearest = token_ids[-_N_NEAREST:]
        return self.tokenizer.decode_bytes(token_ids)[n_before:]

    def _n_undecided(self) -> int:
        """How many characters at the end of `held` could be the beginning of a stop string."""
        return max(
            (n for stop in self.stop for n in range(1, len(stop)) if self.held.endswith(stop[:n])), default=0
        )
