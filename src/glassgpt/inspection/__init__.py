"""Looking inside: everything that a model computes on the way, and pictures in one style."""

from typing import TYPE_CHECKING

from glassgpt.lazy import lazy_exports

if TYPE_CHECKING:
    from glassgpt.inspection.coloured import ColouredTokens as ColouredTokens
    from glassgpt.inspection.coloured import coloured_tokens as coloured_tokens
    from glassgpt.inspection.labels import visible as visible
    from glassgpt.inspection.matrices import plot_attention as plot_attention
    from glassgpt.inspection.matrices import plot_matrix as plot_matrix
    from glassgpt.inspection.plots import plot_losses as plot_losses
    from glassgpt.inspection.plots import plot_next_tokens as plot_next_tokens
    from glassgpt.inspection.plots import use_style as use_style
    from glassgpt.inspection.points import plot_points as plot_points
    from glassgpt.inspection.tracing import Trace as Trace
    from glassgpt.inspection.tracing import logit_lens as logit_lens
    from glassgpt.inspection.tracing import trace as trace

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "coloured": ["ColouredTokens", "coloured_tokens"],
        "labels": ["visible"],
        "matrices": ["plot_attention", "plot_matrix"],
        "plots": ["plot_losses", "plot_next_tokens", "use_style"],
        "points": ["plot_points"],
        "tracing": ["Trace", "logit_lens", "trace"],
    },
)
