"""The files of OpenAI's GPT-2, and what is known of each before it comes.

OpenAI published no list of checksums. What stands here was measured on its files by others and agrees
between them, or follows from what the files are: `model.ckpt.data` is every parameter as 4 bytes of
float32 with nothing between them, and the vocabulary is the same for all sizes. Of the rest the form is
checked, and the tensors by the CRC-32C that the checkpoint itself holds.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glassgpt.data.download import Expected
from glassgpt.model.config import gpt2
from glassgpt.tokenizers.gpt2_files import SHA256

ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/models"
DATA = "model.ckpt.data-00000-of-00001"
INDEX = "model.ckpt.index"
META = "model.ckpt.meta"
VOCABULARY = ("encoder.json", "vocab.bpe")
INDEX_MAGIC = bytes.fromhex("57fb808b247547db")  # 0xdb4775248b80fb57, little-endian: a LevelDB table


@dataclass(frozen=True)
class PublishedFile:
    """A file of the release: what it is for, and what is known of it."""

    name: str
    about: str
    expected: Expected


_ABOUT = {
    "checkpoint": "TensorFlow's note of which checkpoint in this folder is the newest",
    "encoder.json": "the vocabulary: 50,257 tokens and their ids",
    "hparams.json": "the shape of the model: layers, heads, width, context, vocabulary",
    DATA: "the weights: all numbers, one tensor after another",
    INDEX: "where in the weights each tensor lies, its shape and its checksum",
    META: "the graph of TensorFlow operations, which nobody needs to use the weights",
    "vocab.bpe": "the 50,000 merges of byte-pair encoding, the most frequent first",
}
_N_BYTES = {
    "124M": {
        "checkpoint": 77,
        "hparams.json": 90,
        DATA: 497_759_232,
        INDEX: 5_215,
        META: 471_155,
    },
    "355M": {
        "checkpoint": 77,
        "hparams.json": 91,
        DATA: 1_419_292_672,
        INDEX: 10_399,
        META: 926_519,
    },
    "774M": {DATA: 3_096_120_320},
    "1558M": {DATA: 6_230_444_800},
}
_N_BYTES_OF_VOCABULARY = {"encoder.json": 1_042_301, "vocab.bpe": 456_318}
_SHA256 = {
    "124M": {
        "checkpoint": "dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb",
        "hparams.json": "d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318",
        DATA: "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118",
        INDEX: "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687",
        META: "4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b",
    },
}


def published_files(size: str) -> list[PublishedFile]:
    """The seven files of GPT-2 of that size. Raises ConfigError, naming the sizes, for another."""
    n_bytes = _N_BYTES_OF_VOCABULARY | _N_BYTES.get(size, {})
    sha256 = SHA256 | _SHA256.get(size, {})
    problems = _problems(size)
    return [
        PublishedFile(
            name,
            about,
            Expected(n_bytes=n_bytes.get(name), sha256=sha256.get(name), problem=problems.get(name)),
        )
        for name, about in _ABOUT.items()
    ]


def _problems(size: str) -> dict[str, Callable[[Path], str | None]]:
    """For the files whose digest may be unknown: what in them would be wrong."""
    config = gpt2(size)
    hparams = {
        "n_vocab": config.vocab_size,
        "n_ctx": config.context_length,
        "n_embd": config.d_model,
        "n_head": config.n_heads,
        "n_layer": config.n_layers,
    }

    def checkpoint(path: Path) -> str | None:
        named = b'model_checkpoint_path: "model.ckpt"' in path.read_bytes()
        return None if named else "it does not name the checkpoint model.ckpt"

    def hyperparameters(path: Path) -> str | None:
        try:
            found = json.loads(path.read_bytes())
        except ValueError:
            return "it is no JSON"
        return None if found == hparams else f"it says {found}, and GPT-2 {size} is {hparams}"

    def index(path: Path) -> str | None:
        return (
            None if path.read_bytes().endswith(INDEX_MAGIC) else "it is no index of a TensorFlow checkpoint"
        )

    def meta(path: Path) -> str | None:
        # A MetaGraphDef begins with its field 1, a message: the tag byte 1 << 3 | 2.
        return None if path.read_bytes().startswith(b"\x0a") else "it is no graph of TensorFlow"

    return {
        "checkpoint": checkpoint,
        "hparams.json": hyperparameters,
        INDEX: index,
        META: meta,
    }
