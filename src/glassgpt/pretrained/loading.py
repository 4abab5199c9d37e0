"""Any model by its name or its place: what it is, and into memory."""

from pathlib import Path

import torch

from glassgpt.data.shards import DATASET_FILE
from glassgpt.errors import CheckpointError
from glassgpt.model.folder import CONFIG, WEIGHTS, check_whole, read_description, read_tokenizer
from glassgpt.model.gpt import GPT
from glassgpt.pretrained.filling import build
from glassgpt.pretrained.gpt2 import HPARAMS, open_openai
from glassgpt.pretrained.huggingface import open_huggingface
from glassgpt.pretrained.name_map import own_places
from glassgpt.pretrained.pt_file import SUFFIXES, open_pt
from glassgpt.pretrained.stored import SafetensorsWeights, StoredModel, check_size, read_json
from glassgpt.storage import MANIFEST, cache_folder, recover_folder
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.checkpoint import model_folder_of

NAMES = {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}
"""What Hugging Face calls OpenAI's four sizes."""

LARGEST = {"openai": "model.ckpt.data-00000-of-00001", "huggingface": "model.safetensors"}
"""The file that is there when a download into that folder of the cache was not broken off."""


def load_pretrained(
    source: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    *,
    with_tokenizer: bool = True,
) -> tuple[GPT, Tokenizer | None]:
    """The model at `source`, in eval mode, and its tokenizer where it comes with one that is asked for.

    `source` is gpt2, gpt2-medium, gpt2-large or gpt2-xl (in the cache), a model folder or run folder of
    ours, a folder in Hugging Face's format, an OpenAI checkpoint folder, or a `.pt` file. `dtype` None keeps
    the weights' own. At most the model and one tensor are in memory. On the CPU, weights that need no
    conversion are not copied but mapped, except those of a `.pt` file: as with every mapped file, nobody
    should write into it meanwhile (replacing it, as this library saves, is fine). Those of Hugging Face's and
    OpenAI's formats are copied when the C++ step first generates with them, which needs them in rows.
    Chapter 09.

    Raises CheckpointError when there is no model, or it is damaged, or not one that our GPT can be.
    """
    stored = open_model(source)
    model = build(stored, device, dtype)
    return model.eval(), stored.read_tokenizer() if with_tokenizer else None


def open_model(source: str | Path) -> StoredModel:
    """Open the model at `source`, which is what `load_pretrained` takes, without reading its tensors.

    Raises CheckpointError as `load_pretrained` does.
    """
    path = locate(source)
    return _OPENERS[format_of(path)](path)


def locate(source: str | Path) -> Path:
    """The folder or file of the model that `source` names: for a run, its newest whole checkpoint.

    Raises CheckpointError when there is none.
    """
    path = Path(source)
    recover_folder(path)
    if path.exists():
        return model_folder_of(path)
    if str(source) not in NAMES:
        raise CheckpointError(
            f"There is no model folder {path}. Give a model folder of ours ({WEIGHTS} and {CONFIG}), of "
            f"Hugging Face's or OpenAI's, a run folder, a .pt file, or one of the names {', '.join(NAMES)}."
        )
    size = NAMES[str(source)]
    places = [cache_folder() / origin / "gpt2" / size for origin in LARGEST]
    for place, largest in zip(places, LARGEST.values(), strict=True):
        if (place / largest).is_file():
            return place
    raise CheckpointError(
        f"{source} is not in the cache, neither in {places[0]} nor in {places[1]}. Fetch it: "
        f"glassgpt download gpt2 --size {size}"
    )


def open_own(folder: Path) -> StoredModel:
    """Open a model folder of ours. Raises CheckpointError when it is not whole."""
    check_whole(folder)
    config, fingerprint = read_description(folder / CONFIG)
    weights = SafetensorsWeights(folder / WEIGHTS, [folder / WEIGHTS])
    check_size(config, weights)
    return StoredModel(
        format="glassgpt",
        config=config,
        weights=weights,
        places=own_places(config),
        read_tokenizer=lambda: read_tokenizer(folder, config, fingerprint),
    )


_OPENERS = {
    "glassgpt": open_own,
    "huggingface": open_huggingface,
    "openai": open_openai,
    "pt": open_pt,
}


def format_of(path: Path) -> str:
    """Which format the model at `path` has. Raises CheckpointError for something else."""
    if path.is_file():
        if path.suffix in SUFFIXES:
            return "pt"
        raise CheckpointError(f"{path} is a file, but not one of {', '.join(SUFFIXES)}. Give its folder.")
    if (path / DATASET_FILE).is_file():
        raise CheckpointError(f"{path} is a prepared dataset, not a model: glassgpt train --data {path}")
    if (path / HPARAMS).is_file():
        return "openai"
    if (path / CONFIG).is_file() or (path / MANIFEST).is_file():
        try:
            return "huggingface" if "model_type" in read_json(path / CONFIG) else "glassgpt"
        except CheckpointError:
            if (path / MANIFEST).is_file():
                return "glassgpt"  # whose reader says everything that is wrong with the folder
            raise
    raise CheckpointError(
        f"{path} holds no model: neither {CONFIG} with weights (ours, Hugging Face's) nor {HPARAMS} with a "
        f"TensorFlow checkpoint (OpenAI's). Check the path."
    )
