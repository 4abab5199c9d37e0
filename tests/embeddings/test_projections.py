"""Maps of vectors, and the measure of what they hide."""

import sys

import numpy as np
import pytest

from glassgpt.embeddings import kept_neighbours, pca, project
from glassgpt.errors import ConfigError, DataError

NEEDS_SCIKIT_LEARN = "needs scikit-learn: pip install scikit-learn"


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(31, 7)) * [5, 4, 3, 2, 1, 1, 1]


def test_pca_equals_scikit_learns(vectors):
    decomposition = pytest.importorskip("sklearn.decomposition", reason=NEEDS_SCIKIT_LEARN)
    theirs = decomposition.PCA(n_components=3).fit(vectors)

    ours = pca(vectors, 3)

    signs = np.sign((ours.directions * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(ours.directions, signs[:, None] * theirs.components_, atol=1e-12)
    np.testing.assert_allclose(ours.points, signs * theirs.transform(vectors), atol=1e-12)
    np.testing.assert_allclose(ours.shares, theirs.explained_variance_ratio_, atol=1e-12)


def test_all_directions_together_keep_everything(vectors):
    points, shares, directions = pca(vectors, 7)

    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(points @ directions + vectors.mean(axis=0), vectors, atol=1e-12)


def test_the_sign_of_a_direction_does_not_depend_on_chance(vectors):
    np.testing.assert_allclose(pca(vectors).directions, pca(-vectors).directions, atol=1e-12)
    assert (np.abs(pca(vectors).directions).max(axis=1) == pca(vectors).directions.max(axis=1)).all()


def test_vectors_that_are_all_equal_have_no_variance_to_share():
    points, shares, _ = pca(np.ones((3, 2)))

    assert (points == 0).all()
    assert (shares == 0).all()


def test_project_gives_the_two_principal_directions(vectors):
    np.testing.assert_array_equal(project(vectors), pca(vectors).points)


def test_tsne_keeps_groups_apart_and_depends_on_the_seed_alone():
    pytest.importorskip("sklearn.manifold", reason=NEEDS_SCIKIT_LEARN)
    random = np.random.default_rng(0)
    groups = np.repeat(np.eye(3, 11), 13, axis=0)
    vectors = groups + random.normal(scale=0.05, size=groups.shape)

    points, again, other = (project(vectors, "tsne", seed=seed) for seed in (0, 0, 1))

    np.testing.assert_array_equal(points, again)
    assert not np.allclose(points, other)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert (apart.argmin(axis=1) // 13 == np.arange(39) // 13).all()


def test_tsne_goes_by_angles_not_by_lengths():
    pytest.importorskip("sklearn.manifold", reason=NEEDS_SCIKIT_LEARN)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(17, 5))
    stretched = vectors * 2.0 ** random.integers(-3, 4, size=(17, 1))  # exact in floating point

    np.testing.assert_allclose(project(vectors, "tsne"), project(stretched, "tsne"), rtol=1e-3, atol=1e-3)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch, vectors):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)

    with pytest.raises(ConfigError, match="pip install scikit-learn"):
        project(vectors, "tsne")


def test_a_map_that_hides_nothing_keeps_all_neighbours():
    angles = np.sort(np.random.default_rng(0).uniform(0, 3, size=23))
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)

    assert kept_neighbours(circle * 5, circle, 4) == 1
    assert kept_neighbours(circle, np.random.default_rng(1).normal(size=(23, 2)), 4) < 0.5


def test_kept_neighbours_equal_a_loop(vectors):
    points = project(vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = 0
    for i in range(31):
        others = [j for j in range(31) if j != i]
        near = sorted(others, key=lambda j: -(unit[i] @ unit[j]))[:5]
        near_on_map = sorted(others, key=lambda j: np.linalg.norm(points[i] - points[j]))[:5]
        kept += len(set(near) & set(near_on_map))

    assert kept_neighbours(vectors, points, 5) == pytest.approx(kept / (31 * 5))


def test_what_is_no_matrix_is_refused(vectors):
    for wrong in (np.ones(3), np.ones((0, 3)), [[1, np.nan], [2, 3]]):
        with pytest.raises(DataError, match="matrix of finite numbers"):
            pca(wrong)
    with pytest.raises(DataError, match="30 points"):
        kept_neighbours(vectors, vectors[1:], 3)
    with pytest.raises(ConfigError, match="n_components=8"):
        pca(vectors, 8)
    with pytest.raises(ConfigError, match="method='umap' is not one of pca, tsne"):
        project(vectors, "umap")
    with pytest.raises(ConfigError, match="3 vectors"):
        project(vectors[:3], "tsne")
