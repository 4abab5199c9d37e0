"""The bar that shows how many bytes are done; none where the output is not a terminal."""

from typing import NoReturn

from tqdm import tqdm


def byte_bar(what: str, n_bytes: int | None, progress: bool, n_done: int = 0) -> "tqdm[NoReturn]":
    """A bar for `n_bytes` of work, or a counter where nobody knows how much there is.

    `n_done` of them were done before, and do not count as speed.
    """
    return tqdm(
        total=n_bytes,
        initial=n_done,
        unit="B",
        unit_scale=True,
        desc=what,
        disable=None if progress else True,
    )
