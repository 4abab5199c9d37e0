"""A GPT-2 in the form in which OpenAI publishes its own: the same seven files, the weights random.

Chapters 08, 09 and 10 read it where OpenAI's is not in the cache; tests read small ones.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glassgpt.by_hand.tf_checkpoint_writer import write_bundle
from glassgpt.errors import TokenizerError
from glassgpt.model import gpt2
from glassgpt.pretrained.bpe_files import write_bpe_files
from glassgpt.pretrained.gpt2 import SETTINGS
from glassgpt.pretrained.gpt2_files import META, VOCABULARY, published_files
from glassgpt.storage import cache_folder
from glassgpt.tokenizers import BPETokenizer
from glassgpt.tokenizers.printable import GPT2_BYTE_ORDER

N_MERGES = 50_000


def openai_checkpoint_or_stand_in(size: str, folder: Path) -> Path:
    """The folder of OpenAI's GPT-2 of that size in the cache; else `folder`, filled with a stand-in.

    Prints in one line which it is. The cache is only read: random weights never get there.
    """
    assert cache_folder().resolve() not in folder.resolve().parents, "a stand-in in the cache"
    released = cache_folder() / "openai" / "gpt2" / size
    if is_whole(released, size):
        print(f"OpenAI's GPT-2 {size}, from the cache.")
        return released
    print(
        f"OpenAI's GPT-2 {size} is not in the cache, so random weights stand in, in the same seven files. "
        f"To get it: glassgpt download gpt2 --size {size}"
    )
    write_gpt2_vocabulary(write_gpt2_checkpoint(folder, size))
    return folder


def is_whole(folder: Path, size: str) -> bool:
    """Whether all seven files of the release are in `folder`, each as far as it is known beforehand."""
    return all(
        (folder / file.name).is_file() and file.expected.difference(folder / file.name) is None
        for file in published_files(size)
    )


def write_gpt2_checkpoint(folder: Path, size: str | Mapping[str, int], seed: int = 0) -> Path:
    """Fill `folder` with the files that OpenAI publishes for a GPT-2, its weights random; return `folder`.

    `size` is one of OpenAI's, or what `hparams_of` gives for one. The vocabulary's two files are not written;
    model.ckpt.meta is a placeholder, as nothing reads it.
    """
    hparams = hparams_of(size) if isinstance(size, str) else dict(size)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hparams.json").write_text(json.dumps(hparams, indent=2) + "\n", encoding="utf-8")
    (folder / META).write_text("Where OpenAI keeps the graph.\n", encoding="utf-8")
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n', encoding="utf-8"
    )
    write_bundle(folder / "model.ckpt", gpt2_weights(hparams, seed))
    return folder


def write_gpt2_vocabulary(folder: Path) -> None:
    """Put encoder.json and vocab.bpe into `folder`: GPT-2's own where the cache has them.

    Else as many tokens that mean as little as random weights do: single bytes, then pairs of them.
    """
    try:
        BPETokenizer.gpt2()  # checks both files
    except TokenizerError:
        pairs = [(left, right) for left in range(256) for right in range(256)]
        tokenizer = BPETokenizer(pairs[:N_MERGES], byte_order=GPT2_BYTE_ORDER)
        write_bpe_files(tokenizer, *(folder / name for name in VOCABULARY))
    else:
        for name in VOCABULARY:
            shutil.copyfile(cache_folder() / "openai" / "gpt2" / name, folder / name)


def hparams_of(size: str) -> dict[str, int]:
    """What `hparams.json` says of a size."""
    config = gpt2(size)
    return {theirs: getattr(config, ours) for theirs, ours in SETTINGS.items()}


def gpt2_shapes(hparams: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of GPT-2's tensors, in the order of TensorFlow's files."""
    D = hparams["n_embd"]
    block = {
        "attn/c_attn/b": (3 * D,), "attn/c_attn/w": (1, D, 3 * D),
        "attn/c_proj/b": (D,), "attn/c_proj/w": (1, D, D),
        "ln_1/b": (D,), "ln_1/g": (D,), "ln_2/b": (D,), "ln_2/g": (D,),
        "mlp/c_fc/b": (4 * D,), "mlp/c_fc/w": (1, D, 4 * D),
        "mlp/c_proj/b": (D,), "mlp/c_proj/w": (1, 4 * D, D),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        f"model/h{layer}/{name}": shape
        for layer in range(hparams["n_layer"])
        for name, shape in block.items()
    }
    shapes |= {"model/ln_f/b": (D,), "model/ln_f/g": (D,)}
    shapes |= {"model/wpe": (hparams["n_ctx"], D), "model/wte": (hparams["n_vocab"], D)}
    return dict(sorted(shapes.items()))


def gpt2_weights(hparams: Mapping[str, int], seed: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """GPT-2's tensors by name, as before its training, but that nothing is constant: biases and gains too."""
    random = np.random.default_rng(seed)
    deviations = {"/wpe": 0.01, "c_proj/w": 0.02 / math.sqrt(2 * hparams["n_layer"])}
    for name, shape in gpt2_shapes(hparams).items():
        deviation = next((deviations[end] for end in deviations if name.endswith(end)), 0.02)
        values = random.standard_normal(shape, np.float32) * np.float32(deviation)
        yield name, values + np.float32(name.endswith("/g"))
