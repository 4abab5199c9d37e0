"""Vectors of many numbers as points on a page, and how far such a map can be trusted."""

import importlib
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glassgpt.checks import not_one_of
from glassgpt.errors import ConfigError, DataError

Method = Literal["pca", "tsne"]


class Principal(NamedTuple):
    """What `pca` found."""

    points: NDArray[np.float64]
    """(n, k): each vector's place along the k directions."""
    shares: NDArray[np.float64]
    """(k,): which part of the vectors' variance lies along each direction."""
    directions: NDArray[np.float64]
    """(k, d): the directions, at right angles to each other, of length 1."""


def pca(vectors: ArrayLike, n_components: int = 2) -> Principal:
    """The `n_components` directions along which the vectors differ most, and the vectors' places there.

    The right singular vectors of the centred matrix (Pearson 1901). The sign of a direction means nothing; it
    is chosen so that its largest number is positive. Chapter 02.
    """
    matrix = _matrix(vectors)
    if not 1 <= n_components <= min(matrix.shape):
        raise ConfigError(f"n_components={n_components} must be 1 to {min(matrix.shape)} for {matrix.shape}.")
    centred = matrix - matrix.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:n_components]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    directions = directions * np.where(largest < 0, -1, 1)
    total = float(np.square(lengths).sum()) or 1.0  # vectors that are all equal differ in no direction
    return Principal(centred @ directions.T, np.square(lengths[:n_components]) / total, directions)


def project(vectors: ArrayLike, method: Method = "pca", *, seed: int = 0) -> NDArray[np.float64]:
    """A point (x, y) for each vector: the two largest principal directions, or a t-SNE map.

    t-SNE (van der Maaten and Hinton 2008) keeps neighbours together and gives up distances between groups;
    another `seed` gives another map. Neighbours are those of the smallest angle. It needs scikit-learn.
    Chapter 02.
    """
    if method not in get_args(Method):
        raise ConfigError(not_one_of("method", method, Method))
    if method == "pca":
        return pca(vectors).points
    try:
        manifold = importlib.import_module("sklearn.manifold")
    except ImportError as fault:
        raise ConfigError(
            "t-SNE needs the package scikit-learn, which is not installed: pip install scikit-learn. "
            'method="pca" needs nothing.'
        ) from fault
    matrix = _matrix(vectors)
    if len(matrix) < 5:
        raise ConfigError(f'A t-SNE map of {len(matrix)} vectors says nothing: give 5, or method="pca".')
    perplexity = min(30.0, (len(matrix) - 1) / 3)  # about how many neighbours each point minds
    start = np.random.default_rng(seed).normal(scale=1e-4, size=(len(matrix), 2))
    tsne = manifold.TSNE(perplexity=perplexity, metric="cosine", init=start, random_state=seed)
    return np.asarray(tsne.fit_transform(matrix), np.float64)


def kept_neighbours(vectors: ArrayLike, points: ArrayLike, n: int = 10) -> float:
    """The share of each vector's `n` nearest others, by cosine, that are among its point's `n` nearest.

    1: the map shows all neighbourhoods as they are. n / (number of vectors − 1): chance.
    """
    matrix, places = _matrix(vectors), _matrix(points)
    if len(places) != len(matrix) or not 1 <= n < len(matrix):
        raise DataError(
            f"{len(matrix)} vectors, {len(places)} points and n={n} do not go together. A point for each "
            "vector is needed, and an n of at least 1 and less than their number."
        )
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    directions = matrix / np.where(lengths > 0, lengths, 1)
    apart = np.square(places[:, None] - places[None]).sum(axis=-1)
    near, near_on_map = _nearest(-directions @ directions.T, n), _nearest(apart, n)
    shared = [np.intersect1d(a, b).size for a, b in zip(near, near_on_map, strict=True)]
    return float(np.mean(shared)) / n


def _nearest(distances: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    np.fill_diagonal(distances, np.inf)  # nobody is a neighbour of their own
    return np.argsort(distances, axis=1, kind="stable")[:, :n]


def _matrix(vectors: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(vectors, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise DataError(f"A map needs a matrix of finite numbers, a row for each; this is {matrix.shape}.")
    return matrix
