"""GlassGPT: from raw text to a GPT that you have built, trained, loaded, looked into and put to use.

Text → token ids → batches → logits → loss → weights → text; the packages stand in that order, and
imports only ever point back up it.
"""

from typing import TYPE_CHECKING

from glassgpt.lazy import lazy_exports

if TYPE_CHECKING:
    from glassgpt.errors import GlassGPTError as GlassGPTError
    from glassgpt.model.config import ModelConfig as ModelConfig
    from glassgpt.model.config import gpt2 as gpt2
    from glassgpt.model.gpt import GPT as GPT

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "errors": ["GlassGPTError"],
        "model.config": ["ModelConfig", "gpt2"],
        "model.gpt": ["GPT"],
    },
)
