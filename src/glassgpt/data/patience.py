"""How often to try a server, and how long to wait for it."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, kw_only=True)
class Patience:
    """When a download is tried again, and when it is given up."""

    n_tries: int = 8
    """How often one file is asked for in all."""
    first_wait_seconds: float = 1.0
    """The wait after the first failure; it doubles with each."""
    longest_wait_seconds: float = 60.0
    """Where that doubling ends."""
    longest_asked_seconds: float = 300.0
    """A server that asks for a longer wait than this is not waited for."""
    stall_seconds: float = 30.0
    """A server that sends nothing for this long, or too little in it, is given up."""
    slowest_bytes_per_second: float = 1000.0
    """What is too little: fewer than this in each of those seconds."""
    sleep: Callable[[float], None] = time.sleep

    def wait_seconds(self, n_failures: int, asked: float | None) -> float:
        """How long to wait after that many failures, or what the server has `asked` for.

        A random half of the doubled time, so that the many whom one fault cut off do not all come back
        at once.
        """
        if asked is not None:
            return asked
        longest = min(self.first_wait_seconds * 2 ** (n_failures - 1), self.longest_wait_seconds)
        return longest * random.uniform(0.5, 1.0)


def asked_wait_seconds(retry_after: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or as a date (RFC 9110 §10.2.3).

    None: it asks for nothing, or for nothing that can be understood.
    """
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
