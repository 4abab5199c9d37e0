"""Tokenizers beside their peers, in one run on one machine.

    python benchmarks/tokenization.py                   20 MB of prose found in this Python installation
    python benchmarks/tokenization.py --text big.txt    a text of your own

Training: ours, the `tokenizers` package (which uses all cores), and two trainers that count every pair anew
for each merge: over the whole text, as in a first lesson, and over its different pieces, as
`by_hand.bpe.train` does. Each of these runs for a minute and is extrapolated to all merges. Merges get
cheaper as tokens get longer, so the least that it could take is shown as well: as if the text had been as
short from the start as it is in the end. Encoding: ours against `tiktoken` with the same merges. Peers are
interleaved and medians taken, since a machine is never quite idle.
"""

import argparse
import ast
import statistics
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

from glassgpt.by_hand import bpe as by_hand
from glassgpt.storage import cache_folder
from glassgpt.tokenizers import BPETokenizer
from glassgpt.tokenizers.pattern import cut
from tokenizers import ByteLevelBPETokenizer


def prose() -> Iterator[str]:
    """English in this installation, no text twice: corpora in the cache, then documents and docstrings."""
    seen: set[str] = set()
    folders = [sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"], "/usr/share/doc"]
    paths = [*sorted((cache_folder() / "corpora").glob("*.txt"))]
    for folder in folders:
        paths += sorted(
            path for path in Path(folder).rglob("*") if path.suffix in {".rst", ".md", ".txt", ".py"}
        )
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
            found = docstrings(text) if path.suffix == ".py" else [text]
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue  # some packages ship files that are broken on purpose, for their tests
        for text in found:
            if len(text) >= 200 and text not in seen:
                seen.add(text)
                yield text


def docstrings(source: str) -> list[str]:
    """The docstrings of a module and of all that is defined in it."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


def gathered(n_bytes: int) -> str:
    """About `n_bytes` of `prose`, or all there is."""
    parts, size = [], 0
    for text in prose():
        parts.append(text)
        size += len(text.encode("utf-8")) + 2
        if size >= n_bytes:
            break
    return "\n\n".join(parts)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def recounting_seconds(
    pieces: list[tuple[str, int]], tokenizer: BPETokenizer, budget_seconds: float
) -> tuple[int, float, float]:
    """How many merges recounting did in its budget, what all would take at that pace, and at the very least.

    `pieces` are what it goes through at each merge, and how much each of them counts.
    """
    words = [(list(piece.encode("utf-8")), count) for piece, count in pieces]
    n_tokens_first = sum(len(word) for word, _ in words)
    spent, n_done = 0.0, 0
    while spent < budget_seconds and n_done < len(tokenizer.merges):
        start = time.perf_counter()
        pairs: Counter[by_hand.Pair] = Counter()
        for word, count in words:
            for pair in pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        words = [(by_hand.merge(word, best, 256 + n_done), count) for word, count in words]
        spent += time.perf_counter() - start
        assert best == tokenizer.merges[n_done], "the two trainers disagree"
        n_done += 1
    n_tokens = {piece: len(tokenizer.encode(piece)) for piece, _ in set(pieces)}
    n_tokens_last = sum(n_tokens[piece] for piece, _ in pieces)
    at_that_pace = spent / n_done * len(tokenizer.merges)
    return n_done, at_that_pace, at_that_pace * n_tokens_last / n_tokens_first


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, help="a UTF-8 file to use instead of the prose found here")
    parser.add_argument("--megabytes", type=float, default=20, help="how much of it (20)")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recount-seconds", type=float, default=60, help="how long recounting may take (60)")
    options = parser.parse_args()

    n_bytes = int(options.megabytes * 1_000_000)
    if options.text:
        text = options.text.read_bytes()[:n_bytes].decode("utf-8", errors="ignore")
    else:
        text = gathered(n_bytes)
    size = len(text.encode("utf-8")) / 1e6
    print(f"{size:.1f} MB, {len(set(text.split())):,} different words, to {options.vocab_size:,} tokens")

    trained: list[BPETokenizer] = []
    ours, package = [], []
    for _ in range(options.repeats):
        ours.append(seconds(lambda: trained.append(train_ours(text, options.vocab_size))))
        package.append(seconds(lambda: train_package(text, options.vocab_size)))
    tokenizer = trained[0]
    times = {"glassgpt": statistics.median(ours), "tokenizers": statistics.median(package)}
    for what, pieces in [
        ("whole text", [(piece, 1) for piece in cut(text)]),
        ("different pieces", list(Counter(cut(text)).items())),
    ]:
        n_done, at_that_pace, at_least = recounting_seconds(pieces, tokenizer, options.recount_seconds)
        times[f"recounting, {what}: {n_done:,} of {len(tokenizer.merges):,} merges, extrapolated"] = (
            at_that_pace
        )
        times[f"recounting, {what}: at the very least"] = at_least
    table("training", times, size)

    ranks = {tokenizer.decode_bytes([token_id]): token_id for token_id in range(256 + len(tokenizer.merges))}
    peer = tiktoken.Encoding("peer", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
    whole: dict[str, list[float]] = {"glassgpt": [], "tiktoken": []}
    lines: dict[str, list[float]] = {"glassgpt": [], "tiktoken": []}
    short = text.splitlines()
    for _ in range(options.repeats):
        for name, encode in [("glassgpt", tokenizer.encode), ("tiktoken", peer.encode_ordinary)]:
            whole[name].append(seconds(lambda encode=encode: encode(text)))
            lines[name].append(seconds(lambda encode=encode: [encode(line) for line in short]))
    assert tokenizer.encode(text) == peer.encode_ordinary(text), "the two encoders disagree"
    table("encoding, one text", {name: statistics.median(times) for name, times in whole.items()}, size)
    table("encoding, line by line", {name: statistics.median(times) for name, times in lines.items()}, size)


def train_ours(text: str, vocab_size: int) -> BPETokenizer:
    return BPETokenizer.train(text, vocab_size, special_tokens=())


def train_package(text: str, vocab_size: int) -> None:
    peer = ByteLevelBPETokenizer()
    pieces = (text[start : start + 100_000] for start in range(0, len(text), 100_000))
    peer.train_from_iterator(pieces, vocab_size=vocab_size, min_frequency=0, show_progress=False)


def table(title: str, times: dict[str, float], size: float) -> None:
    """Each row: seconds, MB/s, and how many times as long as ours."""
    ours = times["glassgpt"]
    width = max(map(len, times)) + 2
    print(f"\n{title:<{width}}{'seconds':>12}{'MB/s':>10}{'× ours':>10}")
    for name, taken in times.items():
        print(f"{name:<{width}}{taken:>12,.2f}{size / taken:>10,.3g}{taken / ours:>10,.2f}")


if __name__ == "__main__":
    main()
