"""Training: the same merges as by hand, whatever the text."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tokenizers
from glassgpt.by_hand import bpe as by_hand
from glassgpt.errors import TokenizerError
from glassgpt.tokenizers import BPETokenizer
from glassgpt.tokenizers.bpe_training import learn_merges
from glassgpt.tokenizers.pattern import cut
from glassgpt.tokenizers.piece_counts import count_pieces


def trained(texts, n_merges):
    return learn_merges(count_pieces(texts), n_merges)


@given(st.lists(st.text(alphabet="ab é"), max_size=7), st.integers(min_value=0, max_value=23))
@example(["aaaaa aaaa aaa aa"], 7)
@example(["baaab aaab"], 7)
@settings(deadline=None, max_examples=200)
def test_the_merges_are_those_learnt_by_hand(texts, n_merges):
    assert trained(texts, n_merges) == by_hand.train(texts, n_merges)


def test_the_merges_of_a_story_are_those_learnt_by_hand(cache):
    text = (cache / "corpora" / "the-verdict.txt").read_text(encoding="utf-8")[:5003]
    assert trained(text, 53) == by_hand.train([text], 53)


def test_the_merges_are_those_of_the_tokenizers_package(cache):
    text = (cache / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8")[:300_007]
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    peer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    # It numbers its alphabet in the order of the characters, so byte b is given to it as character 256 + b.
    alphabet = [chr(256 + byte) for byte in range(256)]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=256 + 1009, initial_alphabet=alphabet, show_progress=False
    )
    written = (" ".join("".join(alphabet[byte] for byte in piece.encode()) for piece in cut(text)),)
    peer.train_from_iterator(written, trainer)

    ours = BPETokenizer(trained(text, 1009), special_tokens=())
    theirs = sorted(peer.get_vocab().items(), key=lambda entry: entry[1])
    assert [ours.decode_bytes([token_id]) for token_id in range(ours.vocab_size)] == [
        bytes(ord(character) - 256 for character in token) for token, _ in theirs
    ]


def test_special_tokens_divide_the_text_and_are_never_merged():
    text = "ab<|end|>ab<|end|>ab"
    assert count_pieces(text, ["<|end|>"]) == {"ab": 3}
    tokenizer = BPETokenizer.train(text, 300, special_tokens=("<|end|>",))
    assert tokenizer.merges == [(ord("a"), ord("b"))]
    assert tokenizer.special_tokens == {"<|end|>": 257}


def test_a_vocabulary_is_smaller_than_asked_when_nothing_is_left_to_merge():
    assert BPETokenizer.train("ab ab", 1009).vocab_size == 256 + 2 + 1


def test_texts_are_taken_one_by_one_from_a_generator():
    seen = []

    def texts():
        for text in ["one", "two", "one two"]:
            seen.append(text)
            yield text

    assert BPETokenizer.train(texts(), 263).merges == by_hand.train(["one", "two", "one two"], 6)
    assert seen == ["one", "two", "one two"]


def test_one_string_is_one_text_and_not_its_characters():
    assert BPETokenizer.train("abab", 260).merges == BPETokenizer.train(["abab"], 260).merges != []


@pytest.mark.parametrize(
    ("texts", "vocab_size", "special_tokens", "message"),
    [
        ("text", 256, ("<|endoftext|>",), "vocab_size=256 is too small: .* at least 257"),
        ("", 300, (), "no text to learn"),
        ([], 300, (), "no text to learn"),
        (["fine", "bad \ud800"], 300, (), r"lone surrogate, U\+D800, at position 4 of 5"),
        ("text", 300, ("<|a|>", "<|a|>"), "different strings"),
        ("text", 300, ("",), "not empty"),
    ],
)
def test_training_that_cannot_be_says_why(texts, vocab_size, special_tokens, message):
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer.train(texts, vocab_size, special_tokens=special_tokens)
