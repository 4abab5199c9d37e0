"""The tensors of a checkpoint as a table that a person reads: layer by layer, layers that are alike once."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

Row = tuple[str, tuple[int, ...], str, int]
"""A tensor's name, shape, dtype and size in bytes."""


@dataclass
class Group:
    """Rows that belong to one numbered layer, or that belong to none; then layers further on like it."""

    layer: str
    rows: list[Row] = field(default_factory=list)
    last: str = ""
    """The last of the layers that are alike."""
    n_layers: int = 1

    @property
    def content(self) -> list[tuple[str, tuple[int, ...], str]]:
        """What must be equal for two layers to be alike: the rows, without the layer's own name."""
        return [(name.removeprefix(self.layer), shape, dtype) for name, shape, dtype, _ in self.rows]


def summarize(tensors: Iterable[Row]) -> str:
    """A table of `tensors`: shape, dtype, elements; sums of each layer and of all."""
    rows = sorted(tensors, key=lambda row: _natural(row[0]))
    lines = [("tensor", "shape", "dtype", "elements")]
    for group in _grouped(rows):
        indent = ""
        if group.layer:
            indent = "  "
            n_elements = sum(math.prod(shape) for _, shape, _, _ in group.rows)
            times = f" … {group.last}, {group.n_layers} alike, each" if group.n_layers > 1 else ""
            lines.append((f"{group.layer}{times}", "", "", f"{n_elements:,}"))
        for name, shape, dtype, _ in group.rows:
            own = name.removeprefix(group.layer).removeprefix("/")
            sizes = " × ".join(f"{size:,}" for size in shape) or "scalar"
            lines.append((f"{indent}{own}", sizes, dtype, f"{math.prod(shape):,}"))
    n_elements = sum(math.prod(shape) for _, shape, _, _ in rows)
    lines.append((f"{len(rows):,} tensors, {sum(row[3] for row in rows):,} bytes", "", "", f"{n_elements:,}"))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        "  ".join([*map(str.ljust, line[:3], widths), line[3].rjust(widths[3])]).rstrip() for line in lines
    )


def _grouped(rows: list[Row]) -> list[Group]:
    groups: list[Group] = []
    for row in rows:
        # model/h11/attn/c_attn/w belongs to model/h11: the first part of its name that ends with a number.
        found = re.match(r"(?:[^/]*/)*?[^/]*\d(?=/)", row[0])
        layer = found[0] if found else ""
        if not groups or groups[-1].layer != layer:
            groups.append(Group(layer))
        groups[-1].rows.append(row)
    merged: list[Group] = []
    for group in groups:
        if merged and group.layer and merged[-1].layer and merged[-1].content == group.content:
            merged[-1].last = group.layer
            merged[-1].n_layers += 1
        else:
            merged.append(group)
    return merged


def _natural(name: str) -> list[tuple[str, int]]:
    """A key that sorts h2 before h10."""
    return [(text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", name)]
