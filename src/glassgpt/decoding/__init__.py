"""Logits, faster: the step that generates one token, a prompt's products, and weights in fewer bits."""

from typing import TYPE_CHECKING

from glassgpt.lazy import lazy_exports

if TYPE_CHECKING:
    from glassgpt.decoding.build import why_no_library as why_no_library
    from glassgpt.decoding.compiled import CompiledStep as CompiledStep
    from glassgpt.decoding.compiled import compile_decoding as compile_decoding
    from glassgpt.decoding.compiled import why_not_compiled as why_not_compiled
    from glassgpt.decoding.gelu import DifferentiableGELU as DifferentiableGELU
    from glassgpt.decoding.native import NativeStep as NativeStep
    from glassgpt.decoding.packed import MOST_PACKED_ROWS as MOST_PACKED_ROWS
    from glassgpt.decoding.packed import forget_copies as forget_copies
    from glassgpt.decoding.products import OneDNNProducts as OneDNNProducts
    from glassgpt.decoding.prompt import PromptKernels as PromptKernels
    from glassgpt.decoding.quantization import quantize as quantize
    from glassgpt.decoding.servable import why_not_native as why_not_native

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "build": ["why_no_library"],
        "compiled": ["CompiledStep", "compile_decoding", "why_not_compiled"],
        "gelu": ["DifferentiableGELU"],
        "native": ["NativeStep"],
        "packed": ["MOST_PACKED_ROWS", "forget_copies"],
        "products": ["OneDNNProducts"],
        "prompt": ["PromptKernels"],
        "quantization": ["quantize"],
        "servable": ["why_not_native"],
    },
)
