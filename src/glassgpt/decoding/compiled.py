"""The decoding step on a GPU: compiled, recorded as a CUDA graph for each cache, replayed for each token.

A GPU computes a token of a small model sooner than Python has asked it for the hundreds of kernels that this
takes. A recording asks for all of them at once, and repeats them exactly: the same shapes at the same places.
So whatever changes from token to token stands in tensors that keep their place, and attention looks at every
column of the cache, through a mask that shows the ones which are filled.

What is compiled is one block. All blocks share its kernels and the recording joins them, so compiling takes
seconds, and a model twice as deep takes no longer.
"""

import functools
import warnings
from collections.abc import Callable
from weakref import WeakSet

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from glassgpt.decoding.attention_kernels import attention_without_plans
from glassgpt.model.attention import Surroundings
from glassgpt.model.gpt import GPT
from glassgpt.model.kv_cache import KVCache
from glassgpt.model.modes import evaluating
from glassgpt.model.positions import rotary_angles

RunBlock = Callable[..., Tensor]
RunHead = Callable[[Tensor], Tensor]

_CHOSEN: WeakSet[GPT] = WeakSet()
_COLUMNS = 128
_WARM_UP_RUNS = 3
_MOST_SHAPES = 256
"""For how many numbers of rows and columns PyTorch may compile a block; by itself it gives up after 8."""
_HEAD_ROWS_MULTIPLE = 64
"""So that a GPU's tensor cores read and write whole lines of the head's logits."""


def compile_decoding(model: GPT) -> GPT:
    """Let `generate` decode `model` with a `CompiledStep` while it is on a CUDA GPU; returns `model`.

    It has to be asked for, since it pays for much text only: compiling takes seconds for each new number of
    rows, and of columns in steps of 128; every call of `generate` records anew, which takes as long as some
    tokens. Where that fails, a warning says why, and PyTorch decodes as without.
    """
    _CHOSEN.add(model)
    return model


def why_not_compiled(model: GPT) -> str | None:
    """Why `generate` does not use a `CompiledStep` for `model`, in a few words; None where it does."""
    if model not in _CHOSEN:
        return "compile_decoding(model) was not called"
    device = model.head.weight.device
    if device.type != "cuda":
        return f"the model is on {device}"
    if nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks:
        return "there are hooks for all modules, which a recording would not call"
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name or 'the model'} has hooks, which a recording would not call"
    return None


