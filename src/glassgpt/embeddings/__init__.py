"""Words as vectors: word2vec trained, read and written; similarity, analogies, maps."""

from typing import TYPE_CHECKING

from glassgpt.lazy import lazy_exports

if TYPE_CHECKING:
    from glassgpt.embeddings.config import SkipGramConfig as SkipGramConfig
    from glassgpt.embeddings.google_news import load_google_news as load_google_news
    from glassgpt.embeddings.projections import kept_neighbours as kept_neighbours
    from glassgpt.embeddings.projections import pca as pca
    from glassgpt.embeddings.projections import project as project
    from glassgpt.embeddings.skip_gram import SkipGram as SkipGram
    from glassgpt.embeddings.skip_gram import train_skip_gram as train_skip_gram
    from glassgpt.embeddings.word2vec_files import load_word2vec as load_word2vec
    from glassgpt.embeddings.word2vec_files import write_word2vec as write_word2vec
    from glassgpt.embeddings.word_vectors import WordVectors as WordVectors

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "config": ["SkipGramConfig"],
        "google_news": ["load_google_news"],
        "projections": ["kept_neighbours", "pca", "project"],
        "skip_gram": ["SkipGram", "train_skip_gram"],
        "word2vec_files": ["load_word2vec", "write_word2vec"],
        "word_vectors": ["WordVectors"],
    },
)
