"""SamplingConfig: what it refuses, and how it says so."""

import dataclasses
import math

import pytest

from glassgpt.errors import GenerationError
from glassgpt.generation import SamplingConfig


def check(**values):
    """What SamplingConfig(**values) checks; around the type checker of the tests, which would be first."""
    sampling = SamplingConfig()
    for name, value in values.items():
        object.__setattr__(sampling, name, value)
    sampling.__post_init__()
    return sampling


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens=-1 must be a whole number of at least 0."),
        ({"max_new_tokens": 2.5}, "max_new_tokens=2.5 must be"),
        ({"max_new_tokens": True}, "max_new_tokens=True must be"),
        ({"temperature": -0.1}, "temperature=-0.1 must be at least 0; 0 always takes the likeliest token."),
        ({"temperature": math.nan}, "temperature=nan must be"),
        ({"temperature": math.inf}, "temperature=inf must be"),
        ({"temperature": "hot"}, "temperature='hot' must be"),
        ({"top_k": 0}, "top_k=0 must be a whole number of at least 1, or None."),
        ({"top_k": 2.0}, "top_k=2.0 must be"),
        ({"top_p": 0}, "top_p=0 must be above 0 and at most 1, or None."),
        ({"top_p": 1.01}, "top_p=1.01 must be"),
        ({"min_p": -0.1}, "min_p=-0.1 must be from 0 to 1, or None."),
        ({"min_p": 1.5}, "min_p=1.5 must be"),
        ({"repetition_penalty": 0}, "repetition_penalty=0 must be from 0.01 to 100"),
        ({"repetition_penalty": 1e-40}, "repetition_penalty=1e-40 must be from 0.01 to 100"),
        ({"repetition_penalty": 1e40}, "repetition_penalty=1e+40 must be from 0.01 to 100"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0 to 2**63 - 1, or None."),
        ({"seed": 2**63}, "seed=9223372036854775808 must be"),
        ({"stop": "###"}, "stop='###' must be a tuple of strings"),
        ({"stop": (3,)}, "stop=(3,) must be a tuple of strings"),
        ({"stop": ("a", "")}, "stop=('a', '') has an empty string"),
        ({"truncate": "right"}, "truncate='right' must be 'left' or None."),
        ({"use_cache": 1}, "use_cache=1 must be True or False."),
        ({"speculate": None}, "speculate=None must be True or False."),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_its_value(setting, message):
    with pytest.raises(GenerationError) as caught:
        check(**setting)
    assert str(caught.value).startswith(message)


def test_all_problems_are_named_at_once():
    with pytest.raises(GenerationError) as caught:
        SamplingConfig(temperature=-1.0, top_k=0, top_p=2.0)
    assert str(caught.value) == (
        "The sampling configuration has 3 problems:\n"
        "  temperature=-1.0 must be at least 0; 0 always takes the likeliest token.\n"
        "  top_k=0 must be a whole number of at least 1, or None.\n"
        "  top_p=2.0 must be above 0 and at most 1, or None."
    )


@pytest.mark.parametrize(
    "setting",
    [
        {"max_new_tokens": 0},
        {"temperature": 0},
        {"top_k": 1},
        {"top_p": 1},
        {"min_p": 0},
        {"min_p": 1},
        {"repetition_penalty": 0.5},
        {"seed": 0},
        {"seed": 2**63 - 1},
        {"stop": ("\n",)},
        {"truncate": "left"},
    ],
)
def test_the_ends_of_each_range_are_allowed(setting):
    check(**setting)


def test_stop_strings_may_come_as_a_list_as_json_gives_them():
    assert check(stop=["a", "b"]) == SamplingConfig(stop=("a", "b"))


def test_a_configuration_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingConfig().temperature = 0.5


def test_top_k_above_the_vocabulary_is_refused_with_both_numbers():
    SamplingConfig(top_k=65).check_vocabulary(65)
    with pytest.raises(GenerationError, match=r"^top_k=66 is above vocab_size=65. Choose 1 to 65, or None.$"):
        SamplingConfig(top_k=66).check_vocabulary(65)
