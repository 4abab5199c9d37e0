"""Chapter 11's one file computes what the library computes, from the same weights."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glassgpt.generation import SamplingConfig, generate
from glassgpt.model.config import GPT2_SIZES, gpt2
from glassgpt.model.folder import save_model
from glassgpt.pretrained.pt_file import write_pt
from tests.model.tiny import CONTEXT, EXACT, ROUNDING, T, V, tiny_config, tiny_ids, tiny_model

FILE = Path(__file__).parents[2] / "course" / "11_gpt2_complete_model.py"


@pytest.fixture(scope="module")
def chapter():
    spec = importlib.util.spec_from_file_location("chapter_11", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["chapter_11"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["chapter_11"]


@pytest.fixture
def model():
    return tiny_model(tiny_config(d_ff=None))


@pytest.fixture
def folder(model, tmp_path):
    save_model(model, None, tmp_path / "model")
    return tmp_path / "model"


@torch.no_grad()
def test_its_logits_equal_the_librarys(chapter, model, folder):
    logits, _ = chapter.load(folder)(tiny_ids())

    torch.testing.assert_close(logits, model(tiny_ids()), **ROUNDING)


@pytest.mark.parametrize("steps", [[T], [1] * T, [5, 1, T - 6]])
@torch.no_grad()
def test_its_cached_logits_equal_its_uncached_ones(chapter, folder, steps):
    theirs = chapter.load(folder)
    expected, _ = theirs(tiny_ids())

    cache, parts = None, []
    for part in tiny_ids().split(steps, dim=1):
        logits, cache = theirs(part, cache)
        parts.append(logits)

    torch.testing.assert_close(torch.cat(parts, dim=1), expected, **ROUNDING)


@pytest.mark.parametrize("form", ["pt", "state dict"])
@torch.no_grad()
def test_it_loads_a_pt_file_and_a_state_dict(chapter, model, tmp_path, form, monkeypatch):
    if form == "pt":
        write_pt(model, None, tmp_path / "model.pt")
    else:
        torch.save(model.state_dict(), tmp_path / "model.pt")
        sizes = {"vocab_size": V, "context_length": CONTEXT, "d_model": 60, "n_layers": 2, "n_heads": 6}
        monkeypatch.setitem(chapter.SIZES, "tiny", chapter.Config(**sizes))

    logits, _ = chapter.load(tmp_path / "model.pt")(tiny_ids())

    torch.testing.assert_close(logits, model(tiny_ids()), **ROUNDING)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_its_reader_of_safetensors_gives_every_bit(chapter, model, tmp_path, dtype):
    model.to(dtype).save_pretrained(tmp_path / "model")

    read = chapter.read_safetensors(tmp_path / "model" / "model.safetensors")

    expected = {name: weight.detach() for name, weight in model.named_parameters()}
    torch.testing.assert_close(read, expected, **EXACT)


def test_its_four_sizes_are_those_of_the_library(chapter):
    assert list(chapter.SIZES) == list(GPT2_SIZES)
    for size, config in chapter.SIZES.items():
        ours = gpt2(size)
        assert vars(config) == {name: getattr(ours, name) for name in vars(config)}
        with torch.device("meta"):
            n_parameters = sum(weight.numel() for weight in chapter.GPT2(config).parameters())
        assert n_parameters == {"124M": 124_439_808, "355M": 354_823_168, "774M": 774_030_080,
                                "1558M": 1_557_611_200}[size]  # fmt: skip


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-9}])
def test_it_writes_the_likeliest_tokens_as_the_library_does(chapter, model, how):
    with torch.no_grad():  # else one token is the likeliest everywhere
        model.position_embedding.weight.mul_(99)
        model.final_norm.bias.zero_()
    expected = list(generate(model, [3, 1], SamplingConfig(max_new_tokens=CONTEXT - 2, temperature=0.0)))

    theirs = chapter.build(model.state_dict(), chapter.config_from(model.config.to_dict()))

    assert list(chapter.generate(theirs, [3, 1], 99, **how)) == expected
    assert len(set(expected)) > 1


def test_the_same_seed_writes_the_same_and_another_does_not(chapter, folder):
    theirs = chapter.load(folder)

    first, again, other = (
        list(chapter.generate(theirs, [3], 12, seed=seed, temperature=3.0)) for seed in (1, 1, 2)
    )

    assert first == again != other


@pytest.mark.parametrize(
    ("how", "allowed"), [({"top_k": 2}, {0, 3}), ({"top_p": 0.6}, {0, 3}), ({"top_k": 99}, {0, 1, 2, 3, 4})]
)
def test_it_draws_only_from_what_top_k_and_top_p_leave(chapter, how, allowed):
    logits = torch.tensor([[0.4, 0.1, 0.05, 0.35, 0.1]]).log().expand(999, -1).clone()

    drawn = chapter.sample(logits, 1.0, how.get("top_k"), how.get("top_p"), torch.Generator().manual_seed(0))

    assert set(drawn.flatten().tolist()) == allowed


def test_a_head_that_differs_is_refused(chapter, model):
    weights = dict(model.state_dict())
    weights["head.weight"] = weights["head.weight"] + 1

    with pytest.raises(ValueError, match="differs from the token embedding"):
        chapter.build(weights, chapter.Config())


def test_a_model_that_is_no_gpt2_is_refused_naming_the_fields(chapter, tmp_path):
    save_model(tiny_model(tiny_config(norm="rmsnorm", n_kv_heads=3)), None, tmp_path / "model")

    with pytest.raises(ValueError, match=r"no GPT-2: norm=rmsnorm, d_ff=29, n_kv_heads=3\."):
        chapter.load(tmp_path / "model")


def test_it_runs(folder):
    def run(*arguments):
        command = [sys.executable, str(FILE), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run(folder, "--ids", 3, 1, "--n-new", 5, "--seed", 1)
    mistaken = run(folder.parent / "nowhere.pt")

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 5
    assert mistaken.returncode == 2
    assert "Traceback" not in mistaken.stderr
    assert "nowhere.pt" in mistaken.stderr
    assert "--top-p" in run("--help").stdout


def test_it_needs_pytorch_alone_and_fits_in_250_lines():
    text = FILE.read_text(encoding="utf-8")
    imports = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        )
    }

    assert imports - sys.stdlib_module_names == {"torch"}
    assert len(text.splitlines()) <= 250
