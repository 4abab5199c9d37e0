"""The bar that shows how many bytes are done; none where the output is not a terminal."""

from typing import NoReturn

from tqdm import tqdm


def byte_bar(what: str, n_bytes: int | None, progress: bool) -> "tqdm[NoReturn]":
    """A bar for `n_bytes` of work, or a counter where nobody knows how much there is."""
    return tqdm(total=n_bytes, unit="B", unit_scale=True, desc=what, disable=None if progress else True)
