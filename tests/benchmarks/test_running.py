from pathlib import Path

import pytest

from benchmarks.limits import READ
from benchmarks.rows import OURS, Bound, Check, Row, Setting, Side, Taken
from benchmarks.running import measure_row, packages, side_record


def measured_with(monkeypatch, bound: Bound | None) -> tuple[dict, list[str]]:
    """A row of three rounds on a machine that reads 5, 9 and 7 GB/s in them, and 40 before; and who was
    measured after whom."""
    speeds, order = iter([5e9, 9e9, 7e9]), []

    def limits(quick: bool, device: str) -> dict[str, float]:
        order.append(f"limit of {device}")
        return {READ: next(speeds)}

    def side(name: str) -> Side:
        return Side(name, lambda _: (order.append(name), Taken([1.0], output=7))[1])

    monkeypatch.setattr("benchmarks.running.alone", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr("benchmarks.running.measure_limits", limits)
    row = Row(
        name="work",
        what="some work",
        unit="tokens/s",
        how="not at all",
        sides=(side(OURS), side("peer")),
        check=lambda _, outputs: Check(outputs == {OURS: 7, "peer": 7}, "they are equal"),
        bound=bound,
        rounds=3,
    )
    setting = Setting(Path(), quick=False)
    return measure_row(row, setting, {READ: 40e9}, say=lambda _: None), order


def test_the_limit_is_measured_in_each_round_of_a_row_that_it_counts_for(monkeypatch):
    measured, order = measured_with(monkeypatch, Bound(READ, 1e9, "bytes"))
    assert order == ["limit of cpu", OURS, "peer"] * 3
    assert measured["limits"] == {READ: 9e9}  # the best of these minutes, not of an earlier one
    assert measured["bound_in_rounds"] == [5e9, 9e9, 7e9]
    assert measured["check"]["agrees"]


def test_other_rows_keep_those_from_before(monkeypatch):
    measured, order = measured_with(monkeypatch, None)
    assert order == [OURS, "peer"] * 3
    assert measured["limits"] == {READ: 40e9}


@pytest.mark.parametrize(
    ("moments", "n_rounds"),
    [
        ([(31.0, 30.0)] * 9, 3),  # always alike
        ([(31.0, 30.0)] * 2 + [(55.0, 54.0)] * 2 + [(31.0, 30.0), (55.0, 54.0)] * 2, 6),
        ([(31.0, 30.0), (55.0, 54.0)] * 5, 6),
        ([(31.0, 30.0)] * 2 + [(55.0, 54.0)] + [(31.0, 30.0)] * 6, 9),
    ],
)
def test_rounds_go_on_until_both_kinds_of_moments_are_known(moments, n_rounds, monkeypatch):
    left = iter(moments)
    monkeypatch.setattr("benchmarks.running.alone", lambda function, *arguments: function(*arguments))
    side = Side(OURS, lambda _: Taken([1.0], memory=[next(left)]))
    row = Row(
        name="work",
        what="some work",
        unit="tokens/s",
        how="not at all",
        sides=(side,),
        check=lambda _, outputs: Check(True, "not at all"),
    )
    measured = measure_row(row, Setting(Path()), {}, say=lambda _: None)
    assert len(measured["sides"][OURS]["values"]) == n_rounds


def test_a_quick_trial_takes_one_round_whatever_the_moments(monkeypatch):
    monkeypatch.setattr("benchmarks.running.alone", lambda function, *arguments: function(*arguments))
    sides = tuple(
        Side(name, lambda _, memory=memory: Taken([1.0], memory=[(memory, memory)]))
        for name, memory in {OURS: 30.0, "second": 55.0, "third": 31.0, "fourth": 54.0}.items()
    )
    row = Row(
        name="work",
        what="some work",
        unit="tokens/s",
        how="not at all",
        sides=sides,
        check=lambda _, outputs: Check(True, "not at all"),
    )
    n_values = {}
    for quick in (True, False):
        measured = measure_row(row, Setting(Path(), quick=quick), {}, say=lambda _: None)
        n_values[quick] = len(measured["sides"][OURS]["values"])
    assert n_values == {True: 1, False: 9}


def test_what_memory_gave_beside_each_value_is_kept_in_their_order():
    rounds = [
        Taken([5.0, 6.0], memory=[(1.0, 2.0), (3.0, 4.0)]),
        Taken([7.0, 8.0], memory=[(5.0, 6.0), (7.0, 8.0)]),
    ]
    record = side_record(rounds, None)
    assert record["values"] == [5.0, 6.0, 7.0, 8.0]
    assert record["memory"] == [(1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0)]


def test_the_packages_of_a_side_are_those_that_pip_installs():
    def side(package: str | None, install: str | None = None) -> Side:
        return Side("peer", lambda _: Taken([1.0]), package, install)

    assert packages(side("llama_cpp", "llama-cpp-python gguf")) == ["llama-cpp-python", "gguf"]
    assert packages(side("tiktoken")) == ["tiktoken"]
    assert packages(side(None)) == []
