"""GPT-2's tokenizer as files: `vocab.json` with `merges.txt`, or `tokenizer.json` of the tokenizers package.

OpenAI calls the first two `encoder.json` and `vocab.bpe`. Both spell bytes in GPT-2's printable characters.
"""

import json
from pathlib import Path
from typing import Any

from glassgpt.errors import CheckpointError, TokenizerError
from glassgpt.pretrained.stored import read_json
from glassgpt.tokenizers import BPETokenizer
from glassgpt.tokenizers.printable import from_printable, read_merges

N_BYTES = 256


def read_bpe_files(vocabulary: Path, merges: Path) -> BPETokenizer:
    """The tokenizer in `vocab.json` (`encoder.json`) and `merges.txt` (`vocab.bpe`).

    Raises CheckpointError when they are damaged, or number their tokens in another way than bytes, merges,
    special tokens, which is how GPT-2 does it.
    """
    try:
        lines = merges.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as fault:
        raise CheckpointError(f"{merges} cannot be read: {fault}. Copy it again.") from fault
    if lines and lines[0].startswith("#version"):
        del lines[0]
    return _build(read_json(vocabulary), [line for line in lines if line], vocabulary)


def read_tokenizer_json(path: Path) -> BPETokenizer:
    """The tokenizer in a `tokenizer.json`.

    Raises CheckpointError for anything but byte-level BPE that cuts text as GPT-2 does.
    """
    content = read_json(path)
    try:
        model, cutter = content["model"], content["pre_tokenizer"] or {}
        kind = f"{model['type']}, {cutter.get('type')}"
        as_gpt2 = not cutter.get("add_prefix_space", True) and cutter.get("use_regex", True)
        if kind != "BPE, ByteLevel" or not as_gpt2 or content.get("normalizer"):
            raise CheckpointError(
                f"{path} holds a tokenizer that is not GPT-2's byte-level BPE: {kind}, {cutter}, normalizer "
                f"{content.get('normalizer')}. It cannot be read here."
            )
        merges = [line if isinstance(line, str) else " ".join(line) for line in model["merges"]]
        added = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
        return _build(model["vocab"] | added, merges, path)
    except (KeyError, TypeError, AttributeError, ValueError) as fault:
        raise CheckpointError(f"{path} is not a whole tokenizer.json: {fault!r}. Copy it again.") from fault


def write_bpe_files(tokenizer: BPETokenizer, vocabulary: Path, merges: Path) -> None:
    """Write what `read_bpe_files` reads."""
    lines = tokenizer.content()["merges"]
    _, ids = read_merges(lines, tokenizer.byte_order)
    vocabulary.write_text(json.dumps(ids | tokenizer.special_tokens, ensure_ascii=False), encoding="utf-8")
    merges.write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")


def _build(ids: dict[str, Any], merges: list[str], path: Path) -> BPETokenizer:
    try:
        names = sorted(ids, key=ids.__getitem__)
        byte_order = b"".join(map(from_printable, names[:N_BYTES]))
        pairs, numbered = read_merges(merges, byte_order)
        tokenizer = BPETokenizer(pairs, names[len(numbered) :], byte_order)
    except (KeyError, TypeError, ValueError, TokenizerError) as fault:
        raise CheckpointError(f"{path} is no vocabulary of byte-level BPE: {fault}.") from fault
    if ids != numbered | tokenizer.special_tokens:
        raise CheckpointError(
            f"{path} numbers its tokens in another way than bytes, merges, special tokens. "
            f"It cannot be read here."
        )
    return tokenizer
