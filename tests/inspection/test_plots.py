"""Plots say what they are given, and nothing in them covers anything else."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from glassgpt.errors import DataError
from glassgpt.inspection import (
    plot_attention,
    plot_losses,
    plot_matrix,
    plot_next_tokens,
    plot_points,
    use_style,
)
from glassgpt.style import BLUE, ORANGE, contrast
from glassgpt.tokenizers import CharTokenizer


@pytest.fixture(autouse=True)
def _style():
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


def boxes(texts):
    """Where the texts that say something stand, in pixels."""
    drawn = [text for text in texts if text.get_text() and text.get_visible()]
    drawn[0].get_figure().canvas.draw()
    return [text.get_window_extent() for text in drawn]


def assert_apart(texts):
    for one, other in combinations(boxes(texts), 2):
        assert not one.padded(-0.5).overlaps(other.padded(-0.5)), (one, other)


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def cell_colours(ax):
    return ax.images[0].get_array()


WORDS = ["Moss", "covers", "the", "north", "side", "first"]
LONG = [" the", "\n", " antidisestablishmentarianism", "$x_1$", "\t", " 日本", "é"] * 7  # 49 tokens


def test_a_matrix_has_its_values_written_in_its_cells_and_its_labels_beside_it():
    matrix = np.array([[0.5, -1.25], [2, 0], [float("nan"), -np.inf]])

    ax = plot_matrix(
        matrix, row_labels=["a", "b", "c"], column_labels=["x", "y"], title="m", show_values=True
    )

    written = {text.get_position(): text.get_text() for text in ax.texts}
    assert written == {(0, 0): "0.50", (1, 0): "−1.25", (0, 1): "2.00", (1, 1): "0.00", (1, 2): "−∞"}
    assert tick_labels(ax.yaxis) == ["a", "b", "c"]
    assert tick_labels(ax.xaxis) == ["x", "y"]
    assert ax.get_title() == "m"


def test_whole_numbers_are_written_without_decimals():
    ax = plot_matrix(torch.tensor([[1, 20], [0, 3]]), show_values=True)

    assert [text.get_text() for text in ax.texts] == ["1", "20", "0", "3"]


def test_the_sign_is_the_colour_the_size_its_strength_and_masked_cells_are_empty():
    colours = cell_colours(plot_matrix([[3.0, -3.0, 0.0], [1.0, -np.inf, np.nan]]))

    assert tuple(colours[0, 0]) == pytest.approx((*to_rgb(BLUE), 1), abs=0.01)
    assert tuple(colours[0, 1]) == pytest.approx((*to_rgb(ORANGE), 1), abs=0.01)
    assert colours[0, 2, 3] == pytest.approx(0, abs=0.01)
    assert 0.2 < colours[1, 0, 3] < 0.5
    assert colours[1, 1, 3] == colours[1, 2, 3] == 0


@pytest.mark.parametrize("signed", [False, True], ids=["positive", "signed"])
def test_every_value_can_be_read_on_its_cell(signed):
    matrix = np.linspace(-1 if signed else 0, 1, 64).reshape(8, 8)

    ax = plot_matrix(matrix, show_values=True)

    for text in ax.texts:
        column, row = text.get_position()
        ground = cell_colours(ax)[row, column]
        assert ground[3] == 1  # no page shines through
        assert contrast(to_rgb(text.get_color()), tuple(ground[:3])) >= 4.5


@pytest.mark.parametrize(
    ("shape", "show_values"),
    [(shape, True) for shape in [(6, 3), (3, 6), (6, 6), (1, 6), (13, 11)]]
    + [(shape, False) for shape in [(6, 3), (3, 6), (13, 49), (49, 13), (1, 49)]],
)
def test_labels_and_values_of_a_matrix_never_overlap(shape, show_values):
    matrix = np.random.default_rng(0).normal(size=shape) * 10

    ax = plot_matrix(
        matrix, row_labels=LONG[: shape[0]], column_labels=LONG[: shape[1]], show_values=show_values
    )

    assert_apart([*ax.get_yticklabels(), *ax.get_xticklabels(), *ax.texts])


def test_a_matrix_fits_into_axes_that_it_is_given():
    _, panels = plt.subplots(1, 3, figsize=(9, 3))

    for ax in panels:
        assert plot_matrix(np.eye(6), row_labels=WORDS, column_labels=WORDS, show_values=True, ax=ax) is ax

    for ax in panels:
        assert_apart([*ax.get_yticklabels(), *ax.get_xticklabels(), *ax.texts])


@pytest.mark.parametrize(
    ("n_heads", "n_tokens"), [(1, 6), (2, 13), (3, 49), (4, 7), (6, 13), (7, 5), (12, 49)]
)
def test_labels_and_titles_of_attention_maps_never_overlap(n_heads, n_tokens):
    weights = torch.softmax(torch.randn(n_heads, n_tokens, n_tokens), -1)

    figure = plot_attention(weights, LONG[:n_tokens])

    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == (
        [f"head {h}" for h in range(n_heads)] if n_heads > 1 else [""]
    )
    texts = [text for ax in shown for text in (*ax.get_xticklabels(), *ax.get_yticklabels(), ax.title)]
    assert_apart([*texts, *(label for ax in shown for label in (ax.xaxis.label, ax.yaxis.label))])


def test_one_map_may_come_without_an_axis_of_heads_in_bfloat16_and_in_a_graph():
    weights = torch.eye(6, dtype=torch.bfloat16, requires_grad=True)

    figure = plot_attention(weights, WORDS, head_titles=["layer 1, head 3"])

    (ax,) = figure.axes
    assert ax.get_title() == "layer 1, head 3"
    assert tick_labels(ax.yaxis) == tick_labels(ax.xaxis) == WORDS
    np.testing.assert_allclose(cell_colours(ax)[..., 3], np.eye(6))


def test_all_maps_of_a_figure_share_one_scale_and_faint_ones_are_still_seen():
    strong, faint = np.eye(5), np.full((5, 5), 0.2)

    together = plot_attention(np.stack([strong, faint]), WORDS[:5]).axes
    alone = plot_attention(faint, WORDS[:5]).axes

    assert cell_colours(together[1])[0, 0, 3] == pytest.approx(0.2, abs=0.01)
    assert cell_colours(alone[0])[0, 0, 3] == 1


def test_the_queries_are_the_last_of_the_tokens():
    ax = plot_attention(np.full((2, 6), 1 / 6), WORDS).axes[0]

    assert tick_labels(ax.yaxis) == WORDS[4:]
    assert tick_labels(ax.xaxis) == WORDS


def test_losses_are_drawn_as_they_are_given():
    ax = plot_losses({"training": (range(100), torch.linspace(5, 3, 100)), "held out": ([0, 99], [5.5, 4])})

    assert [line.get_label() for line in ax.lines] == ["training", "held out"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.linspace(5, 3, 100), rtol=1e-6)  # float32's
    assert [line.get_marker() for line in ax.lines] == ["", "o"]
    assert ax.get_ylabel() == "loss (nats per token)"


def test_the_likeliest_tokens_stand_on_top_with_their_probabilities():
    ax = plot_next_tokens(torch.tensor([0.1, 0.6, 0.25, 0.05]), [" a", "\n", "$", "d"], n=3)

    assert tick_labels(ax.yaxis) == ["↵", "$", "·a"]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.6, 0.25, 0.1])
    assert [text.get_text().strip() for text in ax.texts] == ["60.0%", "25.0%", "10.0%"]
    assert ax.yaxis_inverted()


def test_the_tiny_probabilities_of_an_untrained_model_can_be_told_apart():
    ax = plot_next_tokens(np.array([0.00008, 0.000075, 0.00006]), ["a", "b", "c"])

    assert [text.get_text().strip() for text in ax.texts] == ["0.0080%", "0.0075%", "0.0060%"]
    assert len(set(tick_labels(ax.xaxis))) == len(tick_labels(ax.xaxis)) > 2


def test_next_tokens_are_named_by_a_tokenizer():
    tokenizer = CharTokenizer.train(["cab"])
    probabilities = np.zeros(tokenizer.vocab_size)
    probabilities[tokenizer.encode("b")] = 1

    ax = plot_next_tokens(probabilities, tokenizer, n=1)

    assert tick_labels(ax.yaxis) == ["b"]


@pytest.mark.parametrize("seed", range(3))
def test_labels_on_a_map_cover_neither_each_other_nor_a_point(seed):
    points = np.random.default_rng(seed).normal(size=(41, 2))
    labels = [LONG[i] if i % 5 == 0 else f"word {i}" for i in range(41)]

    ax = plot_points(points, labels, groups=[("fish", "fowl", "stone")[i % 3] for i in range(41)])

    assert_apart([text for text in ax.texts if text.get_text()])
    dots = ax.transData.transform(points)
    inside = ax.get_window_extent().padded(1)
    for box in boxes([text for text in ax.texts if text.get_text()]):
        assert not any(box.contains(*dot) for dot in dots)
        assert inside.contains(*box.min)
        assert inside.contains(*box.max)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["fish", "fowl", "stone"]


def test_a_label_at_the_edge_stays_inside():
    _, ax = plt.subplots(figsize=(4, 3))

    plot_points([[0, 0], [1, 0.5], [0, 1]], ["leftmost, below", "rightmost label", "leftmost, above"], ax=ax)

    inside = ax.get_window_extent()
    for box in boxes(ax.texts):
        assert inside.contains(*box.min)
        assert inside.contains(*box.max)


def test_a_dollar_sign_in_a_token_is_one():
    tokens = ["$x_1$", "$y_2$"]
    axes = [
        plot_matrix(np.eye(2), row_labels=tokens, column_labels=tokens),
        plot_attention(np.eye(2), tokens).axes[0],
        plot_next_tokens([0.5, 0.5], tokens),
        plot_points(np.eye(2), tokens),
    ]

    for ax in axes:
        labels = [*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts]
        named = [label for label in labels if label.get_text() in tokens]
        assert len(named) >= 2
        assert not any(label.get_parse_math() for label in named)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_matrix(np.zeros(3)), r"shape \(3,\)"),
        (lambda: plot_matrix(np.zeros((0, 3))), r"shape \(0, 3\)"),
        (lambda: plot_matrix(np.eye(3), row_labels=["a"]), "1 row_labels for 3 rows"),
        (lambda: plot_matrix(np.eye(3), column_labels=["a"]), "1 column_labels for 3 columns"),
        (lambda: plot_matrix(np.ones((3, 97)) / 3, show_values=True), "3 × 97 cannot be read"),
        (lambda: plot_attention(np.eye(3), ["a"]), "1 tokens for weights of shape"),
        (lambda: plot_attention(np.ones((4, 3)), ["a", "b", "c"]), "3 tokens for weights of shape"),
        (lambda: plot_attention(np.eye(2), ["a", "b"], head_titles=["x", "y"]), "2 head_titles for 1 heads"),
        (lambda: plot_losses({"run": ([1, 2], [3.0])}), "'run' has 2 steps and 1 losses"),
        (lambda: plot_next_tokens(np.ones(3), ["a"]), "1 labels for 3 probabilities"),
        (lambda: plot_next_tokens([0.5, np.nan, np.inf], ["a"] * 3), "2 of 3 probabilities are nan or inf"),
        (lambda: plot_points(np.zeros((3, 3)), ["a"] * 3), r"a map needs \(n, 2\)"),
        (lambda: plot_points(np.zeros((3, 2)), ["a"]), "1 labels for 3 points"),
        (lambda: plot_points(np.zeros((3, 2)), ["a"] * 3, groups=["g"]), "1 groups for 3 points"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(draw, message):
    with pytest.raises(DataError, match=message):
        draw()
