"""Rows and measurements as small as tests need them."""

from typing import Any

from benchmarks.rows import OURS, Check, Row, Setting, Side, Taken

MACHINE: dict[str, Any] = {
    "cpu": "Processor 7",
    "instructions": "SSE9",
    "cores": 3,
    "memory_gb": 11,
    "gpu": None,
    "system": "System 5",
    "python": "3.13.2",
    "torch": "2.17.0",
    "threads": 3,
    "settings": {},
    "bfloat16": True,
}


def seven(setting: Setting) -> Taken:
    return Taken([7.0], output="text", beside={"peak GB": 2.0})


def agree(setting: Setting, outputs: dict[str, Any]) -> Check:
    return Check(len(set(outputs.values())) == 1, "compared as strings.")


def make_row(*peers: str, **settings: Any) -> Row:
    """A row of ours beside `peers`."""
    named = {"name": "work", "what": "some work", "unit": "tokens/s", "how": "by hand.", "check": agree}
    sides = tuple(Side(name, seven) for name in (OURS, *peers))
    return Row(**{**named, "sides": sides, **settings})


def make_measured(
    agrees: bool = True, limits: dict[str, float] | None = None, **values: Any
) -> dict[str, Any]:
    """What results.json holds of a row: a list of values for each side, or why there are none."""
    sides = {
        name: {"missing": found} if isinstance(found, str) else {"values": found, "beside": {}, "note": ""}
        for name, found in values.items()
    }
    check = {"agrees": agrees, "how": "compared as strings."}
    return {"sides": sides, "check": check, "limits": limits or {}, "versions": {"peer": "5.3"}}
