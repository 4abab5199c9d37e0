"""Imports only point back up the path, and PyTorch waits until it is used."""

import ast
import os
import re
import subprocess
import sys

import pytest

from tests.house.repository import ROOT, SOURCE

# One line, one level. What stands lower may import what stands higher or beside it.
ORDER = [
    {"errors", "checks", "lazy", "storage", "style", "hardware"},
    {"tokenizers"},
    {"data"},
    {"embeddings"},
    {"model"},
    {"decoding"},
    {"generation"},
    {"training"},
    {"pretrained"},
    {"inspection"},
    {"cli", "__main__"},
    {"by_hand"},  # imported by no other, as nothing stands below it
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}

# GPT.from_pretrained, the one door that everybody expects on the model, opens when it is called.
DOORS = {("model", "pretrained")}


def import_problems(module: str, source: str) -> list[str]:
    """The imports in `source`, of the module named `module`, that point down the path."""
    here = module.split(".")[1]
    if here not in LEVEL:
        return [f"{module}: {here} has no place in ORDER"]
    tree = ast.parse(source)
    at_call = {node for function in functions(tree) for node in ast.walk(function)}
    problems = []
    for node in ast.walk(tree):
        for target in imported(node, module):
            there = target.split(".")[1]
            place = f"{module}:{node.lineno} imports {target}"
            if there not in LEVEL:
                problems.append(f"{place}: import it from the module that defines it")
            elif LEVEL[there] > LEVEL[here] and not (node in at_call and (here, there) in DOORS):
                problems.append(f"{place}: {there} stands below {here}")
    return problems


def functions(tree: ast.AST) -> list[ast.AST]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def imported(node: ast.AST, module: str) -> list[str]:
    """The modules of glassgpt that an import statement names; `__version__` may be had by all."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:  # relative: from .x, in a module whose package is all but its last part
            base = ".".join([*module.split(".")[: -node.level], *filter(None, [base])])
        names = [f"{base}.{alias.name}" for alias in node.names if alias.name != "__version__"]
    else:
        return []
    return [name for name in names if name.startswith("glassgpt.")]


def modules() -> list[tuple[str, str]]:
    """Each module of the library but its front door, by name, with its source."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = list(path.relative_to(SOURCE.parent).with_suffix("").parts)
        if parts != ["glassgpt", "__init__"]:
            found.append((".".join(parts), path.read_text(encoding="utf-8")))
    return found


def test_imports_only_point_back_up_the_path():
    problems = [problem for module, source in modules() for problem in import_problems(module, source)]

    assert len(modules()) > 20
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("glassgpt.data.shards", "from glassgpt.model.gpt import GPT"),
        ("glassgpt.data.shards", "import glassgpt.training"),
        ("glassgpt.data.shards", "from glassgpt import model"),
        ("glassgpt.data.shards", "from glassgpt import GPT"),
        ("glassgpt.data.shards", "from ..model import gpt"),
        ("glassgpt.data.shards", "def later():\n    from glassgpt.cli.main import main"),
        ("glassgpt.storage", "from glassgpt.tokenizers import load_tokenizer"),
        ("glassgpt.cli.demo", "from glassgpt.by_hand.bpe import train"),
        ("glassgpt.model.gpt", "from glassgpt.pretrained import gpt2"),
        ("glassgpt.utils", "import os"),
    ],
)
def test_an_import_down_the_path_is_found(module, source):
    assert import_problems(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("glassgpt.data.shards", "from glassgpt.tokenizers import load_tokenizer"),
        ("glassgpt.data.shards", "from .batches import Batches"),
        ("glassgpt.data.__init__", "from . import batches"),
        ("glassgpt.cli.main", "from glassgpt import __version__"),
        ("glassgpt.model.gpt", "def from_pretrained():\n    from glassgpt.pretrained import gpt2"),
    ],
)
def test_an_import_up_the_path_is_allowed(module, source):
    assert import_problems(module, source) == []


def test_the_architecture_lists_the_folders_in_the_order_of_the_imports():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed = [
        name
        for row in re.findall(r"^\| ((?:`[a-z_]+(?:/|\.py)` ?)+)\|", text, re.MULTILINE)
        for name in re.findall(r"`(\w+)(?:/|\.py)`", row)
    ]
    built = {
        path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    assert set(listed) == built - {"__init__", "__main__"}
    assert listed == sorted(listed, key=LEVEL.__getitem__)


@pytest.mark.parametrize(
    "program",
    [
        "import glassgpt",
        "from glassgpt import tokenizers, data, model, generation, training",
        "from glassgpt.cli.main import main; main(['--help'])",
        "from glassgpt.cli.main import main; main(['--version'])",
    ],
)
def test_pytorch_is_not_imported_before_it_is_used(program):
    command = [sys.executable, "-c", program + "; import sys; sys.exit('torch' in sys.modules)"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
