"""results.json: everything measured, by machine, so that rows can be measured one at a time.

{"format": 1, "machines": {KEY: {"machine": {…}, "rows": {NAME: {…}}}}}

Rows of one machine never stand beside rows of another: `benchmarks.machine.key` tells them apart.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.machine import key
from glassgpt.errors import DataError
from glassgpt.storage import write_atomically

FORMAT = 1


def read_results(path: Path) -> dict[str, Any]:
    """What `path` holds; nothing measured yet when it is not there. Raises DataError for another format."""
    if not path.is_file():
        return {"format": FORMAT, "machines": {}}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if results.get("format") != FORMAT:
        raise DataError(
            f"{path} has format {results.get('format')!r}, and this reads {FORMAT}. Move it away."
        )
    return results


def add_row(
    results: dict[str, Any], machine: dict[str, Any], name: str, measured: dict[str, Any]
) -> dict[str, Any]:
    """`results` with this row of this machine in place of what it had; all other rows stay as they are."""
    machines = dict(results["machines"])
    rows = machines.get(key(machine), {"rows": {}})["rows"]
    machines[key(machine)] = {"machine": machine, "rows": {**rows, name: measured}}
    return {**results, "machines": machines}


def write_results(results: dict[str, Any], path: Path) -> None:
    write_atomically(path, json.dumps(results, indent=1, ensure_ascii=False) + "\n", DataError)
