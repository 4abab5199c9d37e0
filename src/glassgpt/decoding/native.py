"""The decoding step in C++ (`step.cpp`), called. `servable.py` knows which models it can serve.

It computes what `model(token_ids, cache)` does for a token a row, or a few, on a CPU, from the same weights
where they lie (`lay_in_rows`) and with the same cache. PyTorch's way stays for all else; the step is tested
against it.
"""

import ctypes
import gc
import threading
import time

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glassgpt.decoding.build import library
from glassgpt.decoding.faster import FasterOfTwo
from glassgpt.decoding.large_pages import side_by_side
from glassgpt.decoding.packed import MOST_PACKED_ROWS, forget_copies, packed_matrices, place_of, version_of
from glassgpt.decoding.quantization import QuantizedEmbedding, QuantizedLinear
from glassgpt.decoding.servable import FORMATS
from glassgpt.errors import GenerationError
from glassgpt.model.block import Block
from glassgpt.model.gpt import GPT
from glassgpt.model.kv_cache import KVCache
from glassgpt.model.positions import rotary_angles


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("format", ctypes.c_int32),
        ("largest", ctypes.c_float),
        ("packed", ctypes.c_void_p),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, _Norm) for name in ("attention_norm", "feedforward_norm")),
        *((name, _Matrix) for name in ("qkv", "output", "gate", "up", "down")),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        ("blocks", ctypes.POINTER(_Block)),
        ("final_norm", _Norm),
        *((name, _Matrix) for name in ("token_embedding", "position_embedding", "head")),
        *((name, ctypes.c_void_p) for name in ("cosine", "sine")),
        *((name, ctypes.c_int64) for name in ("n_blocks", "n_heads", "n_kv_heads", "d_head", "window")),
        ("norm_eps", ctypes.c_float),
        ("is_rmsnorm", ctypes.c_int32),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("token_ids", ctypes.POINTER(ctypes.c_int64)),
        *((name, ctypes.c_void_p) for name in ("logits", "keys", "values", "n_padding")),
        *((name, ctypes.c_int64) for name in ("n_rows", "n_new", "n_tokens", "max_tokens")),
        ("cache_format", ctypes.c_int32),
        ("reads_copies", ctypes.c_int32),
    )


_laying = threading.Lock()


def lay_in_rows(model: GPT) -> None:
    """Lay out row behind row what lies otherwise: the matrices of other formats, which are (in, out) in the
    file that is mapped, and seen transposed.

    Once for each parameter, which stays the same one with the same values; its memory in the file is given
    up. No other thread may compute with the model outside `generate` meanwhile. All stay as they lie while
    one has a gradient, or an optimizer keeps numbers of its own for it: a fused optimizer takes all of these
    to lie alike, and would mix them up. So they do where other processes share them.
    """
    with _laying, torch.inference_mode(False), torch.no_grad():  # one made in inference could not be trained
        astray = [parameter for parameter in model.parameters() if not parameter.is_contiguous()]
        if any(parameter.grad is not None or parameter.is_shared() for parameter in astray):
            return
        if astray and not _are_keys(astray):
            for parameter, place in zip(astray, side_by_side(astray), strict=True):
                parameter.data = place.copy_(parameter.data)


def _are_keys(parameters: list[nn.Parameter]) -> bool:
    """Whether a dictionary has one of them for a key, as an optimizer's state has."""
    holders = [holder for holder in gc.get_referrers(*parameters) if isinstance(holder, dict)]
    return any(parameter in holder for holder in holders for parameter in parameters)


