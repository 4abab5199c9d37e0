"""What README and the help texts tell people to type is what the command takes; their Python runs."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from glassgpt.cli.main import COMMANDS, HELP
from glassgpt.cli.parsing import parse, take_option
from glassgpt.training.config import TrainConfig

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
OPTIONS = {
    "demo": "DemoOptions",
    "prepare": "PrepareOptions",
    "train": "TrainConfig",
    "generate": "GenerateOptions",
    "download": "DownloadOptions",
    "inspect": "InspectOptions",
    "convert": "ConvertOptions",
    "info": "InfoOptions",
}


def command_lines():
    """Every line that begins with glassgpt, in README's shell blocks, the help, and each word's examples."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    blocks += [HELP.partition("Where to start:")[2]]
    blocks += [
        importlib.import_module(f"glassgpt.cli.{word}").ABOUT.partition("Examples:")[2] for word in COMMANDS
    ]
    found = re.findall(r"(?:^|\| )\s*glassgpt (.+?)(?:\s{3,}.*)?$", "\n".join(blocks), re.MULTILINE)
    return sorted(set(found))


def test_there_are_lines_to_check():
    lines = command_lines()
    assert len(lines) > 15
    assert {line.split()[0] for line in lines} >= set(COMMANDS)


@pytest.mark.parametrize("line", command_lines())
def test_what_people_are_told_to_type_is_understood(line):
    word, *arguments = shlex.split(line, comments=True)
    if word == "COMMAND" or arguments == ["--help"]:
        return
    _, arguments = take_option(arguments, "--resume")
    _, arguments = take_option(arguments, "--config")
    module = importlib.import_module(f"glassgpt.cli.{word}")
    parse(getattr(module, OPTIONS[word]), arguments, word=word, about="")


def test_the_python_in_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "cache"))
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert (tmp_path / "runs" / "tiny" / "loss.png").is_file()
    assert capsys.readouterr().out.strip()


def test_the_training_configuration_is_what_the_train_command_takes():
    assert importlib.import_module("glassgpt.cli.train").TrainConfig is TrainConfig
