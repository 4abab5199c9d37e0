"""Other people's weights → our model: name maps, readers of their formats, and the way back."""

from typing import TYPE_CHECKING

from glassgpt.lazy import lazy_exports

if TYPE_CHECKING:
    from glassgpt.pretrained.conversion import convert as convert
    from glassgpt.pretrained.download import download_gpt2 as download_gpt2
    from glassgpt.pretrained.loading import load_pretrained as load_pretrained
    from glassgpt.pretrained.loading import open_model as open_model
    from glassgpt.pretrained.tf_checkpoint import TensorBundle as TensorBundle
    from glassgpt.pretrained.tf_checkpoint import TensorInfo as TensorInfo
    from glassgpt.pretrained.tf_checkpoint import open_checkpoint as open_checkpoint

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "conversion": ["convert"],
        "download": ["download_gpt2"],
        "loading": ["load_pretrained", "open_model"],
        "tf_checkpoint": ["TensorBundle", "TensorInfo", "open_checkpoint"],
    },
)
