"""`glassgpt generate MODEL`: let a model write, to the terminal, as it goes."""

import sys
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from glassgpt.cli.parsing import parse
from glassgpt.cli.streams import complain
from glassgpt.errors import DataError, GenerationError
from glassgpt.generation.config import SamplingConfig

ABOUT = """\
Let a model write. The text streams to standard output, everything else to standard error; of several
prompts the texts are printed when all are done.

Examples:
  glassgpt generate runs/demo --prompt "The function returns"
  glassgpt generate runs/demo --prompt "A list" --prompt "A class" --temperature 0
  glassgpt generate runs/demo --prompt "Once" --top-p 0.9 --max-new-tokens 400 --seed 7
  glassgpt generate gpt2 --prompt "Once upon a time"
  glassgpt generate gpt2 --prompt "Once upon a time" --quantize int8
  glassgpt generate runs/demo --prompt "Q: why?" --stop "Q:" --stop $'\\n\\n'      $'\\n' is a newline
  echo "What is a generator?" | glassgpt generate runs/demo --prompt -
"""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What to write, and with what."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model or run folder, one in Hugging Face's format or OpenAI's, a .pt file, or gpt2, gpt2-medium, …"""
    prompt: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """What to go on from; give it again for several texts at once, "-" for standard input."""
    device: str = "auto"
    """auto (the fastest there is), cpu, cuda, cuda:1, mps, …"""
    quantize: Literal["bfloat16", "int8"] | None = None
    """Round the matrices to bfloat16 or int8 first: less memory (int8 a quarter), and faster on a CPU."""
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name=""), tyro.conf.UseAppendAction] = field(
        default_factory=SamplingConfig
    )

    def __post_init__(self) -> None:
        try:
            "".join(self.prompt).encode("utf-8")
        except UnicodeEncodeError as fault:  # a byte that Python could not decode is a lone surrogate
            raise GenerationError(
                "The text of --prompt is not UTF-8. Convert it first: "
                "iconv -f latin1 -t utf-8 FILE | glassgpt generate MODEL --prompt -"
            ) from fault


def run(arguments: list[str]) -> int:
    """Parse `arguments`, write, and return the exit code."""
    options = parse(GenerateOptions, arguments, word="generate", about=ABOUT)

    from glassgpt.decoding import quantize, why_not_native
    from glassgpt.generation import complete, generate_text
    from glassgpt.pretrained import load_pretrained
    from glassgpt.training.precision import choose_device
    from glassgpt.training.processor import fit_threads, keep_freed_memory

    prompts = [_standard_input() if prompt == "-" else prompt for prompt in options.prompt] or [""]
    model, tokenizer = load_pretrained(options.model, choose_device(options.device))
    fit_threads()
    keep_freed_memory()  # a long prompt needs much of it again in every layer
    if options.quantize:
        model = quantize(model, options.quantize)
    if model.head.weight.device.type == "cpu" and (reason := why_not_native(model)):
        complain(f"PyTorch decodes, which is slower than the C++ step: {reason}.")
    if tokenizer is None:
        raise GenerationError(
            f"{options.model} holds no tokenizer, so its ids cannot be read as text. "
            "Copy the tokenizer that the model was trained with into that folder."
        )
    if not options.prompt and tokenizer.end_of_text_id is None:
        raise GenerationError(
            "There is no prompt, and this tokenizer has no end-of-text token to start from. Give one: "
            '--prompt "Once"'
        )
    if len(prompts) > 1:
        for number, text in enumerate(complete(model, tokenizer, prompts, options.sampling)):
            print(f"── {number + 1} " + "─" * 60 + f"\n{prompts[number]}{text}")
        return 0
    pieces = generate_text(model, tokenizer, prompts[0], options.sampling)  # refuses before anything is shown
    sys.stdout.write(prompts[0])
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


def _standard_input() -> str:
    from glassgpt.data.sources import decoded

    try:
        return "".join(decoded(sys.stdin.buffer, "The prompt on standard input"))
    except DataError as fault:
        raise GenerationError(str(fault)) from fault
