"""The colours can be read on a light and on a dark page, and told apart by eyes of every kind."""

from itertools import combinations

import matplotlib
import numpy as np
import pytest

from glassgpt.inspection import use_style
from glassgpt.inspection.matrices import DIVERGING, SEQUENTIAL
from glassgpt.style import BLUE, INK, ORANGE, PALETTE, SHEET, contrast, luminance, rgb, settings

PAGES = {"light": "#ffffff", "dark": "#0d1117"}

# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color vision
# deficiency", severity 1.0: linear RGB as seen without cones of one kind.
EYES = {
    "all cones": np.eye(3),
    "no red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def lab(colour, eye):
    """CIE L*a*b* of an sRGB colour as `eye` sees it."""
    parts = np.array(rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(eye) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.array(to_xyz) @ seen / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_contrast_is_that_of_wcag():
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast(rgb("#767676"), (1, 1, 1)) == pytest.approx(4.54, abs=0.005)  # the guideline's known grey
    assert luminance(rgb("#ff0000")) == pytest.approx(0.2126)
    assert rgb("#336699") == pytest.approx((0.2, 0.4, 0.6))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
@pytest.mark.parametrize("colour", [INK, *PALETTE])
def test_every_colour_of_lines_and_letters_stands_out_from_both_pages(colour, page):
    assert contrast(rgb(colour), rgb(page)) >= 3


@pytest.mark.parametrize("eye", EYES.values(), ids=EYES.keys())
def test_no_two_colours_of_the_palette_look_alike(eye):
    # 2.3 is just noticeable side by side (Mahy et al. 1994); lines apart on a page need several times that.
    distances = [np.linalg.norm(lab(one, eye) - lab(other, eye)) for one, other in combinations(PALETTE, 2)]

    assert min(distances) > 15


def test_the_ends_of_the_colour_maps_are_opaque_and_nothing_is_nothing():
    assert SEQUENTIAL(0.0)[3] == 0
    assert SEQUENTIAL(1.0) == pytest.approx((*rgb(BLUE), 1))
    assert DIVERGING(0.0) == pytest.approx((*rgb(ORANGE), 1))
    assert DIVERGING(0.5)[3] == pytest.approx(0, abs=0.01)  # one of 256 steps
    assert DIVERGING(1.0) == pytest.approx((*rgb(BLUE), 1))


@pytest.mark.parametrize("colours", [SEQUENTIAL, DIVERGING], ids=["sequential", "diverging"])
@pytest.mark.parametrize("page", [*PAGES.values(), SHEET], ids=[*PAGES, "sheet"])
def test_a_larger_value_never_looks_smaller_on_any_page(colours, page):
    half = colours(np.linspace(0.5 if colours is DIVERGING else 0, 1, 60))
    drawn = half[:, :3] * half[:, 3:] + np.array(rgb(page)) * (1 - half[:, 3:])
    from_page = [contrast(tuple(colour), rgb(page)) for colour in drawn]

    assert (np.diff(from_page) > -1e-9).all()


def test_the_style_has_no_ground_of_its_own():
    with matplotlib.rc_context():
        use_style()
        for name in ("figure.facecolor", "axes.facecolor", "savefig.facecolor"):
            assert matplotlib.colors.to_rgba(matplotlib.rcParams[name])[3] == 0
        assert matplotlib.rcParams["text.color"] == INK
        assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"] == list(PALETTE)


def test_every_setting_is_one_that_matplotlib_knows():
    with matplotlib.rc_context(settings()):
        assert matplotlib.rcParams["figure.figsize"] == [7, 3.5]
