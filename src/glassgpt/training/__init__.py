"""Logits → loss → weights: the loss, the optimizer, the loop and its checkpoints."""

from typing import TYPE_CHECKING

from glassgpt.lazy import lazy_exports

if TYPE_CHECKING:
    from glassgpt.training.checkpoint import load_checkpoint as load_checkpoint
    from glassgpt.training.checkpoint import load_for_use as load_for_use
    from glassgpt.training.checkpoint import newest_checkpoint as newest_checkpoint
    from glassgpt.training.checkpoint import save_checkpoint as save_checkpoint
    from glassgpt.training.config import OptimizerConfig as OptimizerConfig
    from glassgpt.training.config import ScheduleConfig as ScheduleConfig
    from glassgpt.training.config import TrainConfig as TrainConfig
    from glassgpt.training.evaluation import evaluate as evaluate
    from glassgpt.training.evaluation import gzip_bits_per_byte as gzip_bits_per_byte
    from glassgpt.training.evaluation import unigram_bits_per_byte as unigram_bits_per_byte
    from glassgpt.training.loss import bits_per_byte as bits_per_byte
    from glassgpt.training.loss import cross_entropy as cross_entropy
    from glassgpt.training.loss import linear_cross_entropy as linear_cross_entropy
    from glassgpt.training.loss import perplexity as perplexity
    from glassgpt.training.metrics import read_metrics as read_metrics
    from glassgpt.training.optimizer import make_optimizer as make_optimizer
    from glassgpt.training.schedule import learning_rate as learning_rate
    from glassgpt.training.step import TrainStep as TrainStep
    from glassgpt.training.trainer import TrainResult as TrainResult
    from glassgpt.training.trainer import train as train

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "checkpoint": ["load_checkpoint", "load_for_use", "newest_checkpoint", "save_checkpoint"],
        "config": ["OptimizerConfig", "ScheduleConfig", "TrainConfig"],
        "evaluation": ["evaluate", "gzip_bits_per_byte", "unigram_bits_per_byte"],
        "loss": ["bits_per_byte", "cross_entropy", "linear_cross_entropy", "perplexity"],
        "metrics": ["read_metrics"],
        "optimizer": ["make_optimizer"],
        "schedule": ["learning_rate"],
        "step": ["TrainStep"],
        "trainer": ["TrainResult", "train"],
    },
)
