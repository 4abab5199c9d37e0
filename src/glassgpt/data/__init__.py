"""Token ids → batches: corpora, sliding windows, memory-mapped shards."""

from typing import TYPE_CHECKING

from glassgpt.lazy import lazy_exports

if TYPE_CHECKING:
    from glassgpt.data.batches import Batches as Batches
    from glassgpt.data.batches import eval_windows as eval_windows
    from glassgpt.data.corpora import CORPUS_NAMES as CORPUS_NAMES
    from glassgpt.data.corpora import Corpus as Corpus
    from glassgpt.data.corpora import read_corpus as read_corpus
    from glassgpt.data.preparation import prepare as prepare
    from glassgpt.data.shards import TokenShards as TokenShards
    from glassgpt.data.sliding_window import SlidingWindowDataset as SlidingWindowDataset
    from glassgpt.data.sliding_window import create_dataloader as create_dataloader
    from glassgpt.data.token_array import TokenArray as TokenArray
    from glassgpt.data.vocabulary import make_tokenizer as make_tokenizer

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "batches": ["Batches", "eval_windows"],
        "corpora": ["CORPUS_NAMES", "Corpus", "read_corpus"],
        "preparation": ["prepare"],
        "shards": ["TokenShards"],
        "sliding_window": ["SlidingWindowDataset", "create_dataloader"],
        "token_array": ["TokenArray"],
        "vocabulary": ["make_tokenizer"],
    },
)
