"""`glassgpt WORD …`: find the word's file, run it, and turn a mistake into one message.

Exit codes: 0 done, 2 a mistake in what was asked or a file that may not be used (one message, no traceback),
130 interrupted. Anything else is a bug of ours and keeps its traceback. A reader that leaves, as `head` does,
is no mistake.
"""

import difflib
import errno
import importlib
import sys

from glassgpt.cli.streams import complain, drop, settle
from glassgpt.errors import ConfigError, GlassGPTError

COMMANDS = {
    "demo": "from raw text to a GPT that writes, in a few minutes, offline",
    "prepare": "turn a corpus into token ids on disk, in parallel and in bounded memory",
    "train": "train a GPT, or go on with a run",
    "generate": "let a model write",
    "download": "fetch OpenAI's GPT-2, each file whole and checked",
    "inspect": "show the tensors of a checkpoint, and which of our weights each fills",
    "convert": "turn a model into another format, compared before it is done",
    "info": "what this machine, a model, a run or a dataset is, and what a model would cost",
}

HELP = f"""\
glassgpt: build a GPT you can see through.

usage: glassgpt COMMAND [OPTIONS]

{chr(10).join(f"  {name:<10} {summary}" for name, summary in COMMANDS.items())}

  glassgpt COMMAND --help    the command's options, with examples
  glassgpt --version         the version

Where to start:
  glassgpt demo                                              the whole path, on text you already have
  glassgpt train --out runs/docs                             a small model of Python's documentation
  glassgpt generate runs/demo --prompt "The function"        let a trained model write

Downloads and vocabularies are kept in ~/.cache/glassgpt; GLASSGPT_CACHE names another folder.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments` (default: the process's own) and return the exit code."""
    settle()
    arguments = sys.argv[1:] if arguments is None else arguments
    command = " ".join(["glassgpt", *(word for word in arguments[:1] if word in COMMANDS)])
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where what is wrong with it can still be told
        return code
    except GlassGPTError as mistake:
        return _leave(f"{command}: {mistake}", 2)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        drop(sys.stdout)
        return 0
    except OSError as fault:
        if fault.filename is not None:
            what = f"Cannot use {fault.filename}: {fault.strerror}. Check the path and its permissions."
        elif fault.errno == errno.ENOSPC:
            what = f"Cannot write all of it: {fault.strerror}. Free some, or write elsewhere."
        else:
            raise
        return _leave(f"{command}: {what}", 2)
    except KeyboardInterrupt:
        return _leave("\nInterrupted.", 130)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] in ("-V", "--version"):
        from glassgpt import __version__

        print(f"glassgpt {__version__}")
        return 0
    word, *rest = arguments
    if word not in COMMANDS:
        near = difflib.get_close_matches(word, COMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Commands: {', '.join(COMMANDS)}."
        raise ConfigError(f"There is no command {word!r}.{hint}")
    return importlib.import_module(f"glassgpt.cli.{word}").run(rest)


def _leave(message: str, code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        drop(sys.stdout)
    complain(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
