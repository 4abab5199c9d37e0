"""What configuration classes ask of a value before they use it."""

import math
from typing import Any, TypeGuard, get_args


def is_int(value: object) -> TypeGuard[int]:
    """A whole number; True and False are not, whatever Python says."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: object, lowest: int) -> TypeGuard[int]:
    """A whole number of at least `lowest`."""
    return is_int(value) and value >= lowest


def is_number(value: object) -> TypeGuard[float]:
    """A whole or fractional number that is not infinite, not nan, and not too large for a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_positive(value: object) -> TypeGuard[float]:
    """A number above 0."""
    return is_number(value) and value > 0


def not_one_of(name: str, value: object, choices: Any) -> str:
    """The sentence for a `value` that is none of a Literal's `choices`."""
    return f"{name}={value!r} is not one of {', '.join(get_args(choices))}."
