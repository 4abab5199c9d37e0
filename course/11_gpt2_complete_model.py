"""Chapter 11: GPT-2 complete, in one file that needs PyTorch alone. Import it, or run it:

    python course/11_gpt2_complete_model.py --help
    python course/11_gpt2_complete_model.py models/gpt2 --ids 15496 11 --n-new 20

It restates what `glassgpt.model` and `glassgpt.generation` have, to read in one sitting and to take along.
Weights come from a model folder (`glassgpt convert gpt2 models/gpt2`) or from a state dict.

Shapes: B sequences, T new tokens, S tokens to look at, D width, H heads of width Dh, V vocabulary, L layers.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# ---- what a GPT-2 is ----


@dataclass(frozen=True, kw_only=True)
class Config:
    """The shape of a GPT-2; the defaults are those of the smallest, 124M."""

    vocab_size: int = 50_257
    context_length: int = 1024
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12


SIZES = {
    "124M": Config(),
    "355M": Config(d_model=1024, n_layers=24, n_heads=16),
    "774M": Config(d_model=1280, n_layers=36, n_heads=20),
    "1558M": Config(d_model=1600, n_layers=48, n_heads=25),
}


# ---- the model, from the inside out ----


class Attention(nn.Module):
    """softmax(q kᵀ / √Dh, causal) v in every head (Vaswani et al. 2017, §3.2)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.qkv_proj = nn.Linear(config.d_model, 3 * config.d_model)
        self.o_proj = nn.Linear(config.d_model, config.d_model)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        B, T, D = x.shape
        q, k, v = (
            part.view(B, T, self.n_heads, -1).transpose(1, 2) for part in self.qkv_proj(x).split(D, dim=-1)
        )  # each (B, H, T, Dh)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)  # (B, H, S, Dh)
        S = k.shape[2]
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, S)
        # The last T of the S positions ask; each sees itself and what came before.
        future = torch.ones(T, S, dtype=torch.bool, device=x.device).triu(S - T + 1)
        weights = scores.masked_fill(future, -math.inf).softmax(dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(B, T, D)
        return self.o_proj(mixed), (k, v)


class FeedForward(nn.Module):
    """Widen four times, bend by GELU in its tanh form, narrow."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, 4 * config.d_model)
        self.down_proj = nn.Linear(4 * config.d_model, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.up_proj(x), approximate="tanh"))


class Block(nn.Module):
    """Attention, then feed-forward, each on the normalised stream and added to it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.attention = Attention(config)
        self.feedforward_norm = nn.LayerNorm(config.d_model)
        self.feedforward = FeedForward(config)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mixed, present = self.attention(self.attention_norm(x), past)
        x = x + mixed
        return x + self.feedforward(self.feedforward_norm(x)), present


Cache = list[tuple[Tensor, Tensor]]  # keys and values of every layer, for the tokens that have been read


class GPT2(nn.Module):
    """GPT-2 (Radford et al. 2019). The head is the token embedding: one parameter, not a copy."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.context_length, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.final_norm = nn.LayerNorm(config.d_model)

    def forward(self, token_ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits (B, T, V) of what follows each token, and the cache to go on with.

        `cache` None or [] begins a text; what a call returned goes on behind it.
        """
        n_read = cache[0][0].shape[2] if cache else 0
        n_tokens = n_read + token_ids.shape[1]
        if n_tokens > self.config.context_length:
            raise ValueError(f"{n_tokens} tokens do not fit context_length={self.config.context_length}.")
        positions = torch.arange(n_read, n_tokens, device=token_ids.device)
        x = self.token_embedding(token_ids) + self.position_embedding(positions)  # (B, T, D)
        pasts, presents = cache or [None] * len(self.blocks), []
        for block, past in zip(self.blocks, pasts, strict=True):
            x, present = block(x, past)
            presents.append(present)
        return self.final_norm(x) @ self.token_embedding.weight.T, presents


# ---- its weights ----

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load(path: Path) -> GPT2:
    """The model in a folder of glassgpt, or in a `.pt` file: its own, or a state dict of a known size."""
    if path.is_dir():
        settings = json.loads((path / "config.json").read_text(encoding="utf-8"))["model"]
        return build(read_safetensors(path / "model.safetensors"), config_from(settings))
    content = torch.load(path, map_location="cpu", weights_only=True)
    if "weights" in content:
        return build(content["weights"], config_from(content["model"]))
    vocab_size, d_model = content["token_embedding.weight"].shape
    for config in SIZES.values():
        if (vocab_size, d_model) == (config.vocab_size, config.d_model):
            return build(content, config)
    raise ValueError(f"{path}: an embedding of {vocab_size} × {d_model} is none of {', '.join(SIZES)}.")


def config_from(settings: dict) -> Config:
    """A model folder's settings as a Config; ValueError for a model that is no GPT-2."""
    gpt2 = {
        "norm": ["layernorm"], "norm_eps": [1e-5], "positions": ["learned"], "feedforward": ["gelu"],
        "d_ff": [None, 4 * settings["d_model"]], "n_kv_heads": [None, settings["n_heads"]],
        "attention_window": [None], "bias": [True], "qkv_bias": [True], "tied_embeddings": [True],
    }  # fmt: skip
    wrong = [f"{name}={settings[name]}" for name, values in gpt2.items() if settings[name] not in values]
    if wrong:
        raise ValueError(f"This model is no GPT-2: {', '.join(wrong)}. Open it with glassgpt.")
    return Config(**{name: settings[name] for name in Config.__dataclass_fields__})


def build(weights: dict[str, Tensor], config: Config) -> GPT2:
    """A model of `config` with `weights`; RuntimeError names what is missing, left over or misshapen."""
    weights = dict(weights)
    head = weights.pop("head.weight", None)
    if head is not None and not torch.equal(head, weights["token_embedding.weight"]):
        raise ValueError("The head differs from the token embedding, which GPT-2's never does.")
    with torch.device("meta"):
        model = GPT2(config)  # no memory, and no time spent on random numbers
    model.load_state_dict(weights, assign=True)
    return model.eval()


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file: its header's length in 8 bytes, the JSON header with the places, the bytes."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            flat = torch.frombuffer(data, dtype=torch.uint8, offset=start + begin, count=end - begin)
            tensors[name] = flat.view(DTYPES[entry["dtype"]]).view(entry["shape"])
    return tensors


# ---- writing ----


@torch.no_grad()
def generate(
    model: GPT2, token_ids: list[int], n_new: int, *, temperature: float = 1.0, top_k: int | None = None,
    top_p: float | None = None, seed: int | None = None,
) -> Iterator[int]:  # fmt: skip
    """Yield up to `n_new` tokens that go on from `token_ids`, until the context is full."""
    generator = torch.Generator(device=model.token_embedding.weight.device)
    generator.seed() if seed is None else generator.manual_seed(seed)
    new, cache = torch.tensor([token_ids], device=generator.device), None
    for _ in range(min(n_new, model.config.context_length - len(token_ids))):
        logits, cache = model(new, cache)
        new = sample(logits[:, -1].float(), temperature, top_k, top_p, generator)
        yield int(new)


def sample(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> Tensor:
    """Draw a token (B, 1) by `logits` (B, V); at temperature 0 take the likeliest."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits, ids = (logits / temperature).sort(dim=-1, descending=True)
    if top_k is not None:
        logits[:, top_k:] = -math.inf
    if top_p is not None:  # the likeliest that together have top_p: those before which less was reached
        probabilities = logits.softmax(dim=-1)
        logits[probabilities.cumsum(dim=-1) - probabilities >= top_p] = -math.inf
    drawn = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
    return ids.gather(-1, drawn)


def main() -> int:
    parser = argparse.ArgumentParser(description="GPT-2 in one file: let a model go on from some token ids.")
    parser.add_argument("model", type=Path, help="a model folder of glassgpt, or a .pt file")
    parser.add_argument("--ids", type=int, nargs="+", default=[50_256], help="token ids (default: 50256)")
    parser.add_argument("--n-new", type=int, default=20, help="tokens to write (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 takes the likeliest (default: 1)")
    parser.add_argument("--top-k", type=int, help="choose among that many (at least 1)")
    parser.add_argument("--top-p", type=float, help="choose among the likeliest that have this share")
    parser.add_argument("--seed", type=int, help="the same seed writes the same tokens")
    options = parser.parse_args()
    try:
        model = load(options.model)
        how = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
        for token_id in generate(model, options.ids, options.n_new, **how, seed=options.seed):
            print(token_id, end=" ", flush=True)
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as fault:
        print(f"11_gpt2_complete_model.py: {fault}", file=sys.stderr)
        return 2
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
