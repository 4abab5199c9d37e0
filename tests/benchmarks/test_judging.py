"""Ratios, shares and verdicts."""

import pytest

from benchmarks.judging import Reading, Spread, figure
from benchmarks.limits import READ
from benchmarks.rows import AtMost, Bound, Ratio, Share
from benchmarks.table import peer_cells
from tests.benchmarks.measured import make_measured, make_row


@pytest.mark.parametrize(("unit", "ours", "theirs"), [("tokens/s", 35.0, 5.0), ("s", 5.0, 35.0)])
def test_a_ratio_above_one_means_that_ours_is_faster(unit, ours, theirs):
    reading = Reading(make_row("peer", unit=unit), make_measured(ours=[ours], peer=[theirs]))

    assert reading.ratio("peer") == 7


def test_ratios_are_of_medians():
    reading = Reading(make_row("peer"), make_measured(ours=[1.0, 21.0, 300.0], peer=[2.0, 3.0, 500.0]))

    assert reading.ratio("peer") == 7


def test_nothing_is_compared_where_outputs_differ():
    row = make_row("peer", goals=(Ratio(beside=("peer",), at_least=2.0),))
    reading = Reading(row, make_measured(agrees=False, ours=[35.0], peer=[5.0]))

    assert reading.ratio("peer") is None
    assert [verdict.reached for verdict in reading.verdicts()] == [None]


def test_of_several_peers_the_fastest_counts():
    goal = Ratio(beside=("slow", "fast", "absent"), at_least=2.0, aim=3.0)
    row = make_row("slow", "fast", "absent", goals=(goal,))
    reading = Reading(row, make_measured(ours=[35.0], slow=[5.0], fast=[14.0], absent="not installed"))

    assert [verdict.reached for verdict in reading.verdicts()] == [True, False]  # 2.5 ×


def test_what_was_wanted_beside_a_peer_that_is_not_there_is_neither_reached_nor_missed():
    row = make_row("peer", goals=(Ratio(beside=("peer",), at_least=2.0),))
    reading = Reading(row, make_measured(ours=[35.0], peer="not installed"))

    assert [verdict.reached for verdict in reading.verdicts()] == [None]


@pytest.mark.parametrize(("theirs", "reached"), [(17.5, True), (17.6, False)])
def test_exactly_what_was_wanted_is_reached(theirs, reached):
    row = make_row("peer", goals=(Ratio(beside=("peer",), at_least=2.0),))
    reading = Reading(row, make_measured(ours=[35.0], peer=[theirs]))

    assert [verdict.reached for verdict in reading.verdicts()] == [reached]


@pytest.mark.parametrize(("unit", "ours"), [("tokens/s", 40.0), ("s", 0.025)])
def test_the_share_of_the_limit_is_what_ours_needs_a_second_of_what_the_machine_can(unit, ours):
    row = make_row(unit=unit, bound=Bound(READ, 3.0, "3 bytes"), goals=(Share(at_least=0.5, aim=0.7),))
    reading = Reading(row, make_measured(limits={READ: 200.0}, ours=[ours]))

    assert reading.share == pytest.approx(0.6)
    assert [verdict.reached for verdict in reading.verdicts()] == [True, False]


def test_a_limit_that_was_not_measured_gives_no_share():
    reading = Reading(make_row(bound=Bound(READ, 3.0, "3 bytes")), make_measured(ours=[40.0]))

    assert reading.share is None


def test_what_is_no_speed_is_stated_and_not_divided():
    reading = Reading(make_row("peer", unit="perplexity"), make_measured(ours=[9.0], peer=[18.0]))
    assert reading.ratio("peer") is None
    assert peer_cells(reading, "peer") == ["peer: 18.0 (18.0–18.0)", ""]


def test_each_round_is_held_to_its_own_limit():
    measured = make_measured(limits={READ: 400.0}, ours=[10.0, 12.0, 20.0, 60.0, 30.0, 40.0])
    row = make_row(bound=Bound(READ, 5.0, "5 bytes"))
    assert Reading(row, measured).share == pytest.approx(25 * 5 / 400)
    measured["bound_in_rounds"] = [100.0, 400.0, 200.0]  # shares 0.55, 0.5, 0.875
    assert Reading(row, measured).share == pytest.approx(0.55)


def test_an_upper_bound_holds_for_the_row_or_for_a_figure_beside_it():
    row = make_row(unit="s", goals=(AtMost(at_most=5.0), AtMost(at_most=2.0, of="peak GB")))
    measured = make_measured(ours=[5.0])
    measured["sides"]["ours"]["beside"] = {"peak GB": [1.0, 3.0, 5.0]}

    assert [verdict.reached for verdict in Reading(row, measured).verdicts()] == [True, False]


def test_a_spread_tells_the_median_and_both_ends():
    assert str(Spread.of([311.0, 7.0, 23.0])) == "23.0 (7.00–311)"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (0.01234, "0.0123"),
        (0.7, "0.7"),
        (1.0, "1.00"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
    ],
)
def test_figures_have_three_digits_or_all_in_front_of_the_point(value, said):
    assert figure(value) == said