class NativeStep:
    """`model`'s decoding step, over its weights as they are now; `why_not_native` must have been None.

    What is written into float32 vectors and any matrix counts at once, unless `lay_in_rows` has left that
    matrix as it lay: then it is copied, as are vectors of other types. For a text that may get `n_tokens`
    tokens, one or two rows may be computed from packed copies (`packed_matrices`), where that turns out to
    be faster, until the model is in training mode or its weights' versions change. A change that does not
    count as a version, through `.data` or by a fused optimizer, may then count for some steps only, until
    the next `NativeStep`.
    """

    def __init__(self, model: GPT, n_tokens: int = 0) -> None:
        lay_in_rows(model)
        self.model = model
        self.packed = packed_matrices(model, n_tokens)
        self.packed_weights = [weight for weight in model.parameters() if place_of(weight) in self.packed]
        self.version = version_of(self.packed_weights)
        self.config = config = model.config
        self.kept: list[Tensor] = []  # what the pointers below point into
        cosine = sine = None
        if config.positions == "rope":
            positions = torch.arange(config.context_length, device="cpu")
            cosine, sine = rotary_angles(positions, config.d_head, config.rope_theta, torch.float32)
        learned = config.positions == "learned"
        self.description = _Model(
            blocks=(_Block * config.n_layers)(*map(self._block, model.blocks)),
            final_norm=self._norm(model.final_norm),
            token_embedding=self._matrix(model.token_embedding),
            position_embedding=self._matrix(model.position_embedding) if learned else _Matrix(),
            head=self._matrix(model.head),
            cosine=self._pointer(cosine),
            sine=self._pointer(sine),
            n_blocks=config.n_layers,
            n_heads=config.n_heads,
            n_kv_heads=config.kv_heads,
            d_head=config.d_head,
            window=config.attention_window or 0,
            norm_eps=config.norm_eps,
            is_rmsnorm=config.norm == "rmsnorm",
        )
        self.packing_pays = [FasterOfTwo() for _ in range(MOST_PACKED_ROWS)]  # with one row, with two

    def logits(self, token_ids: list[int], cache: KVCache, n_new: int = 1) -> Float[Tensor, "B*T V"]:
        """The logits of what follows each of `token_ids`, in float32: T = `n_new` neighbouring tokens of the
        first of the cache's rows, then those of the second, ….

        Reads the tokens into the cache; one after the other they would get the same bits, unless 24 or more
        of them meet bfloat16 weights where tiles multiply these (`tile_products.h`). Raises
        GenerationError when the cache is full, of another model's shape, or of another type than float32 and
        bfloat16, for a token outside the vocabulary, and where the step has too little memory.

        Nothing here is PyTorch's but the memory of the result and, of packed weights, their versions: its
        smallest operation takes ten times as long as when repeated, with all that the step has pushed out of
        the processor's cache in between.
        """
        if self.packed and (self.model.training or version_of(self.packed_weights) != self.version):
            self.packed = {}
            forget_copies(self.model)
        config, n_rows = self.config, len(token_ids) // max(1, n_new)
        if n_rows * n_new != len(token_ids):
            raise GenerationError(
                f"{len(token_ids)} token ids are not n_new={n_new} for each row. Pass as many of the first "
                f"row, then as many of the second, …."
            )
        cache.check_room(n_rows, n_new)
        self._check(token_ids, n_rows, cache)
        logits = torch.empty(len(token_ids), config.vocab_size, dtype=torch.float32, device="cpu")
        step = _Step(
            token_ids=(ctypes.c_int64 * len(token_ids))(*token_ids),
            logits=logits.data_ptr(),
            keys=cache.keys.data_ptr(),
            values=cache.values.data_ptr(),
            n_padding=None if cache.n_padding is None else cache.n_padding.data_ptr(),
            n_rows=n_rows,
            n_new=n_new,
            n_tokens=cache.n_tokens,
            max_tokens=cache.max_tokens,
            cache_format=FORMATS[cache.keys.dtype],
        )
        if self.packed and 1 <= len(token_ids) <= MOST_PACKED_ROWS:
            packing_pays = self.packing_pays[len(token_ids) - 1]
            step.reads_copies, start = packing_pays.takes_first(), time.perf_counter()
            self._run(step)
            packing_pays.took(bool(step.reads_copies), time.perf_counter() - start)
        else:
            self._run(step)
        cache.advance(n_new)
        return logits

    def _run(self, step: _Step) -> None:
        enough_memory = library().glassgpt_step(
            ctypes.byref(self.description), ctypes.byref(step), ctypes.c_int32(torch.get_num_threads())
        )
        if not enough_memory:
            raise GenerationError(
                f"There is too little memory for a step of {step.n_rows * step.n_new:,} tokens. Generate for "
                f"fewer prompts at once."
            )

    def _check(self, token_ids: list[int], n_rows: int, cache: KVCache) -> None:
        """What lies beyond a tensor's end would be read as if it were part of it."""
        config = self.config
        shape = (config.n_layers, n_rows, config.kv_heads, cache.max_tokens, config.d_head)
        for tensor in (cache.keys, cache.values):
            if tuple(tensor.shape) != shape or not tensor.is_contiguous():
                raise GenerationError(
                    f"The cache has the shape {tuple(tensor.shape)} with strides {tensor.stride()}; the "
                    f"model needs {shape} without gaps. Make it with KVCache(model.config, …)."
                )
            if tensor.dtype not in (torch.float32, torch.bfloat16) or tensor.dtype != cache.keys.dtype:
                raise GenerationError(f"The cache is {tensor.dtype}; the C++ step needs float32 or bfloat16.")
            if tensor.device.type != "cpu":
                raise GenerationError(
                    f"The cache is on {tensor.device}, and the model on the CPU: move one of them."
                )
        if cache.max_tokens > config.context_length:
            raise GenerationError(
                f"The cache has room for {cache.max_tokens:,} tokens; the model's context_length is "
                f"{config.context_length:,}. Make it smaller."
            )
        padding = cache.n_padding
        if padding is not None and (
            padding.dtype != torch.int64 or padding.shape != (n_rows,) or not padding.is_contiguous()
        ):
            raise GenerationError(
                f"The cache's n_padding is {padding.dtype} of the shape {tuple(padding.shape)}; the C++ step "
                f"needs torch.int64 of ({n_rows},)."
            )
        for token_id in token_ids:
            if not 0 <= token_id < config.vocab_size:
                raise GenerationError(
                    f"Token id {token_id} is outside vocab_size={config.vocab_size:,}. "
                    f"Was another tokenizer used?"
                )

    def _block(self, block: nn.Module) -> _Block:
        assert isinstance(block, Block)
        attention, feedforward = block.attention, block.feedforward
        return _Block(
            attention_norm=self._norm(block.attention_norm),
            feedforward_norm=self._norm(block.feedforward_norm),
            qkv=self._matrix(attention.qkv_proj),
            output=self._matrix(attention.o_proj),
            gate=self._matrix(feedforward.gate_proj) if feedforward.gated else _Matrix(),
            up=self._matrix(feedforward.up_proj),
            down=self._matrix(feedforward.down_proj),
        )

    def _matrix(self, module: nn.Linear | nn.Embedding | QuantizedLinear | QuantizedEmbedding) -> _Matrix:
        scale = bias = copy = None
        largest = 0
        if isinstance(module, QuantizedLinear | QuantizedEmbedding):
            scale = module.scale
        if isinstance(module, QuantizedLinear):
            largest = module.largest_activation
        if isinstance(module, nn.Linear | QuantizedLinear):
            bias, copy = module.bias, self.packed.get(place_of(module.weight))
        weight = self._pointer(module.weight, module.weight.dtype)
        return _Matrix(
            weight=weight,
            scale=self._pointer(scale),
            bias=self._pointer(bias),
            rows=module.weight.shape[0],
            columns=module.weight.shape[1],
            format=FORMATS[module.weight.dtype],
            largest=largest,
            packed=None if copy is None else copy.data_ptr(),
        )

    def _norm(self, norm: nn.Module) -> _Norm:
        vectors = dict(norm.named_parameters())
        return _Norm(weight=self._pointer(vectors["weight"]), bias=self._pointer(vectors.get("bias")))

    def _pointer(self, tensor: Tensor | None, dtype: torch.dtype = torch.float32) -> int | None:
        if tensor is None:
            return None
        self.kept.append(tensor.detach().to(dtype).contiguous())
        return self.kept[-1].data_ptr()
