"""Tokenised text on disk: little-endian files of token ids that are mapped into memory, never read whole.

folder/
├── dataset.json      what is here: see `DatasetInfo`
├── tokenizer.json    the tokenizer that made the ids
├── train_00000.bin   ids and nothing else, two bytes each (four if the vocabulary exceeds 65,536)
└── val_00000.bin
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glassgpt.data.token_array import TokenArray, check_ids
from glassgpt.errors import DataError, TokenizerError, raise_problems
from glassgpt.storage import MANIFEST, folder_problems, recover_folder, sha256_of

if TYPE_CHECKING:
    from glassgpt.tokenizers import Tokenizer

DATASET_FILE = "dataset.json"
TOKENIZER_FILE = "tokenizer.json"
FORMAT = 1
VERIFIED_AT_ONCE_BYTES = 64 << 20  # hashed in a fraction of a second


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """One file of token ids."""

    file: str
    n_tokens: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SideInfo:
    """One side of the split."""

    n_documents: int
    n_bytes: int
    """UTF-8 bytes of the text behind the tokens, separators between documents not counted."""
    shards: tuple[ShardInfo, ...]

    @property
    def n_tokens(self) -> int:
        return sum(shard.n_tokens for shard in self.shards)


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """All that `dataset.json` says."""

    corpus: str
    vocab_size: int
    tokenizer_fingerprint: str
    dtype: str
    split: str
    """How documents were parted: "by document", "in order" or "none" (see `glassgpt.data.split`)."""
    val_fraction: float
    train: SideInfo
    val: SideInfo

    def to_json(self) -> str:
        """`from_json` is the inverse."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "DatasetInfo":
        """Raises ValueError, KeyError, TypeError or RecursionError for anything but `to_json`'s form."""
        values = json.loads(text)
        if (found := values.pop("format")) != FORMAT:
            raise ValueError(f"its format is {found!r}, not {FORMAT}")
        for side in ("train", "val"):
            shards = tuple(ShardInfo(**shard) for shard in values[side].pop("shards"))
            values[side] = SideInfo(shards=shards, **values[side])
        info = cls(**values)
        if info.dtype not in ("<u2", "<u4"):
            raise ValueError(f"its dtype is {info.dtype!r}, not '<u2' or '<u4'")
        counts = [info.vocab_size]
        for part in (info.train, info.val):
            counts += [part.n_documents, part.n_bytes, *(shard.n_tokens for shard in part.shards)]
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError(f"one of its counts is not a whole number: {counts}")
        return info


def dtype_for(vocab_size: int) -> str:
    """The smallest type that holds every id: two bytes while they suffice."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


class TokenShards:
    """A tokenised corpus in a folder, parted into `train` and `val`.

    Both are mapped from the beginning, so that another version in the same folder mixes with neither.
    """

    def __init__(self, folder: Path, info: DatasetInfo) -> None:
        self.folder = folder
        self.info = info
        self.train = self._tokens(info.train)
        self.val = self._tokens(info.val)

    @classmethod
    def open(cls, folder: Path | str, *, verify: bool | None = None) -> "TokenShards":
        """Open what `prepare` has written.

        The size of every shard is checked, and what describes them against the manifest, where there is one.
        `verify=True` also checks their SHA-256 and that every id is in the vocabulary, which reads them all;
        None does so for datasets of up to 64 MiB.

        Raises DataError naming all that is missing, cut short, altered or not as described.
        """
        folder = Path(folder)
        recover_folder(folder)
        info = _read_info(folder)
        raise_problems(DataError, _problems(folder, info, verify), f"The dataset in {folder}")
        return cls(folder, info)

    @property
    def vocab_size(self) -> int:
        return self.info.vocab_size

    @property
    def tokenizer_fingerprint(self) -> str:
        return self.info.tokenizer_fingerprint

    @property
    def train_bytes(self) -> int:
        """UTF-8 bytes behind `train`."""
        return self.info.train.n_bytes

    @property
    def val_bytes(self) -> int:
        """UTF-8 bytes behind `val`."""
        return self.info.val.n_bytes

    def tokenizer(self) -> "Tokenizer":
        """The tokenizer that made the ids. Raises DataError if the one in the folder is another."""
        from glassgpt.tokenizers import load_tokenizer

        tokenizer = load_tokenizer(self.folder / TOKENIZER_FILE)
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise DataError(
                f"{self.folder / TOKENIZER_FILE} has the fingerprint {tokenizer.fingerprint[:12]}…, the "
                f"dataset {self.tokenizer_fingerprint[:12]}…. Prepare the corpus again."
            )
        return tokenizer

    def _tokens(self, side: SideInfo) -> TokenArray:
        shards = [
            np.asarray(np.memmap(self.folder / shard.file, dtype=self.info.dtype, mode="r"))
            for shard in side.shards
        ]
        return TokenArray(shards, vocab_size=self.vocab_size)


def _problems(folder: Path, info: DatasetInfo, verify: bool | None) -> list[str]:
    width = np.dtype(info.dtype).itemsize
    shards = [*info.train.shards, *info.val.shards]
    problems = []
    if not (folder / TOKENIZER_FILE).is_file():
        problems.append(_problem(TOKENIZER_FILE, "is missing"))
    elif (folder / MANIFEST).exists():
        found = folder_problems(folder, [DATASET_FILE, TOKENIZER_FILE])
        problems += [f"{difference}. Prepare the corpus again." for difference in found]
    for shard in shards:
        path = folder / shard.file
        if not path.is_file():
            problems.append(_problem(shard.file, "is missing"))
        elif (n_bytes := path.stat().st_size) != width * shard.n_tokens:
            problems.append(_problem(shard.file, f"has {n_bytes:,} bytes, not {width * shard.n_tokens:,}"))
    if verify is None:
        verify = width * sum(shard.n_tokens for shard in shards) <= VERIFIED_AT_ONCE_BYTES
    if verify and not problems:
        problems = [
            _problem(shard.file, "was altered (its SHA-256 differs)")
            for shard in shards
            if sha256_of(folder / shard.file) != shard.sha256
        ]
    if verify and not problems:
        for shard in shards:
            try:
                check_ids(np.memmap(folder / shard.file, dtype=info.dtype, mode="r"), info.vocab_size)
            except TokenizerError as fault:
                problems.append(f"{shard.file} does not go with {DATASET_FILE}: {fault}")
    return problems


def _problem(file: str, what: str) -> str:
    return f"{file} {what}. Prepare the corpus again."


def _read_info(folder: Path) -> DatasetInfo:
    path = folder / DATASET_FILE
    try:
        return DatasetInfo.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} is not a dataset: it has no {DATASET_FILE}. Make one with glassgpt prepare."
        ) from None
    except OSError as fault:
        raise DataError(f"Cannot read {path}: {fault.strerror}. Check the path.") from fault
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise DataError(
            f"{path} does not describe a dataset ({type(fault).__name__}: {fault}). Prepare the corpus again."
        ) from fault
