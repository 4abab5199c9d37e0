"""Text ↔ token ids.

    words         SimpleTokenizerV1, SimpleTokenizerV2   what a token is, and what to do with unknown words
    characters    CharTokenizer                          nothing is unknown in an alphabet that was seen whole
    byte pairs    BPETokenizer                           lossless for any text, and GPT-2's own

`load_tokenizer` reads back what any of them saved; `pieces` shows how a text is cut.
"""

from typing import TYPE_CHECKING

from glassgpt.lazy import lazy_exports

if TYPE_CHECKING:
    from glassgpt.tokenizers.bpe import BPETokenizer as BPETokenizer
    from glassgpt.tokenizers.characters import CharTokenizer as CharTokenizer
    from glassgpt.tokenizers.files import load_tokenizer as load_tokenizer
    from glassgpt.tokenizers.interface import Tokenizer as Tokenizer
    from glassgpt.tokenizers.interface import pieces as pieces
    from glassgpt.tokenizers.simple import SimpleTokenizerV1 as SimpleTokenizerV1
    from glassgpt.tokenizers.simple import SimpleTokenizerV2 as SimpleTokenizerV2

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "bpe": ["BPETokenizer"],
        "characters": ["CharTokenizer"],
        "files": ["load_tokenizer"],
        "interface": ["Tokenizer", "pieces"],
        "simple": ["SimpleTokenizerV1", "SimpleTokenizerV2"],
    },
)
