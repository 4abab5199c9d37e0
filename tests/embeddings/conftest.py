"""Small random vectors, and gensim reading the same ones."""

import numpy as np
import pytest

from glassgpt.embeddings import WordVectors

N, D = 53, 7
NEEDS_GENSIM = "needs gensim, the oracle for word vectors: pip install gensim"


@pytest.fixture
def random_vectors() -> WordVectors:
    matrix = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
    return WordVectors([f"w{place}" for place in range(N)], matrix)


@pytest.fixture
def keyed_vectors():
    """gensim.models.KeyedVectors, which holds what our WordVectors hold."""
    return pytest.importorskip("gensim.models", reason=NEEDS_GENSIM).KeyedVectors
