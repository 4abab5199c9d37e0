"""Logits → text: how a next token is chosen, and how one follows another."""

from typing import TYPE_CHECKING

from glassgpt.lazy import lazy_exports

if TYPE_CHECKING:
    from glassgpt.generation.config import SamplingConfig as SamplingConfig
    from glassgpt.generation.sampling import next_token_probabilities as next_token_probabilities
    from glassgpt.generation.text import complete as complete
    from glassgpt.generation.text import generate_text as generate_text
    from glassgpt.generation.tokens import generate as generate

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "config": ["SamplingConfig"],
        "sampling": ["next_token_probabilities"],
        "text": ["complete", "generate_text"],
        "tokens": ["generate"],
    },
)
