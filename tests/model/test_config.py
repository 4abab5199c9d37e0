"""A configuration is checked as a whole before anything is built from it."""

import dataclasses
import json

import jaxtyping
import pytest

from glassgpt.errors import ConfigError
from glassgpt.model.config import ModelConfig, gpt2
from tests.model.tiny import CHOICES, tiny_config


@pytest.fixture(autouse=True)
def _configuration_sees_every_value():
    """The type checks that tests add to signatures would answer before the configuration does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_widths_that_do_not_divide_name_the_nearest_that_do():
    with pytest.raises(ConfigError) as error:
        ModelConfig(d_model=100, n_heads=12)

    assert str(error.value) == "d_model=100 is not divisible by n_heads=12; nearest: 96 or 108."


WHOLE = "must be a whole number of at least"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        *(({name: value}, f"{name}={value!r} {WHOLE} 1.") for value in (0, -1, 1.5, "2", True, None)
          for name in ("context_length", "d_model", "n_layers", "n_heads")),
        *(({"vocab_size": value}, f"vocab_size={value!r} {WHOLE} 0.")
          for value in (-1, 1.5, "2", True, None)),
        *(({name: value}, f"{name}={value!r} {WHOLE} 1, or None.") for value in (0, -1, 1.5, "2", True)
          for name in ("n_kv_heads", "d_ff", "attention_window")),
        *(({name: value}, f"{name}={value!r} must be True or False.") for value in (0, 1, "no", None)
          for name in ("bias", "qkv_bias", "tied_embeddings")),
        *(({name: value}, f"{name}={value!r} must be a positive number.")
          for value in (0, -1e-5, float("inf"), float("nan"), "1", True, None)
          for name in ("norm_eps", "rope_theta")),
        *(({"dropout": value}, f"dropout={value!r} must be at least 0 and below 1.")
          for value in (-0.1, 1, 1.5, float("nan"), "0", True, None)),
        ({"norm": "batchnorm"}, "norm='batchnorm' is not one of layernorm, rmsnorm."),
        ({"norm": None}, "norm=None is not one of layernorm, rmsnorm."),
        ({"positions": "sine"}, "positions='sine' is not one of learned, rope, none."),
        ({"feedforward": "relu"}, "feedforward='relu' is not one of gelu, swiglu."),
        ({"d_model": 7, "n_heads": 12}, "d_model=7 is not divisible by n_heads=12; nearest: 12."),
        (
            {"d_model": 15, "n_heads": 3, "positions": "rope"},
            "d_head=5 (d_model / n_heads) is odd, but rope turns pairs; make it even.",
        ),
        (
            {"n_heads": 12, "n_kv_heads": 5},
            "n_heads=12 is not divisible by n_kv_heads=5; use one of 1, 2, 3, 4, 6, 12.",
        ),
        ({"n_heads": 3, "n_kv_heads": 6}, "n_heads=3 is not divisible by n_kv_heads=6; use one of 1, 3."),
    ],
    ids=str,
)  # fmt: skip
def test_every_bad_value_has_its_message(choices, message):
    with pytest.raises(ConfigError) as error:
        ModelConfig(**choices)

    assert str(error.value) == message


def test_all_problems_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        ModelConfig(n_layers=0, norm="batchnorm", dropout=2)

    assert str(error.value) == (
        "The model configuration has 3 problems:\n"
        "  n_layers=0 must be a whole number of at least 1.\n"
        "  norm='batchnorm' is not one of layernorm, rmsnorm.\n"
        "  dropout=2 must be at least 0 and below 1."
    )


def test_problems_between_settings_are_named_at_once_too():
    with pytest.raises(ConfigError) as error:
        ModelConfig(d_model=100, n_heads=12, n_kv_heads=5)

    assert str(error.value).startswith("The model configuration has 2 problems:\n  d_model=100 is")


@pytest.mark.parametrize("config", [*(tiny_config(**choices) for choices in CHOICES.values()), gpt2("774M")])
def test_to_dict_through_json_and_from_dict_is_the_identity(config):
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_field_is_refused_by_name_and_the_known_ones_are_listed():
    with pytest.raises(
        ConfigError, match=r"unknown fields: moe, n_experts\. Known: .*context_length.*vocab_size"
    ):
        ModelConfig.from_dict({"n_layers": 2, "n_experts": 8, "moe": True})


def test_from_dict_checks_values():
    with pytest.raises(ConfigError, match="n_layers=0"):
        ModelConfig.from_dict({"n_layers": 0})


def test_a_configuration_never_changes():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_config().n_layers = 5


def test_fields_are_given_by_name():
    with pytest.raises(TypeError):
        ModelConfig(50_257)


@pytest.mark.parametrize(
    ("feedforward", "d_model", "width"),
    [("gelu", 60, 240), ("swiglu", 60, 192), ("swiglu", 24, 64), ("swiglu", 4096, 10_944)],
)
def test_the_feed_forward_is_four_times_as_wide_or_as_large_as_that_in_whole_64s(feedforward, d_model, width):
    assert ModelConfig(d_model=d_model, n_heads=1, feedforward=feedforward).hidden_width == width


def test_d_ff_is_taken_as_it_is():
    assert ModelConfig(d_ff=7, feedforward="swiglu").hidden_width == 7


def test_an_unknown_size_of_gpt2_is_answered_with_the_four():
    with pytest.raises(ConfigError, match=r"no GPT-2 of size '1.5B'\. Sizes: 124M, 355M, 774M, 1558M\."):
        gpt2("1.5B")


def test_the_defaults_are_those_of_gpt2_124m_but_for_the_vocabulary():
    assert dataclasses.replace(ModelConfig(), vocab_size=50_257) == gpt2() == gpt2("124M")
