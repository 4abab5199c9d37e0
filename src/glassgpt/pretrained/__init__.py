"""Other people's weights → our model: name maps, readers of their formats, and the way back."""

from typing import TYPE_CHECKING

from glassgpt.lazy import lazy_exports

if TYPE_CHECKING:
    from glassgpt.pretrained.tf_checkpoint import TensorBundle as TensorBundle
    from glassgpt.pretrained.tf_checkpoint import TensorInfo as TensorInfo
    from glassgpt.pretrained.tf_checkpoint import open_checkpoint as open_checkpoint

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "tf_checkpoint": ["TensorBundle", "TensorInfo", "open_checkpoint"],
    },
)
