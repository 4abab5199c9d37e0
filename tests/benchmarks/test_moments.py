"""Moments in which memory is fast, told apart from those in which it is slow."""

import numpy as np
import pytest

from benchmarks import limits
from benchmarks.judging import Reading
from benchmarks.limits import READ
from benchmarks.moments import kinds_of_moments, where_fast_begins
from benchmarks.rows import Bound, Ratio
from benchmarks.table import table_lines
from tests.benchmarks.measured import make_measured, make_row

SLOW, FAST = (31.0, 30.0), (51.0, 57.0)
MIXED = (30.0, 51.0)


@pytest.mark.parametrize(
    ("speeds", "between"),
    [
        ([30, 31, 29, 52, 58, 33, 55], (33, 52)),
        ([52, 30, 53, 31, 54, 32], (32, 52)),
        ([30, 32, 31, 50, 55, 51, 53, 58, 60], (32, 50)),
    ],
)
def test_fast_begins_in_the_gap(speeds, between):
    cut = where_fast_begins([1e9 * speed for speed in speeds])
    assert cut is not None
    assert between[0] < cut / 1e9 < between[1]


@pytest.mark.parametrize(
    "speeds", [[], [30.0], [52, 30], [30, 31, 33, 35, 36, 37], [39, 40, 41] * 9 + [20], [40.0] * 9]
)
def test_a_machine_that_is_always_alike_has_no_kinds_of_moments(speeds):
    assert where_fast_begins(speeds) is None


def sides(**measured):
    """Sides of results.json: of each its values and what memory gave around them."""
    return {
        name: {"values": [value for value, _ in pairs], "memory": [list(m) for _, m in pairs], "beside": {}}
        for name, pairs in measured.items()
    }


def test_a_value_belongs_to_the_moments_that_lie_on_both_sides_of_it():
    slow, fast = kinds_of_moments(
        sides(ours=[(5.0, SLOW), (11.0, FAST), (7.0, MIXED)], peer=[(2.0, SLOW), (3.0, MIXED[::-1])])
    )
    assert slow.values == {"ours": [5.0], "peer": [2.0]}
    assert fast.values == {"ours": [11.0], "peer": []}
    assert slow.memory == [*SLOW, *SLOW]
    assert fast.memory == [*FAST]


def test_sides_that_were_measured_without_memory_have_no_moments():
    measured = make_measured(ours=[3.0], peer=[2.0], absent="not installed")
    assert kinds_of_moments(measured["sides"]) == []
    assert Reading(make_row("peer"), measured).moments == []


def lines_of(pairs_of_ours, pairs_of_peer):
    scaled = {
        name: [(value, (1e9 * m[0], 1e9 * m[1])) for value, m in pairs]
        for name, pairs in {"ours": pairs_of_ours, "peer": pairs_of_peer}.items()
    }
    measured = make_measured(limits={READ: 60e9}, ours=[1.0], absent="not installed: pip install absent")
    for name, side in sides(**scaled).items():
        measured["sides"][name] = {**side, "note": ""}
    row = make_row(
        "peer", "absent", goals=(Ratio(beside=("peer",), at_least=2.0),), bound=Bound(READ, 1e9, "bytes")
    )
    lines = table_lines([Reading(row, measured)])[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_row_is_judged_in_each_kind_of_moments_too():
    lines = lines_of(
        [*[(15.0, SLOW)] * 5, *[(40.0, FAST)] * 3, (99.0, MIXED)],
        [*[(10.0, SLOW)] * 4, *[(10.0, FAST)] * 3],
    )
    assert len(lines) == 6
    assert [line[0] for line in lines[::2]] == [
        "some work `work`",
        "the same, while memory gave 30.0–31.0 GB/s `work`",
        "the same, while memory gave 51.0–57.0 GB/s `work`",
    ]
    assert [line[3] for line in lines[::2]] == ["1.50 ×", "1.50 ×", "4.00 ×"]
    assert [line[4].removeprefix("at least 2 × peer: ") for line in lines[2::2]] == ["**missed**", "reached"]
    assert [line[5].partition(" of memory read ")[::2] for line in lines[::2]] == [
        ("48%", "where it was least"),
        ("48%", "31.0 GB/s"),
        ("70%", "57.0 GB/s"),
    ]
    assert {line[2] for line in lines[1::2]} == {"absent: not installed: pip install absent"}


def test_of_a_kind_that_was_too_seldom_nothing_is_told():
    lines = lines_of([*[(15.0, SLOW)] * 5, *[(40.0, FAST)] * 2], [*[(10.0, SLOW)] * 2, *[(10.0, FAST)] * 9])
    assert [line[0] for line in lines[::2]] == [
        "some work `work`",
        "the same, while memory gave 30.0–31.0 GB/s `work`",
    ]
    assert lines[2][2] == "peer: measured too seldom then"
    assert lines[2][4] == "at least 2 × peer: not measured"
    assert lines[0][5] == "25% of memory read 60.0 GB/s"  # as without moments: of one kind nothing is known


def test_beside_several_peers_nothing_is_reached_while_one_of_them_is_not_known():
    row = make_row("slow", "quick", goals=(Ratio(beside=("slow", "quick"), at_least=2.0),))
    pairs = {
        "ours": [(3.0, SLOW), (9.0, FAST)] * 3,
        "slow": [(1.0, SLOW), (1.0, FAST)] * 3,
        "quick": [(1.2, SLOW)] * 3 + [(8.0, FAST)] * 2,
    }
    measured = make_measured(ours=[1.0])
    measured["sides"] = {name: {**side, "note": ""} for name, side in sides(**pairs).items()}
    verdicts = [[v.reached for v in reading.verdicts()] for reading in Reading(row, measured).moments]
    assert verdicts == [[True], [None]]


def test_the_speed_of_memory_is_that_of_the_fastest_attempt(monkeypatch):
    taken, largest = iter([0.5, 0.25, 1.0]), []
    monkeypatch.setattr(limits, "seconds", lambda run: (run(), next(taken))[1])
    monkeypatch.setattr(np, "max", lambda part: largest.append(part.size))
    limits._reader.cache_clear()
    assert limits.memory_now() == 2**27 / 0.25
    assert sum(largest) == 3 * 2**27  # every byte in each of three attempts
    limits._reader.cache_clear()
