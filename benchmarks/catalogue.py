"""Every row, in the order of the table."""

from benchmarks import decoding, training
from benchmarks.rows import Row

ROWS: list[Row] = [*training.ROWS, *decoding.ROWS]
assert len({row.name for row in ROWS}) == len(ROWS), "two rows have one name"
