"""A model on disk, opened but not read: its tensors come one at a time, when they are asked for."""

import json
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from glassgpt.errors import CheckpointError
from glassgpt.model.config import ModelConfig
from glassgpt.model.costs import count_parameters
from glassgpt.pretrained.name_map import Place
from glassgpt.tokenizers import Tokenizer


class Weights(Protocol):
    """Tensors by name; what they are is known at once, what they hold is read one by one."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]

    def read(self, name: str) -> Tensor:
        """The tensor `name`. Raises CheckpointError when the file turns out to be damaged."""
        ...


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """What a checkpoint of any format comes down to."""

    format: str
    config: ModelConfig
    weights: Weights
    places: Mapping[str, Place]
    """Where each tensor goes."""
    read_tokenizer: Callable[[], Tokenizer | None]
    ignored: frozenset[str] = frozenset()
    """Tensors in the file that are known and are no weights."""

    @property
    def dtype(self) -> torch.dtype:
        """The smallest dtype that holds every weight of the file."""
        kinds = {self.weights.dtypes[name] for name in self.weights.dtypes.keys() - self.ignored}
        kinds = {kind for kind in kinds if kind.is_floating_point}  # others are refused when it is filled
        return reduce(torch.promote_types, kinds) if kinds else torch.float32


DTYPES = {  # as safetensors spells them
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class SafetensorsWeights:
    """The tensors of one safetensors file, or of several that share a model. They are memory-mapped."""

    def __init__(self, path: Path, files: Iterable[Path]) -> None:
        """`path` names them all in messages.

        Raises CheckpointError for a file that is missing or damaged, and for a tensor that is there twice.
        """
        self.path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self._home: dict[str, Any] = {}
        for file in files:
            try:
                opened = safe_open(file, framework="pt")
                for name in opened.keys():  # noqa: SIM118
                    part = opened.get_slice(name)
                    if name in self._home:
                        raise CheckpointError(f"{name} is in {file} and in another file beside it.")
                    if part.get_dtype() not in DTYPES:
                        raise CheckpointError(
                            f"{name} in {file} has the dtype {part.get_dtype()}, which is not read here. "
                            f"Convert it to one of {', '.join(DTYPES)}."
                        )
                    self.shapes[name] = tuple(part.get_shape())
                    self.dtypes[name] = DTYPES[part.get_dtype()]
                    self._home[name] = opened
            except (OSError, ValueError, SafetensorError) as fault:
                raise CheckpointError(
                    f"{file} cannot be read as safetensors: {fault}. Copy it again."
                ) from fault

    def read(self, name: str) -> Tensor:
        try:
            return self._home[name].get_tensor(name)
        except (OSError, SafetensorError) as fault:
            raise CheckpointError(f"{name} of {self.path} cannot be read: {fault}. Copy it again.") from fault


class StateDictWeights:
    """The tensors of a state dict that PyTorch wrote; those of `load_pickle` are memory-mapped.

    What is read is a copy: who loads a `.pt` file may well save to the same file again, and `torch.save`
    cuts it to nothing first, under the feet of whoever has it mapped.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        self.path = path
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
        self._tensors = tensors

    def read(self, name: str) -> Tensor:
        return self._tensors[name].clone()


def check_size(config: ModelConfig, weights: Weights) -> None:
    """Raise CheckpointError where `config` needs many times the numbers that `weights` has.

    What is wrong by less is found tensor by tensor; a model of any size cannot be built for that.
    """
    n_needed = count_parameters(config).total
    n_numbers = sum(math.prod(shape) for shape in weights.shapes.values())
    if n_needed > 8 * n_numbers:
        raise CheckpointError(
            f"{weights.path} holds {n_numbers:,} numbers, and its configuration describes a model of "
            f"{n_needed:,}. Put the configuration that belongs to these weights beside them, or copy them "
            f"again."
        )


def weights_differ(weights: Weights, one: str, other: str) -> bool:
    """Whether both tensors are there and hold different numbers, as a head that is not tied does."""
    if one not in weights.shapes or other not in weights.shapes:
        return False
    return not torch.equal(weights.read(one), weights.read(other))


def load_pickle(path: Path) -> Any:
    """What `torch.save` wrote, if it is tensors and plain containers: no code of the file ever runs.

    Raises CheckpointError when it is missing, damaged, or holds anything else.
    """
    try:
        # Files from before PyTorch 1.6 are no zip archives, and only those can be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as fault:  # a damaged pickle fails in as many ways as there are bytes
        reason = str(fault).strip().partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be read as tensors that PyTorch saved: {reason or type(fault).__name__} Only "
            f"tensors and plain containers are read (weights_only=True), since a pickle can run any code."
        ) from fault


def require_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """`content` of the file `path`, if it maps names to plain tensors. Raises CheckpointError when not."""
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(
            f"{path} holds no state dict, which maps names to tensors. Save model.state_dict() alone."
        )
    for name, tensor in content.items():
        if kind := _no_plain_tensor(tensor):
            raise CheckpointError(
                f"{name} in {path} is {kind}, and no plain tensor. Save it as a dense one of "
                f"{', '.join(DTYPES)}."
            )
    return content


def _no_plain_tensor(tensor: Tensor) -> str | None:
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    if tensor.device.type != "cpu":  # where all that has numbers is read
        return f"on the device {tensor.device}"
    return None if tensor.dtype in DTYPES.values() else str(tensor.dtype).removeprefix("torch.")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object at `path`. Raises CheckpointError when it is missing or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise CheckpointError(f"{path} cannot be read as JSON: {fault}. Copy it again.") from fault
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {type(content).__name__}, not an object. Copy it again.")
    return content
