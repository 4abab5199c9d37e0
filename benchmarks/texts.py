"""Texts that were generated, timed, and read again by a referee.

Greedy texts part for ever at the first token where two scores are all but equal, so equal texts are too much
to ask of rounded weights. The referee is `transformers` in float32. It reads the text that each has written,
and says for each token how likely it found it behind the very same tokens: whether it was its own choice, and
if not, by how much its score was lower than the highest.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpt2_weights import load_theirs, random_prompts
from benchmarks.limits import memory_now
from benchmarks.rows import OURS, Check, Setting, Taken


@dataclass(frozen=True)
class Task:
    """What is written: so many new tokens behind each of some random prompts, or behind a given one."""

    n_prompts: int = 1
    prompt_tokens: int = 64
    new_tokens: int = 128
    only_first: bool = False
    """The figure is the seconds to the first new token, not the tokens/s behind it."""
    prompt: tuple[int, ...] = ()
    """In place of random ones."""
    warm_up_whole: bool = False
    """Warm up with as many tokens as are timed: on a GPU some code is compiled for their number, and ours may
    copy weights once it has been asked for many."""
    n_texts: int = 2
    """How often it is written in each process."""
    beside_memory: bool = False
    """Measure before and after each text how fast memory is read in that moment."""

    def prompts(self) -> list[list[int]]:
        if self.prompt:
            return [list(self.prompt)]
        return random_prompts(self.n_prompts, self.prompt_tokens)


ONE = Task(n_texts=4, beside_memory=True, warm_up_whole=True)
"""One text at a time, where each token waits for all weights to come from memory."""


@dataclass
class Text:
    """A text, or a batch of them, while it is written: its tokens, and when each came."""

    started: float = field(default_factory=time.perf_counter)
    steps: list[list[int]] = field(default_factory=list)
    """The new tokens of all rows, step by step."""
    times: list[float] = field(default_factory=list)

    def add(self, token_ids: Sequence[int]) -> None:
        self.times.append(time.perf_counter())
        self.steps.append(list(token_ids))

    @property
    def tokens_a_second(self) -> float:
        """New tokens a second behind the first, which waits for the prompt."""
        n_tokens = sum(len(step) for step in self.steps[1:])
        return n_tokens / (self.times[-1] - self.times[0])

    @property
    def first_seconds(self) -> float:
        return self.times[0] - self.started

    @property
    def rows(self) -> list[list[int]]:
        return [list(row) for row in zip(*self.steps, strict=True)]


Write = Callable[[list[list[int]], int], Text]
"""Continues prompts by so many tokens."""


def time_texts(write: Write, task: Task, setting: Setting) -> Taken:
    """Write eight tokens, or the whole text, to warm up, then the text as often as the task says."""
    prompts = task.prompts()
    n_tokens = min(8, task.new_tokens) if setting.quick else task.new_tokens
    write(prompts, n_tokens if task.warm_up_whole else 8)
    texts, memory = [], []
    for _ in range(1 if setting.quick else task.n_texts):
        before = memory_now() if task.beside_memory else 0.0
        texts.append(write(prompts, n_tokens))
        if task.beside_memory:
            memory.append((before, memory_now()))
    if task.only_first:
        return Taken([text.first_seconds for text in texts], output=texts[0].rows)
    return Taken(
        [text.tokens_a_second for text in texts],
        output=texts[0].rows,
        beside={"s to the first token": min(text.first_seconds for text in texts)},
        memory=memory,
    )


def collect(steps: Iterable[Sequence[Any]]) -> Text:
    """The text of a generator that yields the tokens of each step."""
    text = Text()
    for step in steps:
        text.add(step)
    return text


def referee(task: Task, allowed: float, setting: Setting, outputs: Mapping[str, Any]) -> Check:
    """Whether each token of ours is within `allowed` of the score that the referee finds highest.

    With its peers' tokens it is the same; a peer beyond `allowed` is told, and speaks not against ours.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("highest")  # no TF32, even where the environment asks for it
    model = load_theirs(setting, device)
    said, far = [], {}
    for name, rows in outputs.items():
        lost, n_same, n_tokens = 0.0, 0, 0
        for prompt, row in zip(task.prompts(), rows, strict=True):
            with torch.inference_mode():
                token_ids = torch.tensor([prompt + row], device=device)
                logits = model(token_ids).logits[0, len(prompt) - 1 : -1]  # (T, V)
            chosen = logits.gather(1, token_ids[0, len(prompt) :, None])[:, 0]
            behind = logits.amax(1) - chosen
            lost, n_same = max(lost, behind.max().item()), n_same + int((behind == 0).sum())
            n_tokens += len(row)
        far[name] = lost
        said.append(f"{name} {100 * n_same / n_tokens:.1f}% (at most {lost:.2g} behind)")
    spread = logits.std().item()
    where = " on the GPU" if device == "cuda" else ""
    return Check(
        far[OURS] <= allowed,
        f"of the tokens that each wrote, so many are what transformers in float32{where} finds likeliest "
        f"behind the same text: {', '.join(said)}. Its scores have a deviation of {spread:.2g}; ours may be "
        f"{allowed:g} behind the highest.",
    )