class CompiledStep:
    """`model`'s decoding step over its weights as they are now, where `why_not_compiled` has no answer.

    For one cache at a time: another one makes another recording.
    """

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.weights = list(model.state_dict().values())  # a recording reads them where they lie
        self.head = padded_head(model)
        self.cache: KVCache | None = None

    @staticmethod
    def n_columns(n_tokens: int, context_length: int) -> int:
        """For how many tokens a cache should have room: few different numbers, as each is compiled for."""
        return min(-(-n_tokens // _COLUMNS) * _COLUMNS, context_length)

    def logits(self, token_ids: list[int] | Int[Tensor, " B"], cache: KVCache) -> Float[Tensor, "B V"]:
        """The logits of what follows `token_ids`, one for each of the cache's rows.

        Reads the tokens into the cache; does not wait for the GPU. Raises GenerationError when it is full.
        """
        cache.check_room(len(token_ids), 1)
        if cache is not self.cache:
            self._prepare(cache)
        self._set_inputs(token_ids, cache)
        if not self.recorded:
            self._record(cache)
        self.replay()
        cache.advance(1)
        return self.output.clone()  # the next replay writes there again

    def _prepare(self, cache: KVCache) -> None:
        n_rows, device = cache.keys.shape[1], cache.keys.device
        self.token_ids = torch.zeros(n_rows, 1, dtype=torch.long, device=device)  # (B, 1)
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        self.n_padding = torch.zeros(n_rows, dtype=torch.long, device=device)  # (B,)
        for tensor in (cache.keys, cache.values):  # 0 · nan would be nan, in memory that nobody has written
            tensor[:, :, :, cache.n_tokens :] = 0
        self.cache, self.recorded = cache, False

    def _set_inputs(self, token_ids: list[int] | Tensor, cache: KVCache) -> None:
        self.token_ids.copy_(torch.as_tensor(token_ids)[:, None], non_blocking=True)
        self.column.fill_(cache.n_tokens)
        if cache.n_padding is None:
            self.n_padding.zero_()
        else:
            self.n_padding.copy_(cache.n_padding)

    def _record(self, cache: KVCache) -> None:
        """Set `replay`, which computes `output`: a recording, or the step itself where none can be made.

        Running the step more than once does no harm: it writes the same into the same column.
        """

        def run(run_block: RunBlock) -> Tensor:
            with evaluating(self.model):
                return static_logits(
                    self.model, self.head, self.token_ids, self.column, self.n_padding, cache, run_block
                )

        def run_plainly() -> None:
            self.output = run(block_in_columns)

        try:
            with attention_without_plans(), torch._dynamo.config.patch(cache_size_limit=_MOST_SHAPES):
                self.replay, self.output = record(lambda: run(_compiled_block()), cache.keys.device)
        except Exception as fault:  # whatever a compiler may raise: there is another way to the same logits
            reason = str(fault).strip().partition("\n")[0]
            warnings.warn(
                f"The decoding step could not be compiled and recorded ({type(fault).__name__}: {reason}); "
                f"PyTorch decodes without, which is slower.",
                stacklevel=2,
            )
            self.replay = run_plainly
        self.recorded = True


def padded_head(model: GPT) -> RunHead:
    """`model.head`, by a copy of its weights whose number of rows suits a GPU better than GPT-2's 50,257."""
    head = model.head
    n_more = -head.weight.shape[0] % _HEAD_ROWS_MULTIPLE
    is_plain = (
        type(head) is nn.Linear
        and type(head.weight) is nn.Parameter
        and head.bias is None
        and "forward" not in vars(head)
    )
    if n_more == 0 or not is_plain:
        return head
    weight = F.pad(head.weight.detach(), (0, 0, 0, n_more))
    return lambda x: F.linear(x, weight)[..., :-n_more]


def static_logits(
    model: GPT,
    head: RunHead,
    token_ids: Tensor,
    column: Tensor,
    n_padding: Tensor,
    cache: KVCache,
    run_block: RunBlock,
) -> Float[Tensor, "B V"]:
    """`model(token_ids, cache)` for one token a row, with the shapes of a full cache whatever it holds.

    `head` computes what `model.head` does; `column` (1,) is where the tokens enter the cache; `n_padding`
    (B,) counts each row's padding.
    """
    config = model.config
    positions = (column - n_padding[:, None]).clamp(min=0)  # (B, 1)
    x = model.token_embedding(token_ids)  # (B, 1, D)
    rotary = None
    if config.positions == "learned":
        x = x + model.position_embedding(positions)
    elif config.positions == "rope":
        rotary = rotary_angles(positions, config.d_head, config.rope_theta, x.dtype)
    mask = _visible(cache.max_tokens, column, n_padding, config.attention_window)
    for layer, block in enumerate(model.blocks):
        x = run_block(block, x, mask, rotary, cache.keys[layer], cache.values[layer], column)
    return head(model.final_norm(x))[:, 0]


def _visible(
    n_columns: int, column: Tensor, n_padding: Tensor, window: int | None
) -> Bool[Tensor, "B 1 1 S"]:
    """`attention_mask` for one query a row, in `column`; even padding sees itself there."""
    columns = torch.arange(n_columns, device=column.device)
    visible = (columns <= column) & (columns >= n_padding[:, None, None, None])  # (B, 1, 1, S)
    if window is not None:
        visible = visible & (columns > column - window)
    return visible | (columns == column)


class _Columns(KVCache):
    """One layer of a cache: a token enters it in a column that only the device knows, and all are read."""

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor) -> None:
        self.keys, self.values, self.column = keys, values, column

    def extend(
        self, layer: int, keys: Float[Tensor, "B G T Dh"], values: Float[Tensor, "B G T Dh"]
    ) -> tuple[Float[Tensor, "B G S Dh"], Float[Tensor, "B G S Dh"]]:
        self.keys.index_copy_(2, self.column, keys.to(self.keys.dtype))
        self.values.index_copy_(2, self.column, values.to(self.values.dtype))
        return self.keys.to(keys.dtype), self.values.to(values.dtype)


def block_in_columns(
    block: nn.Module,
    x: Tensor,
    mask: Tensor,
    rotary: tuple[Tensor, Tensor] | None,
    keys: Tensor,
    values: Tensor,
    column: Tensor,
) -> Tensor:
    """`block` behind the tokens of one layer's `keys` and `values`, to which it adds its own in `column`."""
    added: Tensor = block(x, Surroundings(mask, rotary, _Columns(keys, values, column)))
    return added


@functools.cache
def _compiled_block() -> RunBlock:
    # A recording takes what is compiled and what is not, so a part that cannot be does no harm.
    return torch.compile(block_in_columns, dynamic=False)


def record(run: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], None], Tensor]:
    """A function that repeats on the GPU what `run` asks of it, and the tensor that holds the result then.

    As PyTorch's notes on CUDA semantics have it: a few runs on another stream, where all is compiled and
    every library chooses its ways, then the recording. Other threads may use the GPU meanwhile.
    """
    # The last of these has this thread go on where it was, should the recording fail.
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # The memory that cuBLAS works in belongs to the stream, and others may free it. Where there is none,
        # it takes some of the recording's own, which nobody else may then go on with.
        torch._C._cuda_clearCublasWorkspaces()
        # PyTorch's own stream for recordings is of the first device that made one, and records no other.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            output = run()
        torch._C._cuda_clearCublasWorkspaces()
        return graph.replay, output
