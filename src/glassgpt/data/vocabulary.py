"""The tokenizer that a name stands for, trained on a corpus where it has to be."""

import difflib
from pathlib import Path

from glassgpt.data.corpora import Corpus
from glassgpt.data.split import parts, plan_split
from glassgpt.errors import TokenizerError
from glassgpt.tokenizers import BPETokenizer, CharTokenizer, Tokenizer, load_tokenizer

TOKENIZER_NAMES = ("bpe", "char", "gpt2")


def make_tokenizer(
    name: str, corpus: Corpus, *, vocab_size: int, val_fraction: float, progress: bool = True
) -> Tokenizer:
    """The tokenizer `name`: bpe or char (made for `corpus`), gpt2, or the path of a tokenizer.json.

    bpe learns from the text that `prepare` will train on, and never sees what is held out; `vocab_size`
    is its size. char is the alphabet of the whole corpus, so that each of its characters has an id.

    Raises DataError for a corpus without text, TokenizerError for a name that stands for nothing and
    for a file that is no tokenizer.
    """
    if name == "bpe":
        split = plan_split(corpus, val_fraction, progress=False)
        train_texts = (part.text for part in parts(corpus, split) if not part.is_val)
        return BPETokenizer.train(train_texts, vocab_size, progress=progress)
    if name == "char":
        return CharTokenizer.train(piece.text for piece in corpus.pieces())
    if name == "gpt2":
        return BPETokenizer.gpt2()
    path = Path(name).expanduser()
    if not path.exists():
        near = difflib.get_close_matches(name, TOKENIZER_NAMES, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        raise TokenizerError(
            f"There is no tokenizer {name!r}.{guess} Give {', '.join(TOKENIZER_NAMES)}, or the path of a "
            "tokenizer.json."
        )
    return load_tokenizer(path)
