"""From a dataclass to a command's flags: `--model.n-heads` is the field `model.n_heads`.

The flags, their types, defaults and help come from the configuration dataclasses by tyro, so a flag and
a field can never disagree.
"""

import contextlib
import io
import os
import sys
from typing import Any, TypeVar

import tyro

from glassgpt.cli.streams import complain

Config = TypeVar("Config")


def parse(
    config: type[Config], arguments: list[str], *, word: str, about: str, default: Config | None = None
) -> Config:
    """Read `arguments` into a `config`; flags not given keep `default`'s values.

    Prints the help or what is wrong and exits, with code 0 or 2, as command lines do.
    """
    options: dict[str, Any] = {} if default is None else {"default": default}
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        tyro._experimental_options["ansi_codes"] = False
    wrong = io.StringIO()
    try:
        with contextlib.redirect_stderr(wrong):
            return tyro.cli(
                config,
                args=arguments,
                prog=f"glassgpt {word}",
                description=about,
                **options,
            )
    except SystemExit:
        sys.stdout.flush()  # the help, while it can still be told that nobody takes it
        if wrong.getvalue():
            complain(wrong.getvalue().rstrip("\n"))
        raise


def take_option(arguments: list[str], name: str) -> tuple[str | None, list[str]]:
    """Take `--name VALUE` or `--name=VALUE` out of `arguments`: the value, or None, and the rest.

    For the options that decide what the other options mean.
    """
    rest, value = [], None
    remaining = iter(arguments)
    for argument in remaining:
        if argument == name:
            value = next(remaining, "")
        elif argument.startswith(f"{name}="):
            value = argument.removeprefix(f"{name}=")
        else:
            rest.append(argument)
    return value, rest
