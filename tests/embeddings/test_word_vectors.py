"""Similarity, neighbours, analogies: by hand, by gensim, and what is refused."""

import numpy as np
import pytest

from glassgpt.embeddings import WordVectors, word_vectors
from glassgpt.errors import ConfigError, DataError, TokenizerError

FLOAT32 = 1e-6  # both sides compute in float32; the numbers are about 1


@pytest.fixture
def gensims(random_vectors, keyed_vectors):
    """The same vectors as gensim holds them."""
    theirs = keyed_vectors(vector_size=random_vectors.vectors.shape[1])
    theirs.add_vectors(random_vectors.words, random_vectors.vectors)
    return theirs


def assert_same_answers(ours, theirs):
    assert [word for word, _ in ours] == [word for word, _ in theirs]
    np.testing.assert_allclose([s for _, s in ours], [s for _, s in theirs], rtol=0, atol=FLOAT32)


def test_similarity_is_the_cosine():
    vectors = WordVectors(["east", "north", "northeast", "west"], [[3, 0], [0, 5], [2, 2], [-1, 0]])

    assert vectors.similarity("east", "north") == 0
    assert vectors.similarity("east", "northeast") == pytest.approx(np.sqrt(0.5))
    assert vectors.similarity("east", "west") == -1
    assert vectors.distance("east", "west") == 2


def test_similarity_and_distance_equal_gensims(random_vectors, gensims):
    for a, b in [("w0", "w1"), ("w5", "w52"), ("w7", "w7")]:
        assert random_vectors.similarity(a, b) == pytest.approx(gensims.similarity(a, b), abs=FLOAT32)
        assert random_vectors.distance(a, b) == pytest.approx(gensims.distance(a, b), abs=FLOAT32)


@pytest.mark.parametrize("n", [1, 11, 52, 99])
def test_nearest_words_equal_gensims(random_vectors, gensims, n):
    assert_same_answers(random_vectors.nearest("w3", n), gensims.most_similar("w3", topn=n))


def test_nearest_to_a_vector_equal_gensims(random_vectors, gensims):
    query = np.arange(7, dtype=np.float32) - 2

    assert_same_answers(random_vectors.nearest(query, 13), gensims.similar_by_vector(query, topn=13))


def test_analogies_equal_gensims(random_vectors, gensims):
    question = {"positive": ["w1", "w2", "w3"], "negative": ["w4", "w5"]}

    assert_same_answers(random_vectors.analogy(**question, n=9), gensims.most_similar(**question, topn=9))


def test_the_odd_one_out_is_gensims(random_vectors, gensims):
    for start in range(0, 45, 5):
        words = random_vectors.words[start : start + 7]
        assert random_vectors.odd_one_out(words) == gensims.doesnt_match(words)


def test_a_word_is_not_its_own_neighbour_and_no_answer_is_part_of_the_question(random_vectors):
    nearest = [word for word, _ in random_vectors.nearest("w3", 99)]
    answers = [word for word, _ in random_vectors.analogy(["w1", "w2"], ["w3"], n=99)]

    assert sorted(nearest) == sorted(set(random_vectors.words) - {"w3"})
    assert sorted(answers) == sorted(set(random_vectors.words) - {"w1", "w2", "w3"})


def test_length_does_not_matter(random_vectors):
    stretched = WordVectors(random_vectors.words, random_vectors.vectors * np.arange(1, 54)[:, None])

    for answer in ("nearest", "analogy"):
        question = "w3" if answer == "nearest" else ["w3", "w4"]
        ours, theirs = getattr(random_vectors, answer)(question), getattr(stretched, answer)(question)
        assert_same_answers(ours, theirs)


def test_of_equal_scores_the_word_that_stands_first_comes_first():
    vectors = WordVectors(list("abcdefg"), np.ones((7, 3)))

    assert [word for word, _ in vectors.nearest("d", 6)] == list("abcefg")


def test_of_equal_scores_the_first_words_are_taken_also_where_not_all_find_room():
    equal = WordVectors([f"w{i}" for i in range(40)], np.ones((40, 3)))
    assert [word for word, _ in equal.nearest("w0", 3)] == ["w1", "w2", "w3"]

    # Directions of two numbers that are 0 or 1: three scores, in no order.
    corners = np.random.default_rng(0).integers(0, 2, (997, 2)).astype(np.float32)
    vectors = WordVectors([f"w{i}" for i in range(997)], corners)
    scores = {(0, 0): 0.0, (0, 1): 0.0, (1, 1): 0.5**0.5, (1, 0): 1.0}
    by_score = sorted(range(997), key=lambda i: -scores[tuple(corners[i].astype(int))])  # sorted is stable
    for n in (1, 101, 300, 600, 997):
        assert [word for word, _ in vectors.nearest([1, 0], n)] == [f"w{i}" for i in by_score[:n]]


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e-25, 1e-12, 3e19, 1e38])
def test_neither_small_nor_large_numbers_change_a_direction(size):
    words, matrix = ["east", "north", "northeast", "west"], np.array([[3, 0], [0, 2], [2, 2], [-1, 0]])
    vectors = WordVectors(words, (matrix * size).astype(np.float32))
    few_digits = 0.2 if size == 1e-44 else FLOAT32  # the smallest float32 is 1.4e-45

    assert vectors.similarity("east", "west") == pytest.approx(-1)
    assert vectors.similarity("east", "northeast") == pytest.approx(0.5**0.5, abs=few_digits)
    nearest = vectors.nearest("east", 3)
    assert [word for word, _ in nearest] == ["northeast", "north", "west"]
    np.testing.assert_allclose([s for _, s in nearest], [0.5**0.5, 0, -1], rtol=0, atol=few_digits)
    assert vectors.analogy(["east", "north"], n=2)[0] == ("northeast", pytest.approx(1, abs=few_digits))


