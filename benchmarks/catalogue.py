"""Every row, in the order of the table."""

from benchmarks import (
    character_model,
    decoding,
    gpu,
    guessing,
    loading,
    reading_batches,
    rounded_weights,
    start_up,
    tf_checkpoint,
    tokenizing,
    training,
    word_vectors,
)
from benchmarks.rows import Row

FAMILIES = [
    training,
    decoding,
    guessing,
    rounded_weights,
    tokenizing,
    reading_batches,
    loading,
    tf_checkpoint,
    word_vectors,
    start_up,
    character_model,
    gpu,
]
ROWS: list[Row] = [row for family in FAMILIES for row in family.ROWS]
assert len({row.name for row in ROWS}) == len(ROWS), "two rows have one name"
