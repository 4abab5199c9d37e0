"""Learning byte pairs from 20 MB of English, and encoding it with GPT-2's vocabulary.

SentencePiece is not among the peers: its pairs are of characters, not bytes, and stay within words, so that
no setting gives the vocabulary that the others learn.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.processes import seconds
from benchmarks.prose import cut_safely, prose_file, read_prose, write_prose
from benchmarks.rows import OURS, Check, Ratio, Row, Setting, Side, Taken

VOCABULARY, LEAST_SHARED = 8192, 0.99
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def speed(setting: Setting, run: Callable[[], object], n_times: int) -> list[float]:
    """MB/s of the prose."""
    megabytes = prose_file(setting).stat().st_size / 1e6
    return [megabytes / seconds(run) for _ in range(1 if setting.quick else n_times)]


# Learning


def learn_ours(setting: Setting) -> Taken:
    from glassgpt.tokenizers import BPETokenizer

    text, learned = read_prose(setting), []
    taken = speed(setting, lambda: learned.append(BPETokenizer.train(text, VOCABULARY, special_tokens=())), 1)
    tokens = [learned[0].decode_bytes([token_id]) for token_id in range(learned[0].vocab_size)]
    return Taken(taken, output=[token.hex() for token in tokens])


def learn_tokenizers(setting: Setting) -> Taken:
    from glassgpt.tokenizers.printable import from_printable
    from tokenizers import ByteLevelBPETokenizer

    text, peer = read_prose(setting), ByteLevelBPETokenizer()

    def learn() -> None:
        parts = cut_safely(text)
        peer.train_from_iterator(parts, vocab_size=VOCABULARY, min_frequency=0, show_progress=False)

    taken = speed(setting, learn, 1)
    return Taken(taken, output=[from_printable(token).hex() for token in peer.get_vocab()])


def learn_rustbpe(setting: Setting) -> Taken:
    import rustbpe
    from tiktoken_ext.openai_public import r50k_pat_str

    text, peer = read_prose(setting), rustbpe.Tokenizer()
    taken = speed(
        setting,
        lambda: peer.train_from_iterator(iter(cut_safely(text)), VOCABULARY, pattern=r50k_pat_str),
        1,
    )
    return Taken(taken, output=[bytes(token).hex() for token, _ in peer.get_mergeable_ranks()])


def check_vocabularies(setting: Setting, outputs: Mapping[str, Any]) -> Check:
    ours = set(outputs[OURS])
    shared = {name: len(ours & set(tokens)) / len(ours) for name, tokens in outputs.items() if name != OURS}
    said = ", ".join(f"{name} {100 * share:.2f}%" for name, share in shared.items())
    return Check(
        len(ours) == VOCABULARY and all(share >= LEAST_SHARED for share in shared.values()),
        f"of our {len(ours):,} tokens, so many are each peer's, too (equally frequent pairs may come in any "
        f"order): {said}.",
    )


# Encoding


def tiktoken_encoding() -> Any:
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str

    from glassgpt.tokenizers import BPETokenizer

    ours = BPETokenizer.gpt2()
    ranks = {ours.decode_bytes([token_id]): token_id for token_id in range(256 + len(ours.merges))}
    return tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})


def fingerprint(token_ids: Any) -> str:
    import hashlib

    import numpy as np

    return hashlib.sha256(np.asarray(token_ids, np.int64).tobytes()).hexdigest()


def encode(encode_text: Callable[[str], Any], setting: Setting) -> Taken:
    """Once to warm up on a part, then three times in full."""
    text, encoded = read_prose(setting), []
    encode_text(text[:100_000])
    taken = speed(setting, lambda: encoded.append(encode_text(text)), 2)
    return Taken(taken, output=[fingerprint(encoded[0]), len(encoded[0])])


def encode_ours(setting: Setting) -> Taken:
    from glassgpt.tokenizers import BPETokenizer

    return encode(BPETokenizer.gpt2().encode, setting)


def encode_ours_threads(n_workers: int, setting: Setting) -> Taken:
    import numpy as np

    from glassgpt.tokenizers import BPETokenizer

    tokenizer = BPETokenizer.gpt2()
    return encode(
        lambda text: np.concatenate(tokenizer.encode_batch(cut_safely(text, 100_000), n_workers)), setting
    )


def prepare_ours(n_workers: int, setting: Setting) -> Taken:
    """As `glassgpt prepare` does it: from a file to a folder of shards."""
    from glassgpt.data import prepare
    from glassgpt.tokenizers import BPETokenizer

    tokenizer, shards = BPETokenizer.gpt2(), []

    def run() -> None:
        out = setting.folder / "encoded"
        shards.append(
            prepare(
                prose_file(setting),
                out,
                tokenizer,
                val_fraction=0.0,
                n_workers=n_workers,
                overwrite=True,
                progress=False,
            )
        )

    taken = speed(setting, run, 2)
    token_ids = shards[0].train[:]
    return Taken(taken, output=[fingerprint(token_ids[:-1]), len(token_ids) - 1])  # the last ends the text


def encode_tiktoken(setting: Setting) -> Taken:
    return encode(tiktoken_encoding().encode_ordinary, setting)


def encode_tiktoken_threads(setting: Setting) -> Taken:
    encoding, n_threads = tiktoken_encoding(), os.cpu_count() or 1

    def run(text: str) -> list[int]:
        parts = encoding.encode_ordinary_batch(cut_safely(text, 100_000), num_threads=n_threads)
        return [token_id for part in parts for token_id in part]

    return encode(run, setting)


def encode_tokenizers(one_thread: bool, setting: Setting) -> Taken:
    os.environ |= ONE_THREAD if one_thread else {"TOKENIZERS_PARALLELISM": "true"}
    from glassgpt.storage import cache_folder
    from tokenizers import ByteLevelBPETokenizer

    folder = cache_folder() / "openai" / "gpt2"
    peer = ByteLevelBPETokenizer(str(folder / "encoder.json"), str(folder / "vocab.bpe"))

    def run(text: str) -> list[int]:
        return [token_id for part in peer.encode_batch(cut_safely(text)) for token_id in part.ids]

    return encode(run, setting)


def check_ids(setting: Setting, outputs: Mapping[str, Any]) -> Check:
    differing = [name for name, output in outputs.items() if output != outputs[OURS]]
    return Check(
        not differing,
        f"{outputs[OURS][1]:,} token ids, compared by their SHA-256: "
        + (f"not those of {', '.join(differing)}." if differing else "all the same."),
    )


def no_vocabulary() -> str | None:
    from glassgpt.errors import TokenizerError
    from glassgpt.tokenizers import BPETokenizer

    try:
        BPETokenizer.gpt2()
    except TokenizerError as error:
        return f"needs GPT-2's vocabulary. {error}"
    return None


MEGABYTES = "20 MB of this installation's English"

ROWS = [
    Row(
        name="learn-bpe",
        what=f"learn {VOCABULARY:,} byte-pair tokens from 20 MB",
        unit="MB/s",
        how=f"{MEGABYTES}, GPT-2's pattern; the text is in memory. Ours uses one core, the others all. "
        "SentencePiece is no peer: its pairs are of characters inside words, another vocabulary.",
        sides=(
            Side(OURS, learn_ours),
            Side("tokenizers", learn_tokenizers, "tokenizers"),
            Side("rustbpe", learn_rustbpe, "rustbpe"),
        ),
        check=check_vocabularies,
        goals=(Ratio(beside=("tokenizers",), at_least=0.5, aim=1.0),),
        prepare=write_prose,
    ),
    Row(
        name="encode-gpt2",
        what="encode 20 MB with GPT-2's vocabulary, one thread",
        unit="MB/s",
        how=f"{MEGABYTES}; ours and tiktoken get it as one text, tokenizers in parts of 1 kB, "
        "in which it is fastest.",
        sides=(
            Side(OURS, encode_ours),
            Side("tiktoken", encode_tiktoken, "tiktoken"),
            Side("tokenizers", partial(encode_tokenizers, True), "tokenizers"),
        ),
        check=check_ids,
        goals=(
            Ratio(beside=("tiktoken",), at_least=1.0),
            Ratio(beside=("tokenizers",), at_least=4.0),
        ),
        prepare=write_prose,
        unable=no_vocabulary,
    ),
    Row(
        name="encode-gpt2-2-workers",
        what="the same with 2 workers",
        unit="MB/s",
        how=f"{MEGABYTES}, from memory to memory, several threads in parts of 100 kB (tokenizers 1 kB); "
        "ours also as `glassgpt prepare` does it, from a file to a dataset on disk.",
        sides=(
            Side(OURS, partial(encode_ours_threads, 2)),
            Side(f"{OURS}, file to dataset", partial(prepare_ours, 2)),
            Side("tiktoken, one thread", encode_tiktoken, "tiktoken"),
            Side("tiktoken, all cores", encode_tiktoken_threads, "tiktoken"),
            Side("tokenizers, all cores", partial(encode_tokenizers, False), "tokenizers"),
        ),
        check=check_ids,
        goals=(Ratio(beside=("tiktoken, one thread",), at_least=1.8),),
        prepare=write_prose,
        unable=no_vocabulary,
    ),
]
