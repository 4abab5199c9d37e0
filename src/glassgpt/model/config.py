"""What a model is: every number and every named choice, checked together before anything is built."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from glassgpt.checks import is_count, is_number, is_positive, not_one_of
from glassgpt.errors import ConfigError, raise_problems

Norm = Literal["layernorm", "rmsnorm"]
Positions = Literal["learned", "rope", "none"]
Feedforward = Literal["gelu", "swiglu"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a decoder-only transformer; the defaults are GPT-2 124M's. Chapter 04.

    Raises ConfigError naming every problem at once.
    """

    vocab_size: int = 0
    """Number of token ids. 0: the tokenizer's, filled in when training starts."""
    context_length: int = 1024
    """The most tokens the model can read at once."""
    d_model: int = 768
    """Width of the residual stream."""
    n_layers: int = 12
    """Number of blocks."""
    n_heads: int = 12
    """Query heads in each block."""
    n_kv_heads: int | None = None
    """Key/value heads; fewer than n_heads groups the queries (arXiv:2305.13245). None: n_heads."""
    d_ff: int | None = None
    """Width inside the feed-forward. None: 4 d_model for gelu, 8/3 d_model rounded up to 64s for swiglu."""
    norm: Norm = "layernorm"
    """layernorm (arXiv:1607.06450) or rmsnorm (arXiv:1910.07467)."""
    norm_eps: float = 1e-5
    """Added to the variance before its square root."""
    positions: Positions = "learned"
    """learned embeddings, rope (rotary, arXiv:2104.09864) or none."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    feedforward: Feedforward = "gelu"
    """gelu (tanh form, as in GPT-2) or swiglu (arXiv:2002.05202)."""
    attention_window: int | None = None
    """How many tokens back a position sees, itself included. None: all of them."""
    bias: bool = True
    """Biases in the norms, the output projection and the feed-forward."""
    qkv_bias: bool = True
    """Biases in the query, key and value projections."""
    tied_embeddings: bool = True
    """The output head is the token embedding (arXiv:1608.05859)."""
    dropout: float = 0.0
    """Share of activations zeroed in training: embeddings, attention weights, residual branches."""

    def __post_init__(self) -> None:
        raise_problems(ConfigError, self._problems(), "The model configuration")

    def _problems(self) -> list[str]:
        problems = []
        for name, lowest in [
            ("vocab_size", 0),
            ("context_length", 1),
            ("d_model", 1),
            ("n_layers", 1),
            ("n_heads", 1),
        ]:
            value = getattr(self, name)
            if not is_count(value, lowest):
                problems.append(f"{name}={value!r} must be a whole number of at least {lowest}.")
        for name in ("n_kv_heads", "d_ff", "attention_window"):
            value = getattr(self, name)
            if value is not None and not is_count(value, 1):
                problems.append(f"{name}={value!r} must be a whole number of at least 1, or None.")
        for name, choices in [("norm", Norm), ("positions", Positions), ("feedforward", Feedforward)]:
            value = getattr(self, name)
            if value not in get_args(choices):
                problems.append(not_one_of(name, value, choices))
        for name in ("bias", "qkv_bias", "tied_embeddings"):
            if not isinstance(getattr(self, name), bool):
                problems.append(f"{name}={getattr(self, name)!r} must be True or False.")
        for name in ("norm_eps", "rope_theta"):
            if not is_positive(getattr(self, name)):
                problems.append(f"{name}={getattr(self, name)!r} must be a positive number.")
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            problems.append(f"dropout={self.dropout!r} must be at least 0 and below 1.")
        if problems:
            return problems  # what follows computes with these values

        if self.d_model % self.n_heads:
            below = self.d_model // self.n_heads * self.n_heads
            nearest = " or ".join(str(d) for d in (below, below + self.n_heads) if d > 0)
            problems.append(
                f"d_model={self.d_model} is not divisible by n_heads={self.n_heads}; nearest: {nearest}."
            )
        elif self.positions == "rope" and self.d_head % 2:
            problems.append(
                f"d_head={self.d_head} (d_model / n_heads) is odd, but rope turns pairs; make it even."
            )
        if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
            divisors = ", ".join(str(n) for n in range(1, self.n_heads + 1) if self.n_heads % n == 0)
            problems.append(
                f"n_heads={self.n_heads} is not divisible by n_kv_heads={self.n_kv_heads}; "
                f"use one of {divisors}."
            )
        return problems

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """`n_kv_heads`, with None resolved."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def hidden_width(self) -> int:
        """`d_ff`, with None resolved."""
        if self.d_ff is not None:
            return self.d_ff
        if self.feedforward == "gelu":
            return 4 * self.d_model
        return -(-8 * self.d_model // (3 * 64)) * 64  # as many parameters as gelu's 4 d_model, in whole 64s

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Build a configuration from `to_dict`'s form.

        Raises ConfigError for a field that does not exist here, rather than dropping it.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise ConfigError(
                f"The model configuration has unknown fields: {', '.join(unknown)}. "
                f"Known: {', '.join(sorted(known))}."
            )
        return cls(**values)


GPT2_SIZES = {  # d_model, n_layers, n_heads
    "124M": (768, 12, 12),
    "355M": (1024, 24, 16),
    "774M": (1280, 36, 20),
    "1558M": (1600, 48, 25),
}


def gpt2(size: str = "124M") -> ModelConfig:
    """The configuration of OpenAI's GPT-2 of that size: 124M, 355M, 774M or 1558M.

    Radford et al. 2019, table 2, with the parameter counts corrected as in OpenAI's repository.
    Raises ConfigError for another size.
    """
    if size not in GPT2_SIZES:
        raise ConfigError(f"There is no GPT-2 of size {size!r}. Sizes: {', '.join(GPT2_SIZES)}.")
    d_model, n_layers, n_heads = GPT2_SIZES[size]
    return ModelConfig(
        vocab_size=50_257, context_length=1024, d_model=d_model, n_layers=n_layers, n_heads=n_heads
    )
