"""Which of our weights each tensor of a checkpoint fills, and how it is laid out there.

A format is one table, their name → our name and the layout, in the file of that format.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from glassgpt.model.config import ModelConfig
from glassgpt.model.gpt import GPT


class Layout(NamedTuple):
    """How a tensor of theirs holds the numbers of one of ours; both ways are views, not copies."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


AS_OURS = Layout(lambda theirs: theirs, lambda ours: ours)
IN_OUT = Layout(lambda theirs: theirs.T, lambda ours: ours.T)
"""(in, out), for x @ w, as GPT-2 was written; a PyTorch Linear holds (out, in)."""
ONE_IN_OUT = Layout(lambda theirs: theirs[0].T, lambda ours: ours.T[None])
"""(1, in, out): OpenAI wrote its matrices as convolutions of width 1."""


class Place(NamedTuple):
    """Where a tensor goes."""

    ours: str
    layout: Layout


Table = Mapping[str, Place]
"""Their name → its place, with `{layer}` in the names of what every block has."""


def places_for(table: Table, n_layers: int) -> dict[str, Place]:
    """`table` with `{layer}` written out for a model of `n_layers`."""
    places = {}
    for theirs, place in table.items():
        for layer in range(n_layers) if "{layer}" in theirs else [0]:
            places[theirs.format(layer=layer)] = Place(place.ours.format(layer=layer), place.layout)
    return places


def own_places(config: ModelConfig) -> dict[str, Place]:
    """Our own names, for a file that has them: each is its own place."""
    return {name: Place(name, AS_OURS) for name in GPT.uninitialised(config, device="meta").state_dict()}
