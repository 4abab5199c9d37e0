"""Word vectors beside gensim's: nearest words among as many as Google's vectors have, and reading their file.

Each asks a random matrix of its own process. The limit is the memory: a question reads the matrix once. Ours
measures the vectors' lengths when it takes them, gensim at its first question; what either needs for that is
in the peak.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.limits import READ
from benchmarks.processes import peak_gigabytes, seconds
from benchmarks.rows import OURS, AtMost, Bound, Check, Ratio, Row, Setting, Side, Taken

N, D = 3_000_000, 300
N_QUICK, N_FILE = 30_000, 300_000
PEAK = "GB at the peak, of which 3.6 are the matrix"


def words_and_matrix(n: int) -> tuple[list[str], Any]:
    import numpy as np

    matrix = np.empty((n, D), np.float32)
    random = np.random.default_rng(0)
    for start in range(0, n, 100_000):  # all at once would pass through a second matrix
        random.standard_normal(out=matrix[start : start + 100_000], dtype=np.float32)
    return [f"w{place}" for place in range(n)], matrix


def ask_ours(setting: Setting) -> Taken:
    from glassgpt.embeddings import WordVectors

    words, matrix = words_and_matrix(N_QUICK if setting.quick else N)
    made: list[WordVectors] = []
    ready = seconds(lambda: made.append(WordVectors(words, matrix)))
    (vectors,) = made
    return ask(lambda: vectors.nearest("w7"), lambda: vectors.analogy(["w1", "w2"], ["w3"]), ready)


def ask_gensim(setting: Setting) -> Taken:
    from gensim.models import KeyedVectors

    words, matrix = words_and_matrix(N_QUICK if setting.quick else N)
    vectors = KeyedVectors(D)
    vectors.vectors, vectors.index_to_key = matrix, words
    vectors.key_to_index = {word: place for place, word in enumerate(words)}
    return ask(
        lambda: vectors.most_similar("w7"),
        lambda: vectors.most_similar(positive=["w1", "w2"], negative=["w3"]),
        seconds(vectors.fill_norms),
    )


def ask(nearest: Callable[[], Any], analogy: Callable[[], Any], ready: float) -> Taken:
    answers = [[word for word, _ in question()] for question in (nearest, analogy)]
    return Taken(
        [seconds(nearest) for _ in range(5)],
        output=answers,
        beside={
            "s until ready": ready,
            "s an analogy": min(seconds(analogy) for _ in range(3)),
            PEAK: peak_gigabytes(),
        },
    )


def check_answers(setting: Setting, outputs: Mapping[str, Any]) -> Check:
    return Check(
        all(answers == outputs[OURS] for answers in outputs.values()),
        "the ten nearest words and the ten of an analogy, in the same order, on the same random vectors.",
    )


# Files


def vectors_file(setting: Setting, kind: str) -> Path:
    return setting.folder / f"vectors.{kind}"


def write_files(setting: Setting) -> None:
    """360 MB in word2vec's binary format, a tenth of it as text; unless the other row has written them."""
    from glassgpt.embeddings import WordVectors, write_word2vec

    if not vectors_file(setting, "txt").exists():
        n = N_QUICK if setting.quick else N_FILE
        words, matrix = words_and_matrix(n)
        for kind, part in (("bin", n), ("txt", n // 10)):
            write_word2vec(WordVectors(words[:part], matrix[:part]), vectors_file(setting, kind))


def read_ours(kind: str, setting: Setting) -> Taken:
    from glassgpt.embeddings import load_word2vec

    return read(
        lambda: load_word2vec(vectors_file(setting, kind)), lambda found: (found.words, found.vectors)
    )


def read_gensim(kind: str, setting: Setting) -> Taken:
    from gensim.models import KeyedVectors

    path = vectors_file(setting, kind)
    return read(
        lambda: KeyedVectors.load_word2vec_format(path, binary=kind == "bin"),
        lambda found: (found.index_to_key, found.vectors),
    )


def read(load: Callable[[], Any], parts: Callable[[Any], tuple[list[str], Any]]) -> Taken:
    import zlib

    words, matrix = parts(load())
    output = [len(words), words[0], words[-1], zlib.crc32(matrix.tobytes())]
    return Taken([seconds(load) for _ in range(2)], output)


def check_files(setting: Setting, outputs: Mapping[str, Any]) -> Check:
    n_words, _, _, checksum = outputs[OURS]
    return Check(
        all(output == outputs[OURS] for output in outputs.values()),
        f"{n_words:,} words, the first and the last of them, and the CRC-32 of all numbers ({checksum:08x}).",
    )


ROWS = [
    Row(
        name="nearest-words",
        what="the 10 nearest of 3,000,000 words × 300",
        unit="s",
        how="a question to vectors that are ready, five times in each process.",
        sides=(Side(OURS, ask_ours), Side("gensim", ask_gensim, "gensim")),
        check=check_answers,
        goals=(
            Ratio(beside=("gensim",), at_least=1.0),
            AtMost(at_most=1.0),
            AtMost(at_most=9.0, of=PEAK),
        ),
        bound=Bound(READ, N * D * 4, "the matrix once, 3.6 GB"),
        rounds=2,
    ),
    *(
        Row(
            name=f"word2vec-{kind}",
            what=what,
            unit="s",
            how="the file lies in the disk's cache; twice in each process, behind once that is not counted.",
            sides=(
                Side(OURS, partial(read_ours, kind)),
                Side("gensim", partial(read_gensim, kind), "gensim"),
            ),
            check=check_files,
            goals=(Ratio(beside=("gensim",), at_least=1.0),),
            prepare=write_files,
            rounds=2,
        )
        for kind, what in (
            ("bin", "read 300,000 words × 300, binary"),
            ("txt", "read 30,000 words × 300, text"),
        )
    ),
]
