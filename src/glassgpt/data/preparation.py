"""Text → token shards: in parallel, in bounded memory, and the same files however many threads do it.

They are threads, since byte-pair encoding runs outside Python: a process starts for as long as 10 MB take.
"""

import contextlib
import hashlib
import itertools
import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glassgpt.data.corpora import Corpus, read_corpus
from glassgpt.data.progress import byte_bar
from glassgpt.data.shards import (
    DATASET_FILE,
    TOKENIZER_FILE,
    DatasetInfo,
    ShardInfo,
    SideInfo,
    TokenShards,
    dtype_for,
)
from glassgpt.data.split import Part, parts, plan_split
from glassgpt.data.token_array import check_ids
from glassgpt.errors import ConfigError, DataError, raise_problems
from glassgpt.storage import (
    check_replaceable,
    explained,
    recover_folder,
    staged_folder,
    write_atomically,
)
from glassgpt.tokenizers.interface import batches

if TYPE_CHECKING:
    from glassgpt.tokenizers import Tokenizer

SHARD_TOKENS = 1 << 27  # 256 MiB of two-byte ids
JOB_CHARACTERS = 1 << 20


def prepare(
    source: str | os.PathLike[str] | Corpus,
    out: Path | str,
    tokenizer: "Tokenizer",
    *,
    val_fraction: float = 0.1,
    shard_tokens: int = SHARD_TOKENS,
    n_workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> TokenShards:
    """Tokenise `source` into the folder `out`, which appears when all of it is written.

    Each document is followed by the tokenizer's end-of-text token, where it has one. How the text is split
    is told in `glassgpt.data.split`. `n_workers` threads encode it, None takes as many as there are cores.

    Raises DataError if there is no text, or `out` holds something already and is not a dataset that
    `overwrite` allows to be replaced, or something came there in the meantime; TokenizerError for text that
    the tokenizer cannot take; ConfigError for settings out of range.
    """
    out = Path(out)
    problems = []
    if shard_tokens < 1:
        problems.append(f"shard_tokens={shard_tokens} must be at least 1.")
    if n_workers is not None and n_workers < 1:
        problems.append(f"n_workers={n_workers} must be at least 1, or None.")
    raise_problems(ConfigError, problems, "The preparation")
    check_destination(out, overwrite)
    corpus = source if isinstance(source, Corpus) else read_corpus(source)

    with staged_folder(out, DataError) as staging:  # first of all: better to fail now than after an hour
        split = plan_split(corpus, val_fraction, progress=progress)
        tokenizer.save(staging / TOKENIZER_FILE)
        dtype = dtype_for(tokenizer.vocab_size)
        train, val = (_SideWriter(staging, side, dtype, shard_tokens) for side in ("train", "val"))
        bar = byte_bar("tokenising", split.n_bytes, progress)
        jobs = batches(parts(corpus, split), lambda part: len(part.text), JOB_CHARACTERS)
        results = _encode_all(jobs, tokenizer, n_workers or _n_cores())
        with bar, train, val, contextlib.closing(results):
            for encoded in itertools.chain.from_iterable(results):
                (val if encoded.is_val else train).write(encoded)
                bar.update(encoded.n_bytes)
        if train.n_bytes + val.n_bytes != split.n_bytes:
            raise DataError(
                f"{corpus.name} changed while it was read: {split.n_bytes:,} bytes, then "
                f"{train.n_bytes + val.n_bytes:,}. Prepare it again when it is at rest."
            )
        info = DatasetInfo(
            corpus=corpus.name,
            vocab_size=tokenizer.vocab_size,
            tokenizer_fingerprint=tokenizer.fingerprint,
            dtype=dtype,
            split=split.method,
            val_fraction=val_fraction,
            train=train.info(),
            val=val.info(),
        )
        write_atomically(staging / DATASET_FILE, info.to_json(), DataError)
    return TokenShards.open(out)


class _Encoded(NamedTuple):
    """The ids of a job's parts that lie on one side."""

    ids: NDArray[np.integer]
    is_val: bool
    n_bytes: int
    n_ended: int
    """Documents that end here."""
    is_unfinished: bool
    """The last document goes on: in the next job, or on the other side."""


class _SideWriter:
    """Writes the ids of one side into shards of equal size, counting and hashing as it goes."""

    def __init__(self, folder: Path, side: str, dtype: str, shard_tokens: int) -> None:
        self.n_bytes = 0
        self._n_ended = 0
        self._is_unfinished = False
        self._folder, self._side = folder, side
        self._dtype = np.dtype(dtype)
        self._shard_tokens = shard_tokens
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._n_tokens = 0  # in the present file
        self._shards: list[ShardInfo] = []

    def __enter__(self) -> "_SideWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, encoded: _Encoded) -> None:
        self.n_bytes += encoded.n_bytes
        self._n_ended += encoded.n_ended
        self._is_unfinished = encoded.is_unfinished
        ids = encoded.ids
        while len(ids):
            if self._file is None:
                self._file = open(self._folder / self._name(), "wb")  # noqa: SIM115 - open across calls
            now, ids = np.split(ids, [self._shard_tokens - self._n_tokens])
            data = now.astype(self._dtype).tobytes()
            self._file.write(data)
            self._digest.update(data)
            self._n_tokens += len(now)
            if self._n_tokens == self._shard_tokens:
                self._close()

    def info(self) -> SideInfo:
        return SideInfo(
            n_documents=self._n_ended + self._is_unfinished, n_bytes=self.n_bytes, shards=tuple(self._shards)
        )

    def _name(self) -> str:
        return f"{self._side}_{len(self._shards):05d}.bin"

    def _close(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._shards.append(
            ShardInfo(file=self._name(), n_tokens=self._n_tokens, sha256=self._digest.hexdigest())
        )
        self._file, self._digest, self._n_tokens = None, hashlib.sha256(), 0


def _encode(job: list[Part], tokenizer: "Tokenizer") -> list[_Encoded]:
    sides = ([part for part in job if part.is_val is is_val] for is_val in (False, True))
    return [_encode_side(side, tokenizer) for side in sides if side]


def _encode_side(side: list[Part], tokenizer: "Tokenizer") -> _Encoded:
    end_of_text = [] if tokenizer.end_of_text_id is None else [np.array([tokenizer.end_of_text_id])]
    arrays: list[NDArray[np.integer]] = []
    for part, ids in zip(side, tokenizer.encode_arrays([part.text for part in side]), strict=True):
        arrays += [ids, *(end_of_text if part.ends_document else [])]
    all_ids = np.concatenate(arrays)
    check_ids(all_ids, tokenizer.vocab_size)
    return _Encoded(
        ids=all_ids.astype(dtype_for(tokenizer.vocab_size)),
        is_val=side[0].is_val,
        n_bytes=sum(len(part.text.encode("utf-8")) for part in side),
        n_ended=sum(part.ends_document for part in side),
        is_unfinished=not side[-1].ends_document,
    )


def _encode_all(
    jobs: Iterator[list[Part]], tokenizer: "Tokenizer", n_workers: int
) -> Generator[list[_Encoded]]:
    """The jobs' ids in the jobs' order; a fixed number of jobs is under way at any time."""
    if n_workers == 1:
        for job in jobs:
            yield _encode(job, tokenizer)
        return
    pool = ThreadPoolExecutor(n_workers)
    under_way: deque[Future[list[_Encoded]]] = deque()
    try:
        for job in jobs:
            under_way.append(pool.submit(_encode, job, tokenizer))
            if len(under_way) > 2 * n_workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def check_destination(out: Path, overwrite: bool) -> None:
    """Raise DataError unless `prepare` may write the folder `out`."""
    recover_folder(out)
    with explained(DataError, out):
        if out.exists() and not out.is_dir():
            raise DataError(f"{out} is a file. Choose a folder for the dataset.")
        if (out / DATASET_FILE).exists():
            if not overwrite:
                raise DataError(
                    f"{out} already holds a dataset. Choose another folder, or pass overwrite=True "
                    "(--overwrite)."
                )
        elif out.exists() and any(out.iterdir()):
            raise DataError(
                f"{out} is not empty and is not a dataset (it has no {DATASET_FILE}). Choose another folder."
            )
        check_replaceable(out, DataError)


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
