"""The slow twin, on examples that can be checked in the head."""

import math

import pytest

from glassgpt.by_hand import skip_gram


def test_at_right_angles_every_guess_is_a_coin_toss():
    assert skip_gram.loss([1.0, 0.0], [0.0, 3.0], [[0.0, 2.0], [0.0, -7.0]]) == pytest.approx(3 * math.log(2))


def test_the_gradient_pulls_the_pair_together_and_pushes_noise_away():
    for_word, for_context, for_noise = skip_gram.gradients([2.0, 0.0], [0.0, 4.0], [[0.0, 6.0]])

    assert for_context == [-1, 0]  # (σ(0) − 1) · [2, 0]
    assert for_noise == [[1, 0]]  # (σ(0) − 0) · [2, 0]
    assert for_word == [0, 1]  # −½ · [0, 4] + ½ · [0, 6]


def test_gradients_are_what_a_small_change_of_each_number_does():
    word, context, noise = [0.3, -0.5, 0.8], [1.1, 0.2, -0.4], [[0.7, 0.9, 0.1], [-0.6, 0.5, 0.3]]
    for_word, for_context, for_noise = skip_gram.gradients(word, context, noise)
    pairs = [(word, for_word), (context, for_context), *zip(noise, for_noise, strict=True)]
    for vector, gradient in pairs:
        for i in range(3):
            kept, h = vector[i], 1e-5
            vector[i] = kept + h
            above = skip_gram.loss(word, context, noise)
            vector[i] = kept - h
            below = skip_gram.loss(word, context, noise)
            vector[i] = kept
            assert gradient[i] == pytest.approx((above - below) / (2 * h), abs=1e-9)


def test_steps_make_the_loss_fall():
    words, contexts = [[0.1, 0.2], [0.3, -0.1]], [[0.0, 0.1], [0.2, 0.2]]
    before = skip_gram.loss(words[0], contexts[1], [contexts[0]])

    for _ in range(20):
        skip_gram.step(words, contexts, 0, 1, [0], lr=0.5)

    assert skip_gram.loss(words[0], contexts[1], [contexts[0]]) < before / 3
    assert words[1] == [0.3, -0.1]
