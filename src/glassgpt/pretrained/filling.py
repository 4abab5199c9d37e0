"""From a checkpoint into a model, one tensor at a time.

Every tensor is used exactly once; what is left over, missing or of another shape is named, and nothing is
dropped in silence.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from glassgpt.errors import CheckpointError
from glassgpt.model.gpt import GPT
from glassgpt.pretrained.name_map import Place
from glassgpt.pretrained.stored import StoredModel

HEAD = "head.weight"


@torch.no_grad()
def fill(model: GPT, stored: StoredModel) -> None:
    """Copy each tensor of `stored` to its place in `model`, casting to the model's dtype.

    A tied head may be in the file, as the copy of the embedding that it is, or not be there. Raises
    CheckpointError, leaving `model` as it was, unless every tensor has a place and every place a tensor.
    """
    ours, weights = model.state_dict(), stored.weights
    places = {
        theirs: place
        for theirs, place in stored.places.items()
        if theirs in weights.shapes or not (place.ours == HEAD and model.config.tied_embeddings)
    }
    problems = fit_problems(ours, stored, places)
    if problems:
        raise CheckpointError(
            f"{weights.path} does not fit the model that its configuration describes:\n  "
            + "\n  ".join(problems)
            + "\nPut the configuration that belongs to these weights beside them, or copy them again."
        )
    for theirs, place in places.items():
        ours[place.ours].copy_(place.layout.to_ours(weights.read(theirs)))


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
