"""The GPT: token ids in, a score for every possible next token out.

token ids (B, T)
  → token embedding + position embedding   (B, T, D)   the residual stream
  → block, L times                         (B, T, D)   attention and feed-forward add to it
  → final norm                             (B, T, D)
  → head                                   (B, T, V)   logits
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glassgpt.errors import CheckpointError, ConfigError, GenerationError, TokenizerError
from glassgpt.model.attention import Surroundings
from glassgpt.model.block import Block
from glassgpt.model.config import ModelConfig
from glassgpt.model.dropout import Dropout
from glassgpt.model.kv_cache import KVCache
from glassgpt.model.norm import make_norm
from glassgpt.model.positions import attention_mask, rotary_angles

HEAD, EMBEDDING = "head.weight", "token_embedding.weight"


class GPT(nn.Module):
    """A decoder-only transformer (Radford et al. 2019); `config` says which. Chapter 04.

    `model(token_ids)` gives the logits of the token after each position. With a `KVCache` the call
    continues behind what the cache has read, and adds to it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.vocab_size == 0:
            raise ConfigError("vocab_size=0: give the model a vocabulary size, e.g. tokenizer.vocab_size.")
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.context_length, config.d_model)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.final_norm = make_norm(config)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.tie_head()
        self.initialise()

    def forward(self, token_ids: Int[Tensor, "B T"], cache: KVCache | None = None) -> Float[Tensor, "B T V"]:
        return self.head(self.hidden(token_ids, cache))

    def hidden(self, token_ids: Int[Tensor, "B T"], cache: KVCache | None = None) -> Float[Tensor, "B T D"]:
        """What the head reads: the residual stream behind the last block, normalised.

        Raises GenerationError for another shape, or more tokens than the context or the cache holds,
        TokenizerError for an id outside the vocabulary.
        """
        x, around = self._enter(token_ids, cache)
        for block in self.blocks:
            x = block(x, around)
        if cache is not None:
            cache.advance(token_ids.shape[1])
        return self.final_norm(x)

    @torch.no_grad()
    def prefill(self, token_ids: Int[Tensor, "B T"], cache: KVCache) -> None:
        """Read `token_ids` into `cache`, where their logits are not wanted.

        A cache keeps nothing that comes behind the last block's keys and values. So that block's attention
        and feed-forward network are left out, and hooks on them, and on the block, are not called. Raises
        what `hidden` raises.
        """
        x, around = self._enter(token_ids, cache)
        *earlier, last = self.blocks
        for block in earlier:
            x = block(x, around)
        cast(Block, last).prefill(x, around)
        cache.advance(token_ids.shape[1])

    def _enter(self, token_ids: Tensor, cache: KVCache | None) -> tuple[Float[Tensor, "B T D"], Surroundings]:
        """What the first block reads, and what all of them share."""
        n_read = 0 if cache is None else cache.n_tokens
        self._check(token_ids, n_read)
        B, T = token_ids.shape
        if cache is not None:
            cache.check_room(B, T)

        x = self.token_embedding(token_ids)
        positions = torch.arange(n_read, n_read + T, device=token_ids.device)  # (T,)
        n_padding = None if cache is None else cache.n_padding
        if n_padding is not None:  # each row counts from its first real token
            positions = (positions - n_padding[:, None]).clamp(min=0)  # (B, T)
        rotary = None
        if self.config.positions == "learned":
            x = x + self.position_embedding(positions)
        elif self.config.positions == "rope":
            rotary = rotary_angles(positions, self.config.d_head, self.config.rope_theta, x.dtype)
        mask = attention_mask(T, n_read + T, self.config.attention_window, n_padding, x.device)
        return self.dropout(x), Surroundings(mask, rotary, cache)

    @torch.no_grad()
    def initialise(self) -> None:
        """Set all weights as GPT-2 did (Radford et al. 2019 §2.3 and OpenAI's published code).

        Normal with deviation 0.02, positions 0.01, biases 0, norms 1; the two projections that write to
        the residual stream are scaled by 1/√(2L), so that its variance does not grow with depth.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.LayerNorm | nn.RMSNorm):
                module.reset_parameters()
        if self.config.positions == "learned":
            nn.init.normal_(self.position_embedding.weight, std=0.01)
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * self.config.n_layers))

    def tie_head(self) -> None:
        """Make head and token embedding one parameter, where the configuration ties them."""
        if self.config.tied_embeddings:
            self.head.weight = self.token_embedding.weight

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """PyTorch's, with a tied head still tied when it returns, under `assign` too.

        Raises CheckpointError, leaving the model as it was, for a tied head that is not the embedding.
        """
        both = self.config.tied_embeddings and {HEAD, EMBEDDING} <= state_dict.keys()
        if both and not hold_the_same(state_dict[HEAD], state_dict[EMBEDDING]):
            raise CheckpointError(
                f"{HEAD} differs from {EMBEDDING}, and this model's configuration ties the two. "
                f"Build it with tied_embeddings=False."
            )
        keys = super().load_state_dict(state_dict, strict, assign)
        if EMBEDDING in state_dict:
            self.tie_head()
        return keys

    @property
    def n_parameters(self) -> int:
        """Numbers in all weights, frozen ones too; a tied matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @classmethod
    def uninitialised(
        cls, config: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> "GPT":
        """A model whose weights have memory but no values yet, for a caller that is about to load them."""
        with torch.device("meta"), _WithoutInitialising():
            model = cls(config)
        memory = {
            name: torch.empty(weight.shape, device=device, dtype=dtype or weight.dtype)
            for name, weight in model.state_dict().items()
        }
        if config.tied_embeddings:
            memory[HEAD] = memory[EMBEDDING]
        model.load_state_dict(memory, assign=True)
        return model

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> "GPT":
        """Load a model, in eval mode: GPT.from_pretrained("gpt2"), or ("runs/demo").

        Names are gpt2, gpt2-medium, gpt2-large and gpt2-xl, from the cache. A folder is one of ours
        (`save_pretrained`, or a run), one in Hugging Face's format, or OpenAI's. `dtype` None keeps the
        weights' own. Raises CheckpointError when it is missing, damaged or does not fit.
        """
        from glassgpt.pretrained.loading import load_pretrained

        return load_pretrained(name_or_folder, device, dtype, with_tokenizer=False)[0]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `model.safetensors` and `config.json` to `folder`: whole, or not at all."""
        from glassgpt.model.folder import save_model

        save_model(self, None, Path(folder))

    def _check(self, token_ids: Tensor, n_read: int) -> None:
        if token_ids.ndim != 2:
            raise GenerationError(
                f"token_ids has shape {tuple(token_ids.shape)}; the model needs (B, T). For a single "
                f"sequence pass token_ids[None]."
            )
        n_tokens, limit = n_read + token_ids.shape[1], self.config.context_length
        if n_tokens > limit:
            raise GenerationError(
                f"{n_tokens:,} tokens do not fit this model's context_length of {limit:,}. Pass fewer."
            )
        # On an accelerator the check would wait for the device; its own kernels complain there.
        if token_ids.device.type == "cpu" and not torch.compiler.is_compiling() and token_ids.numel():
            lowest, highest = int(token_ids.min()), int(token_ids.max())
            if lowest < 0 or highest >= self.config.vocab_size:
                raise TokenizerError(
                    f"Token id {lowest if lowest < 0 else highest} is outside vocab_size="
                    f"{self.config.vocab_size} (valid: 0–{self.config.vocab_size - 1}). "
                    f"Was another tokenizer used?"
                )


def hold_the_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one, or equal."""
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)  # nan does not equal itself


class _WithoutInitialising(TorchFunctionMode):
    """Skip the functions of torch.nn.init: drawing even imaginary normal numbers makes PyTorch import its
    compiler, which takes seconds."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"]
        return function(*args, **(kwargs or {}))