@pytest.mark.parametrize("query", [[0, 3e19], [0, 1e-30], [0, 1e300], [0, 5e-324]])
def test_nor_do_they_in_a_query(query):
    vectors = WordVectors(["east", "north"], [[3, 0], [0, 5]])

    assert vectors.nearest(query) == [("north", 1.0), ("east", 0.0)]


def test_many_extreme_vectors_are_taken_some_at_a_time(monkeypatch):
    monkeypatch.setattr(word_vectors, "ROWS_AT_ONCE", 5)
    random = np.random.default_rng(1).normal(size=(53, 7))
    words = [f"w{i}" for i in range(53)]
    sizes = np.resize([1e-40, 1, 1e-20, 1e30, 0], 53)[:, None]
    some = WordVectors(words, (random * sizes).astype(np.float32))
    plain = WordVectors(words, random * (sizes > 0))

    ours, expected = dict(some.nearest("w1", 52)), dict(plain.nearest("w1", 52))
    for word, score in expected.items():
        few_digits = 1e-3 if words.index(word) % 5 == 0 else FLOAT32  # 1e-40 has 5 digits
        assert ours[word] == pytest.approx(score, abs=few_digits)


def test_a_vector_of_zeros_is_similar_to_nothing():
    vectors = WordVectors(["none", "some", "more"], [[0, 0], [1, 0], [1, 1]])

    assert vectors.similarity("none", "some") == 0
    assert vectors.nearest("none", 2) == [("some", 0.0), ("more", 0.0)]
    assert vectors.nearest("some", 2)[1] == ("none", 0.0)


def test_float32_vectors_are_not_copied_and_cannot_be_changed_through_us():
    matrix = np.ones((3, 2), np.float32)
    vectors = WordVectors(["a", "b", "c"], matrix)

    assert np.shares_memory(vectors.vectors, matrix)
    with pytest.raises(ValueError, match="read-only"):
        vectors["a"][0] = 5
    matrix[0, 0] = 1  # the caller's own array stays theirs


@pytest.mark.parametrize(
    ("word", "near"),
    [("Tuple", "'tuple'"), ("tupel", "'tuple'"), ("new york", "'new_york'"), ("nasa", "'NASA'")],
)
def test_an_unknown_word_is_answered_with_near_spellings(word, near):
    vectors = WordVectors(["tuple", "list", "new_york", "NASA"], np.eye(4))

    with pytest.raises(TokenizerError, match=f"(?s){word}.*4 words.*Did you mean {near}"):
        vectors[word]


def test_all_unknown_words_of_a_question_are_named():
    vectors = WordVectors(["tuple", "list"], np.eye(2))

    with pytest.raises(TokenizerError, match=r"(?s)qqq.*zzz"):
        vectors.analogy(["qqq", "list"], ["zzz"])
    assert "list" in vectors
    assert "zzz" not in vectors


@pytest.mark.parametrize(
    ("words", "matrix", "problem"),
    [
        (["a", "b"], np.eye(3), "2 words and vectors of shape"),
        (["a", "b"], np.ones(2), "shape"),
        ([], np.ones((0, 3)), "0 words"),
        (["a", "b", "a"], np.eye(3), "'a' comes more than once"),
        (["a", "b"], [[1, 2], [3, np.nan]], "'b' holds nan"),
        (["a", "b"], [[np.inf, 2], [3, 4]], "'a' holds nan or infinity"),
    ],
)
def test_words_and_vectors_that_do_not_go_together_are_refused(words, matrix, problem):
    with pytest.raises(DataError, match=problem):
        WordVectors(words, matrix)


def test_questions_that_make_no_sense_are_refused(random_vectors):
    for question in (
        lambda: random_vectors.nearest("w1", 0),
        lambda: random_vectors.analogy([]),
        lambda: random_vectors.analogy("w1"),
        lambda: random_vectors.odd_one_out(["w1", "w2"]),
    ):
        with pytest.raises(ConfigError):
            question()
    with pytest.raises(DataError, match=r"shape \(3,\).*7 numbers"):
        random_vectors.nearest([1, 2, 3])


def test_with_no_other_word_there_is_no_nearest():
    alone = WordVectors(["one", "other"], [[1.0, 0.0], [0.0, 1.0]])

    assert alone.nearest("one", 5) == [("other", 0.0)]
    assert alone.analogy(["one"], ["other"]) == []


def test_a_query_that_is_no_number_is_refused(random_vectors):
    query = np.full(random_vectors.vectors.shape[1], np.nan)

    with pytest.raises(DataError, match="nan or infinity"):
        random_vectors.nearest(query)
