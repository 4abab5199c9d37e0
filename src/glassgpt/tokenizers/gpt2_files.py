"""GPT-2's vocabulary as OpenAI published it: `vocab.bpe` (the merges) and `encoder.json` (the ids)."""

import hashlib
import json
from pathlib import Path

from glassgpt.errors import TokenizerError
from glassgpt.storage import cache_folder
from glassgpt.tokenizers.interface import END_OF_TEXT
from glassgpt.tokenizers.printable import GPT2_BYTE_ORDER, read_merges

SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


def read_gpt2_merges() -> list[tuple[int, int]]:
    """GPT-2's 50,000 merges as pairs of ids, from the two files in `openai/gpt2` of the cache folder.

    Raises TokenizerError when a file is missing or is not the one that OpenAI published.
    """
    folder = cache_folder() / "openai" / "gpt2"
    _, *lines = _published(folder / "vocab.bpe").splitlines()  # the first line names the format's version
    merges, ids = read_merges(lines, GPT2_BYTE_ORDER)
    if json.loads(_published(folder / "encoder.json")) != ids | {END_OF_TEXT: len(ids)}:
        raise TokenizerError(f"vocab.bpe and encoder.json in {folder} give different ids.")
    return merges


def _published(path: Path) -> str:
    """The text of OpenAI's file at `path`."""
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise TokenizerError(
            f"Cannot read GPT-2's vocabulary, {path}: {fault.strerror}. It is one of the two files vocab.bpe "
            "and encoder.json of OpenAI's GPT-2 release. `glassgpt download gpt2` fetches them with the "
            "weights; or put both there, or set GLASSGPT_CACHE to a folder that has them in openai/gpt2."
        ) from fault
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256[path.name]:
        raise TokenizerError(
            f"{path} is not the file that OpenAI published: its SHA-256 is {digest[:12]}…, "
            f"not {SHA256[path.name][:12]}…. Fetch it again."
        )
    return data.decode("utf-8")
