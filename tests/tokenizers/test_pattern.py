"""The cuts before byte-pair encoding: the same in both engines, in whole texts and in chunks."""

import pytest
import regex
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glassgpt.tokenizers import pattern
from glassgpt.tokenizers.pattern import LETTER, NUMBER, chunks, cut

# Few characters, one or more of each sort, so that every neighbourhood comes up.
TRICKY = st.text(alphabet="a's1!? \n\té٣日🌍\u0301\x1c\x85\u3000\u0558")


def everything():
    return "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF)


def as_tiktoken_sees(character_set):
    """The characters that Rust's engine finds in a set, read back from byte-level ids."""
    bytes_alone = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("set", pat_str=character_set, mergeable_ranks=bytes_alone, special_tokens={})
    return set(bytes(encoding.encode_ordinary(everything())).decode("utf-8"))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(LETTER, r"\p{L}"), (NUMBER, r"\p{N}"), (r"\s", r"\s")],
    ids=["letters", "numbers", "space"],
)
def test_both_engines_sort_every_character_as_gpt2s_pattern_in_tiktoken_does(ours, theirs):
    expected = as_tiktoken_sees(theirs)
    assert set(regex.findall(ours, everything(), regex.V1)) == expected
    assert as_tiktoken_sees(ours) == expected


@given(st.text(alphabet=st.characters(max_codepoint=127)))
@settings(deadline=None)
def test_the_ascii_pattern_cuts_as_the_general_one(text):
    assert cut(text) == pattern._PIECE.findall(text)


@given(TRICKY)
@settings(deadline=None)
def test_the_pieces_are_the_text(text):
    assert "".join(cut(text)) == text


def test_the_pieces_of_a_sentence():
    assert cut("I'm sure it's  12am--\n\tno?") == [
        *("I", "'m", " sure", " it", "'s", " ", " 12", "am", "--", "\n", "\t", "no", "?"),
    ]


@given(TRICKY, st.integers(min_value=0, max_value=7))
@example("it''s", 1)
@example("  a", 1)
@example("!'sa", 1)
@settings(deadline=None, max_examples=500)
def test_chunks_are_cut_as_the_whole_text_is(text, n_characters):
    assert [piece for chunk in chunks(text, n_characters) for piece in cut(chunk)] == cut(text)
    assert all(len(chunk) > n_characters for chunk in list(chunks(text, n_characters))[:-1])


def test_chunks_of_common_text_are_short():
    text = "to be, or not to be: " * 101
    assert max(map(len, chunks(text, 53))) <= 53 + len(", not")
