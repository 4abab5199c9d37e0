"""Text: whole characters, no stop string ever shown, and each prompt as if it were alone."""

import dataclasses
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import GenerationError
from glassgpt.generation import SamplingConfig, complete, generate, generate_text
from glassgpt.model import GPT, ModelConfig
from glassgpt.tokenizers import BPETokenizer, CharTokenizer, SimpleTokenizerV1, SimpleTokenizerV2

BYTES = BPETokenizer([])  # every byte is a token, 256 is the end of text
END = BYTES.end_of_text_id


class ScriptedGPT(GPT):
    """A model that says what it is told to: row r's new token i is scripts[r][i], then the end of text."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(
            ModelConfig(
                vocab_size=vocab_size, d_model=vocab_size, n_heads=1, n_layers=1, tied_embeddings=False
            )
        )
        torch.nn.init.eye_(self.head.weight)

    def hidden(self, token_ids, cache=None):
        cache.advance(token_ids.shape[1])
        says = [script[self.n_steps] if self.n_steps < len(script) else END for script in self.scripts]
        self.n_steps += 1
        scores = torch.zeros(*token_ids.shape, self.config.vocab_size)
        scores[range(len(says)), -1, says] = 9.0
        return scores


scripted_gpt = functools.cache(ScriptedGPT)


def scripted(vocab_size: int, scripts: list[list[int]]) -> ScriptedGPT:
    model = scripted_gpt(vocab_size)
    model.scripts, model.n_steps = scripts, 0
    return model


GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=99)


def pieces_of(text: str | bytes, stop: tuple[str, ...] = (), **changes) -> list[str]:
    """How `text` comes out when the model says it byte by byte."""
    data = text.encode() if isinstance(text, str) else text
    sampling = dataclasses.replace(GREEDY, stop=stop, **changes)
    return list(generate_text(scripted(257, [list(data)]), BYTES, "?", sampling))


def test_a_character_comes_whole_and_at_once():
    assert pieces_of("añ€🙂!") == ["a", "ñ", "€", "🙂", "!"]


def test_bytes_that_are_no_character_become_a_replacement_and_an_unfinished_one_is_dropped():
    assert pieces_of(b"a\xffb") == ["a", "\ufffd", "b"]
    assert pieces_of("ab🙂", max_new_tokens=5) == ["a", "b"]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=23))
def test_pieces_joined_are_the_text(text):
    assert "".join(pieces_of(text, max_new_tokens=100)) == text


def test_a_stop_string_is_never_shown_and_ends_the_text():
    assert pieces_of("one\n\nUser: two", ("\n\nUser:",)) == ["o", "n", "e"]
    assert pieces_of("###", ("###",)) == []
    assert pieces_of("x🙂y", ("🙂",)) == ["x"]


def test_what_might_become_a_stop_string_waits_and_is_shown_when_it_does_not():
    assert pieces_of("a##b###c", ("###",)) == ["a", "##b"]
    assert pieces_of("aabaac", ("aac",)) == ["aab"]
    assert pieces_of("ends in ##", ("###",))[-1] == "##"


def test_the_stop_string_that_is_complete_first_counts():
    assert "".join(pieces_of("xabcd", ("abcd", "bc"))) == "xa"
    assert "".join(pieces_of("xabcd", ("bc", "abc"))) == "x"
    one_token = BPETokenizer([(97, 98), (99, 100), (256, 257)])  # abcd
    model = scripted(260, [[*b"x", 258, one_token.end_of_text_id]])
    assert complete(model, one_token, "?", dataclasses.replace(GREEDY, stop=("abcd", "bc"))) == "xa"


@pytest.fixture(scope="module")
def long_tokens() -> BPETokenizer:
    return BPETokenizer.train(["abab abcb bcab ababab abcbcab"] * 3, 270)


@settings(max_examples=60, deadline=None)
@given(
    text=st.text("abc ", min_size=1, max_size=19),
    stop=st.lists(st.text("abc ", min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_the_end_does_not_depend_on_how_the_text_is_cut_into_tokens(long_tokens, text, stop):
    sampling = dataclasses.replace(GREEDY, stop=stop)
    model = scripted(long_tokens.vocab_size, [[*long_tokens.encode(text), long_tokens.end_of_text_id]])
    shown = complete(model, long_tokens, "?", sampling)
    assert shown == "".join(pieces_of(text, stop))
    ends = sorted((text.find(s) + len(s), text.find(s)) for s in stop if s in text)
    assert shown == (text[: ends[0][1]] if ends else text)


def test_generation_stops_with_the_stop_string():
    model = scripted(257, [list(b"ab.cd"), list(b".")])
    assert list(generate_text(model, BYTES, ["?", "?"], dataclasses.replace(GREEDY, stop=(".",)))) == [
        ["a", ""],
        ["b", ""],
    ]
    assert model.n_steps == 3  # the third token ended the last row


def test_the_end_of_text_ends_a_row_and_what_it_held_is_shown():
    model = scripted(257, [list(b"a#"), list(b"b###c"), list(b"defg")])
    steps = list(generate_text(model, BYTES, ["1", "22", "333"], dataclasses.replace(GREEDY, stop=("###",))))
    assert ["".join(row) for row in zip(*steps, strict=True)] == ["a#", "b", "defg"]
    assert steps[2] == ["#", "", "f"]


@pytest.mark.parametrize("words", [SimpleTokenizerV1, SimpleTokenizerV2])
@pytest.mark.parametrize(
    "text",
    ["I don't know, do I?", "He said 'no' (twice) and \"yes\", the boys' choice -- James's.", "it ' s"],
)
def test_words_are_spaced_as_in_the_decoded_whole(words, text):
    tokenizer = words.train("Well: " + text)
    for n_prompt in (1, 2):
        ids = tokenizer.encode("Well: " + text)
        model = scripted(300, [ids[n_prompt:]])
        sampling = dataclasses.replace(GREEDY, max_new_tokens=len(ids) - n_prompt)
        prompt = tokenizer.decode(ids[:n_prompt])
        assert prompt + complete(model, tokenizer, prompt, sampling) == tokenizer.decode(ids)
    # A stop string may lie in the word that was held to the last.
    last = tokenizer.decode(ids[-1:])
    stopped = dataclasses.replace(sampling, stop=(last,))
    assert last not in complete(scripted(300, [ids[2:]]), tokenizer, prompt, stopped)


SAMPLED = SamplingConfig(max_new_tokens=17, seed=3)


def test_a_batch_of_prompts_equals_each_alone(make_model):
    model = make_model(vocab_size=257, context_length=13)
    prompts = ["héllo", "a", "", "two words"]
    together = complete(model, BYTES, prompts, SAMPLED)
    for row, prompt in enumerate(prompts):
        sampling = dataclasses.replace(SAMPLED, seed=3 + row)
        assert complete(model, BYTES, prompt, sampling) == together[row]
        assert "".join(generate_text(model, BYTES, prompt, sampling)) == together[row]


def test_an_empty_prompt_starts_from_the_end_of_text(make_model):
    model = make_model(vocab_size=257)
    ids = list(generate(model, [END], SAMPLED, stop_token_ids=[END]))
    text = BYTES.decode_bytes(ids).decode(errors="replace")
    assert complete(model, BYTES, "", SAMPLED).rstrip("\ufffd") == text.rstrip("\ufffd")


def test_an_empty_prompt_needs_an_end_of_text(make_model):
    letters = CharTokenizer.train(["abc"])
    with pytest.raises(
        GenerationError, match=r"^Prompt 1 has no tokens, and this tokenizer has no end-of-text"
    ):
        generate_text(make_model(), letters, ["a", ""])
    with pytest.raises(GenerationError, match=r"^The prompt has no tokens, and this tokenizer"):
        complete(make_model(), letters, "")


def test_a_tokenizer_larger_than_the_model_is_refused(make_model):
    with pytest.raises(GenerationError) as caught:
        generate_text(make_model(), BYTES, "a")
    assert str(caught.value) == (
        "This is a tokenizer that does not belong to the model: it has 257 tokens, the model's vocab_size is "
        "31. Use the tokenizer.json beside the weights."
    )


def test_ids_beyond_the_tokenizers_vocabulary_are_never_drawn(make_model):
    tokenizer = CharTokenizer.train(["abcde"])
    wild = SamplingConfig(temperature=50.0, max_new_tokens=200, seed=1)
    assert set(complete(make_model(), tokenizer, "a", wild)) == set("abcde")


def test_special_tokens_in_a_prompt_are_text_unless_allowed(make_model):
    model = make_model(vocab_size=257, context_length=29)
    prompt = "<|endoftext|>ab"
    as_token = complete(model, BYTES, prompt, SAMPLED, allow_special=True)
    assert as_token != complete(model, BYTES, prompt, SAMPLED)
    with pytest.raises(GenerationError, match=r"^The prompt has 15 tokens; this model's context"):
        generate_text(make_model(vocab_size=257), BYTES, prompt)
    assert generate_text(make_model(vocab_size=257), BYTES, prompt, allow_special=True)
