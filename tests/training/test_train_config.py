"""A training configuration checks itself, and survives being written down."""

import ast
import dataclasses
import inspect
import itertools
import json
import re
from pathlib import Path

import pytest

from glassgpt.errors import ConfigError
from glassgpt.model.config import ModelConfig
from glassgpt.training import config as module
from glassgpt.training.config import OptimizerConfig, ScheduleConfig, TrainConfig

CHANGED = TrainConfig(
    data="the-verdict",
    out=Path("elsewhere"),
    model=ModelConfig(d_model=96, n_heads=3, n_kv_heads=1, positions="rope", feedforward="swiglu"),
    optimizer=OptimizerConfig(lr=3e-4, betas=(0.8, 0.9), grad_clip=None),
    schedule=ScheduleConfig(kind="wsd", warmup_steps=7),
    micro_batch_size=5,
    tokens_per_step=15 * 1024,
    early_stop_evals=3,
)


@pytest.mark.parametrize("config", [TrainConfig(), CHANGED], ids=["defaults", "changed"])
def test_a_configuration_survives_json(config, tmp_path):
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path) == TrainConfig.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps=0 must be a whole number of at least 1."),
        ({"steps": True}, "steps=True must be a whole number of at least 1."),
        ({"steps": 1.5}, "steps=1.5 must be a whole number of at least 1."),
        ({"data": ""}, 'data="" names no corpus'),
        ({"tokenizer": ""}, 'tokenizer="" names none'),
        ({"val_fraction": 1.0}, "val_fraction=1.0 must lie between 0 and 1."),
        ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
        ({"precision": "float16"}, "precision='float16' is not one of auto, float32, bfloat16."),
        ({"compile": "yes"}, "compile='yes' is not one of auto, on, off."),
        ({"sample_every_steps": 0}, "sample_every_steps=0 must be a whole number of at least 1, or None."),
        ({"max_minutes": 0}, "max_minutes=0 must be a positive number, or None."),
        (
            {"micro_batch_size": 12, "model": ModelConfig(context_length=64), "tokens_per_step": 1000},
            "tokens_per_step=1,000 is not a multiple of micro_batch_size × context_length = 768; "
            "nearest: 768 or 1,536.",
        ),
        (
            {"micro_batch_size": 12, "model": ModelConfig(context_length=64), "tokens_per_step": 100},
            "nearest: 768.",
        ),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(change, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        TrainConfig(**change)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (OptimizerConfig, {"name": "sgd"}, "optimizer.name='sgd' is not one of adamw, muon."),
        (OptimizerConfig, {"lr": 0}, "optimizer.lr=0 must be a positive number."),
        (OptimizerConfig, {"lr": float("nan")}, "optimizer.lr=nan must be a positive number."),
        (OptimizerConfig, {"weight_decay": -0.1}, "optimizer.weight_decay=-0.1 must be at least 0."),
        (OptimizerConfig, {"betas": (0.9, 1.0)}, "optimizer.betas=(0.9, 1.0) must be two numbers"),
        (OptimizerConfig, {"betas": 0.9}, "optimizer.betas=0.9 must be two numbers"),
        (OptimizerConfig, {"grad_clip": 0}, "optimizer.grad_clip=0 must be a positive number, or None."),
        (
            ScheduleConfig,
            {"kind": "cubic"},
            "schedule.kind='cubic' is not one of cosine, linear, constant, wsd.",
        ),
        (ScheduleConfig, {"warmup_steps": -1}, "schedule.warmup_steps=-1 must be a whole number"),
        (ScheduleConfig, {"min_lr_ratio": 2}, "schedule.min_lr_ratio=2 must lie between 0 and 1."),
        (ScheduleConfig, {"decay_fraction": -1}, "schedule.decay_fraction=-1 must lie between 0 and 1."),
    ],
)
def test_a_nested_setting_out_of_range_is_named_with_its_section(section, change, message):
    name = "optimizer" if section is OptimizerConfig else "schedule"
    with pytest.raises(ConfigError, match=re.escape(message)):
        TrainConfig(**{name: section(**change)})


def test_all_problems_are_named_at_once():
    with pytest.raises(ConfigError) as raised:
        TrainConfig(steps=0, seed=-1, optimizer=OptimizerConfig(lr=-1))
    assert str(raised.value).startswith("The training configuration has 3 problems:")
    assert all(word in str(raised.value) for word in ("steps=0", "seed=-1", "optimizer.lr=-1"))


@pytest.mark.parametrize("place", [(), ("optimizer",), ("schedule",), ("model",)])
def test_an_unknown_field_is_refused_wherever_it_stands(place):
    values = TrainConfig().to_dict()
    inner = values
    for name in place:
        inner = inner[name]
    inner["learning_rat"] = 1
    with pytest.raises(ConfigError, match=r"unknown field.*learning_rat"):
        TrainConfig.from_dict(values)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model": 3}', '{"steps": 0}', "\udcff"])
def test_a_file_that_is_no_configuration_is_a_config_error(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        TrainConfig.load(path)


def test_a_folder_that_is_no_run_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"There is no .*config.json"):
        TrainConfig.load(tmp_path)


@pytest.mark.parametrize("section", [TrainConfig, OptimizerConfig, ScheduleConfig])
def test_every_field_has_a_line_of_help_under_it(section):
    (definition,) = ast.parse(inspect.getsource(section)).body
    helped = {
        field.target.id
        for field, help_text in itertools.pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(help_text, ast.Expr)
        and "\n" not in help_text.value.value
    }
    assert helped == {field.name for field in dataclasses.fields(section)}


def test_the_configuration_does_not_need_pytorch():
    assert "import torch" not in inspect.getsource(module)
