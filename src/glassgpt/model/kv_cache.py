"""The key/value cache: what attention would otherwise compute again for every token it has read.

Decoding token t without a cache runs the whole prefix through the model again; with it, one token. The
memory is taken once, for `max_tokens`, so nothing grows or is copied while text is being written.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassgpt.errors import GenerationError
from glassgpt.model.config import ModelConfig


class KVCache:
    """Keys and values of all layers for `batch_size` sequences of up to `max_tokens` tokens.

    Its bytes: 2 · L · B · G · max_tokens · Dh · (bytes of `dtype`). Prompts of unequal length share a
    batch by padding on the left: `n_padding` says how many of each row's first positions are padding.
    They are never attended to, and a row's positions count from its first real token.

    Raises GenerationError when `max_tokens` exceeds the context, or padding fills a row. Chapter 10.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        max_tokens: int,
        *,
        n_padding: Int[Tensor, " B"] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not 1 <= max_tokens <= config.context_length:
            raise GenerationError(
                f"A cache for max_tokens={max_tokens:,} does not fit context_length="
                f"{config.context_length:,}; choose 1 to {config.context_length:,}."
            )
        if n_padding is not None and tuple(n_padding.shape) != (batch_size,):
            raise GenerationError(
                f"n_padding has shape {tuple(n_padding.shape)}; it needs one number for each of the "
                f"{batch_size} rows."
            )
        if n_padding is not None and not bool(((n_padding >= 0) & (n_padding < max_tokens)).all()):
            raise GenerationError(
                f"n_padding={n_padding.tolist()} leaves a row of max_tokens={max_tokens:,} without a token; "
                f"each number must be 0 to {max_tokens - 1:,}."
            )
        shape = (config.n_layers, batch_size, config.kv_heads, max_tokens, config.d_head)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        if n_padding is not None:
            n_padding = n_padding.to(device, torch.int64, copy=True).contiguous()
        self.n_padding = n_padding
        self.n_tokens = 0

    @property
    def max_tokens(self) -> int:
        """The most tokens the cache can hold."""
        return self.keys.shape[3]

    @property
    def n_bytes(self) -> int:
        """Memory taken by keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def check_room(self, batch_size: int, n_new: int) -> None:
        """Raise GenerationError unless `n_new` more tokens of `batch_size` rows fit."""
        if batch_size != self.keys.shape[1]:
            raise GenerationError(f"The cache holds {self.keys.shape[1]} rows, and was given {batch_size}.")
        if self.n_tokens + n_new > self.max_tokens:
            raise GenerationError(
                f"The cache holds {self.n_tokens:,} of at most {self.max_tokens:,} tokens; {n_new:,} more "
                f"do not fit. Make it larger, or reset() it."
            )

    def extend(
        self, layer: int, keys: Float[Tensor, "B G T Dh"], values: Float[Tensor, "B G T Dh"]
    ) -> tuple[Float[Tensor, "B G S Dh"], Float[Tensor, "B G S Dh"]]:
        """Write the new tokens' keys and values of `layer` behind the old; return old and new together.

        They are kept in the cache's type, and come back in that of the new ones, which attention computes in.
        They are kept without their graph: gradients reach the tokens of the same call, not earlier ones.
        The count `n_tokens` moves on once per model call, by `advance`, after every layer has written.
        """
        return self._extend(self.keys[layer], keys), self._extend(self.values[layer], values)

    def _extend(self, kept: Tensor, new: Tensor) -> Tensor:
        end = self.n_tokens + new.shape[2]
        kept[:, :, self.n_tokens : end] = new.detach()
        if new.requires_grad:
            old = kept[:, :, : self.n_tokens]
            return torch.cat([old, new.to(kept.dtype)], dim=2).to(new.dtype)
        return kept[:, :, :end].to(new.dtype)

    def advance(self, n_new: int) -> None:
        """Count `n_new` tokens as read."""
        self.n_tokens += n_new

    def reset(self) -> None:
        """Forget everything read so far; the memory and the rows' padding stay."""
        self.n_tokens = 0
