"""Chapter 07, the script that downloads GPT-2, run as a learner runs it, and against a small release."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from glassgpt.model import count_parameters, gpt2
from glassgpt.pretrained.gpt2_files import DATA, Expected, PublishedFile
from tests.data.misbehaving_server import Server, status
from tests.pretrained.release import serving, small_release

SCRIPT = Path(__file__).parents[2] / "course" / "07_download_gpt2_weights.py"


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"} | environment,
        check=False,
    )


@pytest.fixture
def chapter():
    spec = importlib.util.spec_from_file_location("chapter_07", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_help_tells_what_the_script_is_for():
    result = run("--help")
    assert result.returncode == 0
    assert "How do half a gigabyte of numbers get here" in result.stdout
    assert "--size" in result.stdout


def test_the_rehearsal_needs_no_network_and_shows_the_difference():
    result = run("--rehearse")
    assert result.returncode == 0, result.stderr
    assert "524,288 of 1,048,576 bytes, under the final name" in result.stdout
    assert "1,048,576 of 1,048,576 bytes, and the SHA-256 is right" in result.stdout
    assert "from byte 0, and, after the break, from byte 524,288" in result.stdout


def test_what_cannot_be_downloaded_is_one_line_and_no_success(tmp_path):
    with Server([status("404 Not Found")]) as server:
        result = run("--mirror", server.url, GLASSGPT_CACHE=str(tmp_path))
    assert result.returncode == 2
    assert re.fullmatch(r"07_download_gpt2_weights\.py: Cannot download .* 404 .*\n", result.stderr)
    assert "124,439,808 parameters of 4 bytes each" in result.stdout
    assert not list((tmp_path / "openai" / "gpt2" / "124M").iterdir())


def test_a_wrong_size_lists_the_right_ones():
    result = run("--size", "1B")
    assert result.returncode == 2
    assert result.stderr.strip().endswith("There is no GPT-2 of size '1B'. Sizes: 124M, 355M, 774M, 1558M.")


@pytest.mark.parametrize("size", ["124M", "355M", "774M", "1558M"])
def test_every_file_of_every_size_is_explained(chapter, size, capsys):
    chapter.explain(size)
    out = capsys.readouterr().out
    assert out.count("\n  ") == 7
    assert f"{count_parameters(gpt2(size)).total:,} parameters" in out


def test_what_came_is_looked_into(chapter, tmp_path, monkeypatch, capsys):
    files = small_release(tmp_path / "release", monkeypatch)
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "cache"))
    n_bytes = 4 * count_parameters(gpt2("355M")).total
    monkeypatch.setattr(
        chapter, "published_files", lambda _: [PublishedFile(DATA, "weights", Expected(n_bytes=n_bytes))]
    )
    with Server([serving(files)]) as server:
        assert chapter.main(["--size", "355M", "--mirror", server.url]) == 0
    out = capsys.readouterr().out
    assert f"What has come to {tmp_path / 'cache' / 'openai' / 'gpt2' / '355M'}" in out
    assert "'n_embd': 1024" in out
    assert "#version: 0.2; 1 merges; the first: a b" in out
    assert "57 fb 80 8b 24 75 47 db" in out
