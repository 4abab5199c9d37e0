"""Every error that GlassGPT raises on purpose.

    GlassGPTError
    ├── ConfigError       a setting, or two settings that do not go together
    ├── TokenizerError    text or ids that a vocabulary cannot take
    ├── DataError         a corpus, a dataset or a shard
    ├── CheckpointError   weights or a run that cannot be read back whole
    ├── DownloadError     a file from the network
    └── GenerationError   a prompt or a sampling setting

A message says what happened, the actual values, and the remedy, in that order, and names all the
problems of one input at once. At the command line each of these is one message and exit code 2.
Anything else that escapes is a bug of ours, and keeps its traceback.
"""


class GlassGPTError(Exception):
    """The root: catch this to catch every mistake that the library can explain."""


class ConfigError(GlassGPTError):
    """A setting is out of range, or two settings contradict each other."""


class TokenizerError(GlassGPTError):
    """Text cannot be encoded, ids cannot be decoded, or a vocabulary file is not one."""


class DataError(GlassGPTError):
    """A corpus or dataset is missing, empty, too short, or not what its description says."""


class CheckpointError(GlassGPTError):
    """A checkpoint or weights file is incomplete, altered, or does not fit the model."""


class DownloadError(GlassGPTError):
    """A file could not be fetched, or what came is not what was asked for."""


class GenerationError(GlassGPTError):
    """A prompt does not fit the model, or a sampling setting makes no sense."""


def raise_problems(error: type[GlassGPTError], problems: list[str], what: str) -> None:
    """Raise one `error` naming all `problems` of `what`; do nothing when there are none."""
    if len(problems) == 1:
        raise error(problems[0])
    if problems:
        raise error(
            f"{what} has {len(problems)} problems:\n" + "\n".join(f"  {problem}" for problem in problems)
        )
