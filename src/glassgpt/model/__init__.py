"""Batches → logits: the GPT, its parts, its costs, and the folder it is kept in."""

from typing import TYPE_CHECKING

from glassgpt.lazy import lazy_exports

if TYPE_CHECKING:
    from glassgpt.model.config import ModelConfig as ModelConfig
    from glassgpt.model.config import gpt2 as gpt2
    from glassgpt.model.costs import Estimate as Estimate
    from glassgpt.model.costs import count_parameters as count_parameters
    from glassgpt.model.costs import estimate as estimate
    from glassgpt.model.folder import load_model as load_model
    from glassgpt.model.folder import save_model as save_model
    from glassgpt.model.gpt import GPT as GPT
    from glassgpt.model.kv_cache import KVCache as KVCache

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "config": ["ModelConfig", "gpt2"],
        "costs": ["Estimate", "count_parameters", "estimate"],
        "folder": ["load_model", "save_model"],
        "gpt": ["GPT"],
        "kv_cache": ["KVCache"],
    },
)
