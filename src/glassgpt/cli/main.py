"""`glassgpt WORD …`: find the word's file, run it, and turn a mistake into one message.

Exit codes: 0 done, 2 a mistake in what was asked (one message, no traceback), 130 interrupted. Anything
else is a bug of ours and keeps its traceback.
"""

import difflib
import importlib
import os
import sys

from glassgpt.errors import GlassGPTError

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
    arguments = sys.argv[1:] if arguments is None else arguments
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
        return _mistake("glassgpt", f"There is no command {word!r}.{hint}")
    try:
        return importlib.import_module(f"glassgpt.cli.{word}").run(rest)
    except GlassGPTError as mistake:
        return _mistake(f"glassgpt {word}", str(mistake))
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def _mistake(command: str, message: str) -> int:
    print(f"{command}: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
