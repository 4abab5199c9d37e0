"""From a checkpoint into a model, one tensor at a time.

Every tensor is used exactly once; what is left over, missing or of another shape is named, and nothing is
dropped in silence.
"""

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from glassgpt.errors import CheckpointError, ConfigError
from glassgpt.model.gpt import EMBEDDING, GPT, HEAD
from glassgpt.pretrained.name_map import Place
from glassgpt.pretrained.stored import StoredModel

MAPPED = os.name != "nt"
"""Windows lets nobody replace or remove a file that is mapped, so there every tensor is copied."""


def build(stored: StoredModel, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> GPT:
    """The model that `stored` describes, with its weights; `dtype` None keeps their own.

    A tensor that needs no other device or dtype is not copied: the weight is the file, mapped privately, and
    a matrix stored as (in, out) stays so, seen transposed, until the C++ step lays it out in rows. What is
    written into a weight stays in memory. A tied head may be in the file, as the copy of the embedding that
    it is, or not be there.

    Raises CheckpointError unless every tensor has a place and every place a tensor.
    """
    weights, dtype = stored.weights, dtype or stored.dtype
    try:
        model = GPT.uninitialised(stored.config, "meta")
    except ConfigError as fault:
        raise CheckpointError(f"{weights.path} describes no model: {fault}") from fault
    ours, tied = model.state_dict(), stored.config.tied_embeddings
    places = {
        theirs: place
        for theirs, place in stored.places.items()
        if theirs in weights.shapes or not (place.ours == HEAD and tied)
    }
    problems = fit_problems(ours, stored, places)
    if problems:
        raise CheckpointError(
            f"{weights.path} does not fit the model that its configuration describes:\n  "
            + "\n  ".join(problems)
            + "\nPut the configuration that belongs to these weights beside them, or copy them again."
        )
    for theirs, place in places.items():
        ours[place.ours] = _taken(place.layout.to_ours(weights.read(theirs)), torch.device(device), dtype)
    if tied:
        if any(place.ours == HEAD for place in places.values()) and not ours[HEAD].equal(ours[EMBEDDING]):
            raise CheckpointError(
                f"{weights.path} has a head of its own, and its configuration ties it to the embedding. "
                f"Set tied_embeddings to false there, or leave {HEAD} out of the weights."
            )
        ours[HEAD] = ours[EMBEDDING]
    model.load_state_dict(ours, assign=True)
    model.tie_head()
    return model


def _taken(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`tensor` itself where it can be the weight, else a copy in PyTorch's own layout."""
    if MAPPED and tensor.device == device and tensor.dtype == dtype:
        return tensor
    return torch.empty(tensor.shape, device=device, dtype=dtype).copy_(tensor)


def fit_problems(ours: Mapping[str, Tensor], stored: StoredModel, places: Mapping[str, Place]) -> list[str]:
    """How the tensors of a file differ from a model's: a line each, with names and shapes."""
    shapes, dtypes = stored.weights.shapes, stored.weights.dtypes
    problems = []
    for theirs, place in places.items():
        if place.ours not in ours:  # below it is one left over, or in neither
            continue
        needed = tuple(place.layout.to_theirs(ours[place.ours]).shape)
        if theirs not in shapes:
            problems.append(f"missing     {theirs} {needed}, for {place.ours}")
        elif shapes[theirs] != needed:
            problems.append(f"shape       {theirs}: file {shapes[theirs]}, needed {needed} for {place.ours}")
        elif not dtypes[theirs].is_floating_point:
            problems.append(f"dtype       {theirs}: {dtypes[theirs]} is quantised or no weight")
    filled = {theirs for theirs, place in places.items() if place.ours in ours}
    left_over = sorted(shapes.keys() - filled - stored.ignored)
    problems += [f"unexpected  {theirs} {shapes[theirs]}" for theirs in left_over]
    unfilled = sorted(ours.keys() - {place.ours for place in places.values()} - {HEAD})
    problems += [f"missing     whatever fills {name} {tuple(ours[name].shape)}" for name in unfilled]
    return problems
