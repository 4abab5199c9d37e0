"""Tokens are shown with every character visible, on a page and in a terminal."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from glassgpt.errors import DataError
from glassgpt.inspection import coloured_tokens, visible
from glassgpt.inspection.labels import as_labels
from glassgpt.style import BLUE, ORANGE, rgb


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" the", "·the"),
        ("\n", "↵"),
        ("\t\r", "⇥␍"),
        ("", "∅"),
        ("a\u200bb", "a⟨200B⟩b"),
        ("e\u0301", "e⟨301⟩"),
        ("é日", "é日"),
        ("extraordinariness", "extraordinarine…"),
        ("layer 1, head 12", "layer 1, head 12"),
        ("  two  ends ", "··two  ends·"),
        ("   ", "···"),
    ],
)
def test_nothing_in_a_token_is_invisible(token, shown):
    assert visible(token) == shown


def test_a_character_that_the_font_lacks_is_written_as_its_number():
    assert as_labels(["é日"]) == ["é⟨65E5⟩"]


class _Reader(HTMLParser):
    """The text and the styles of a piece of HTML."""

    def __init__(self, page):
        super().__init__()
        self.text, self.styles, self.hints = "", [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.text += "\n" if tag == "br" else ""
        if tag == "span":
            self.styles.append(attributes["style"])
            self.hints.append(attributes["title"])

    def handle_data(self, text):
        self.text += text


TOKENS = ["The", " owl", "\n", "<b>", "&amp;", " owl"]


def test_the_coloured_text_is_the_text_whatever_is_in_it():
    page = coloured_tokens(TOKENS)._repr_html_()

    assert _Reader(page).text == "The owl↵\n<b>&amp; owl"
    assert "<b>" not in page


def test_neighbours_differ_in_colour_and_the_page_gives_letters_theirs():
    styles = _Reader(coloured_tokens(TOKENS)._repr_html_()).styles

    assert len(styles) == len(TOKENS)
    assert all(one != other for one, other in pairwise(styles))
    for style in styles:
        assert "color:inherit" in style
        assert float(re.search(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", style)[1]) < 0.5  # the page shines through


def test_a_larger_value_has_a_stronger_ground_and_a_negative_one_another_colour():
    reader = _Reader(coloured_tokens(["a", "b", "c", "d"], [1.0, 2.0, -2.0, 0.0])._repr_html_())
    found = [re.search(r"rgba\((.*),([\d.]+)\)", style).groups() for style in reader.styles]
    (one, weak), (two, strong), (other, negative), (_, none) = found

    assert one == two != other
    assert 0 == float(none) < float(weak) < float(strong) == float(negative)
    assert reader.hints == ["1", "2", "-2", "0"]


def test_blue_is_above_zero_and_orange_below():
    page = coloured_tokens(["up", "down"], [1.0, -1.0])._repr_html_()
    grounds = re.findall(r"background-color:rgba\((\d+),(\d+),(\d+)", page)
    assert grounds == [tuple(str(round(255 * part)) for part in rgb(colour)) for colour in (BLUE, ORANGE)]


def test_a_terminal_shows_plain_text():
    assert repr(coloured_tokens(TOKENS)) == "The|·owl|↵|<b>|&amp;|·owl"
    assert repr(coloured_tokens([" owl", "\n"], [0.25, -1])) == "·owl 0.25  ↵ -1.00"


def test_values_that_are_not_finite_or_all_zero_are_shown_without_ground():
    page = coloured_tokens(["a", "b"], [float("inf"), float("nan")])._repr_html_()

    assert page.count(",0.00)") == 2
    assert coloured_tokens(["a"], [0.0])._repr_html_().count(",0.00)") == 1


def test_each_token_needs_a_value():
    with pytest.raises(DataError, match="1 values for 2 tokens"):
        coloured_tokens(["a", "b"], [1.0])
