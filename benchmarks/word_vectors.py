"""Word vectors beside gensim's: nearest words over all of Google's vectors' size, and reading their file.

    python benchmarks/word_vectors.py                   3,000,000 × 300 random numbers: 8 GB at the peak
    python benchmarks/word_vectors.py --words 300000    a tenth of that

Both libraries ask the same matrix in the same process, in turns, and medians are taken. The limit is the
memory: each query reads the matrix once, so it is compared with a plain sum over it. Ours measures the
vectors' lengths when it takes them, gensim at its first question; what memory each needs for that is the
peak beyond the matrix itself. The file holds a tenth of the words in the binary format, and lies in the
disk's cache. gensim is left out where it is not installed.
"""

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _side_by_side import alone, peak_gigabytes, print_machine, print_table, verdict

from glassgpt.embeddings import WordVectors, load_word2vec, write_word2vec

TARGET_SECONDS = 1.0
TARGET_PEAK = 9.0  # GB, of which the matrix is 3.6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--words", type=int, default=3_000_000, help="default: %(default)s")
    parser.add_argument("--numbers", type=int, default=300, help="in each vector (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=7, help="of each question (default: %(default)s)")
    options = parser.parse_args()
    print_machine()
    shape = options.words, options.numbers
    reached = [questions(*shape, options.runs), *files(shape[0] // 10, shape[1])]
    return 0 if all(reached) else 1


def questions(n: int, d: int, runs: int) -> bool:
    """Nearest words and analogies over n × d numbers."""
    measured, limit = alone(ask, n, d, runs)
    print(f"\n{n:,} words × {d} numbers, {n * d * 4 / 1e9:.1f} GB; seconds")
    print_table(
        ["", "ready", "nearest 10", "analogy", "peak GB"],
        [[name, *(f"{value:.3f}" for value in row[:3]), f"{row[3]:.1f}"] for name, row in measured.items()],
    )
    print(f"the limit: a sum over the matrix takes {limit:.3f} s")
    _, nearest, analogy, peak = measured["ours"]
    claim = f"{max(nearest, analogy):.2f} s a question at a peak of {peak:.1f} GB"
    return verdict(
        f"{claim}; wanted below {TARGET_SECONDS} s and {TARGET_PEAK} GB",
        max(nearest, analogy) < TARGET_SECONDS and peak < TARGET_PEAK,
    )


def ask(n: int, d: int, runs: int) -> tuple[dict[str, tuple[float, float, float, float]], float]:
    """For each library: seconds until it is ready, for a nearest and an analogy, and the peak of memory.

    And the seconds of a sum over the whole matrix.
    """
    matrix = np.empty((n, d), np.float32)
    random = np.random.default_rng(0)
    for start in range(0, n, 100_000):  # all at once would pass through a second matrix
        random.standard_normal(out=matrix[start : start + 100_000], dtype=np.float32)
    words = [f"w{place}" for place in range(n)]

    started = time.perf_counter()
    ours = WordVectors(words, matrix)
    ready = {"ours": time.perf_counter() - started}
    peaks = {"ours": peak_gigabytes()}
    asked: dict[str, list[Callable[[], Any]]] = {
        "ours": [lambda: ours.nearest("w7"), lambda: ours.analogy(["w1", "w2"], ["w3"])]
    }
    if importlib.util.find_spec("gensim"):
        from gensim.models import KeyedVectors

        theirs = KeyedVectors(d)
        theirs.vectors, theirs.index_to_key, theirs.key_to_index = matrix, ours.words, ours.index
        started = time.perf_counter()
        theirs.fill_norms()
        ready["gensim"] = time.perf_counter() - started
        peaks["gensim"] = peak_gigabytes()
        asked["gensim"] = [
            lambda: theirs.most_similar("w7"),
            lambda: theirs.most_similar(positive=["w1", "w2"], negative=["w3"]),
        ]
        for ask_ours, ask_theirs in zip(*asked.values(), strict=True):
            assert [word for word, _ in ask_ours()] == [word for word, _ in ask_theirs()]
    seconds = interleaved({**asked, "sum": [matrix.sum]}, runs)
    limit = seconds.pop("sum")[0]
    return {name: (ready[name], *seconds[name], peaks[name]) for name in asked}, limit


def interleaved(asked: dict[str, list[Callable[[], Any]]], runs: int) -> dict[str, list[float]]:
    """The median seconds of each question to each library, one after another in turns."""
    taken: dict[str, list[list[float]]] = {name: [[] for _ in questions] for name, questions in asked.items()}
    for _ in range(runs + 1):
        for name, questions in asked.items():
            for place, question in enumerate(questions):
                started = time.perf_counter()
                question()
                taken[name][place].append(time.perf_counter() - started)
    return {name: [statistics.median(row[1:]) for row in rows] for name, rows in taken.items()}


def files(n: int, d: int) -> list[bool]:
    """Reading n × d numbers from word2vec's binary format and from its text."""
    matrix = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
    vectors = WordVectors([f"w{place}" for place in range(n)], matrix)
    reached = []
    with tempfile.TemporaryDirectory() as folder:
        for name, part in (("vectors.bin", n), ("vectors.txt", n // 10)):
            path = Path(folder) / name
            write_word2vec(WordVectors(vectors.words[:part], matrix[:part]), path)
            readers: dict[str, list[Callable[[], Any]]] = {"ours": [lambda path=path: load_word2vec(path)]}
            if importlib.util.find_spec("gensim"):
                from gensim.models import KeyedVectors

                readers["gensim"] = [
                    lambda path=path: KeyedVectors.load_word2vec_format(path, binary=path.suffix == ".bin")
                ]
            seconds = {name: row[0] for name, row in interleaved(readers, 3).items()}
            print(f"\nreading {path.name}, {part:,} words, {path.stat().st_size / 1e6:.0f} MB")
            print_table(
                ["", "seconds", "words/s"],
                [[name, f"{s:.2f}", f"{part / s:,.0f}"] for name, s in seconds.items()],
            )
            if "gensim" in seconds:
                times = seconds["gensim"] / seconds["ours"]
                reached.append(verdict(f"{times:.1f} × as fast as gensim; wanted more than 1", times > 1))
    return reached


if __name__ == "__main__":
    sys.exit(main())
