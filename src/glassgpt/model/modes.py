"""Eval mode for a while, for several threads that share a model."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from weakref import WeakKeyDictionary

from torch import nn


class _Inside:
    """How many threads compute with a model at the moment, and which of its modules were in training mode."""

    def __init__(self) -> None:
        self.n_threads = 0
        self.trained: list[nn.Module] = []


_inside: WeakKeyDictionary[nn.Module, _Inside] = WeakKeyDictionary()
_changing_modes = threading.Lock()


@contextlib.contextmanager
def evaluating(model: nn.Module, modules: Iterable[nn.Module] | None = None) -> Iterator[None]:
    """Put `model` in eval mode, and each module back in its own when the last thread leaves.

    The first to leave would otherwise bring dropout back for those who still compute. `modules` are the
    model's, for whoever comes often and has listed them.
    """
    with _changing_modes:
        inside = _inside.setdefault(model, _Inside())
        inside.n_threads += 1
        for module in model.modules() if modules is None else modules:
            if module.training:
                module.training = False
                inside.trained.append(module)
    try:
        yield
    finally:
        with _changing_modes:
            inside.n_threads -= 1
            if inside.n_threads == 0:
                for module in inside.trained:
                    module.training = True
                inside.trained.clear()
