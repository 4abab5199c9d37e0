"""tools/bootstrap.py: the right PyTorch, repair after an interruption, and messages that help."""

import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.house.repository import ROOT, run_make

CPU = [{"metadata": {"name": name, "version": "2.13.0+cpu"}} for name in ("torch", "sympy")]
PLAIN = [{"metadata": {"name": "torch", "version": "2.13.0"}}]  # as for a Mac
CUDA = [*PLAIN, {"metadata": {"name": "nvidia-cudnn-cu13", "version": "9.2"}}]
BUNDLED_CUDA = [{"metadata": {"name": "torch", "version": "2.13.0+cu130"}}]


@pytest.fixture
def tools(monkeypatch, tmp_path):
    """The modules of tools/, at work on an empty folder."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    import bootstrap
    import torch_build
    import venv_pip

    venv = tmp_path / ".venv"
    paths = {
        "ROOT": tmp_path,
        "VENV": venv,
        "PYTHON": venv / "bin" / "python",
        "LOG": venv / "log",
        "INSTALLING": venv / "installing",
        "STATE": venv / "state.json",
    }
    for module in (bootstrap, torch_build, venv_pip):
        for name, path in paths.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, path)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return bootstrap


def make_fake_venv(tools, program="exit 0"):
    """A `.venv` whose Python is a shell script."""
    tools.PYTHON.parent.mkdir(parents=True)
    tools.PYTHON.write_text(f"#!/bin/sh\n{program}\n")
    tools.PYTHON.chmod(0o755)
    (tools.VENV / "pyvenv.cfg").write_text(f"version = {sys.version_info[0]}.{sys.version_info[1]}.0\n")


@pytest.mark.parametrize(
    ("offered", "choice", "has_gpu", "from_cpu_index"),
    [
        (CPU, "auto", False, False),
        (PLAIN, "auto", False, False),
        (CUDA, "auto", False, True),
        (BUNDLED_CUDA, "auto", False, True),
        (CUDA, "auto", True, False),
        (CUDA, "cpu", True, True),
        (CPU, "cpu", True, False),
        (CUDA, "cuda", False, False),
    ],
)
def test_cuda_is_taken_only_for_a_gpu_or_on_request(tools, offered, choice, has_gpu, from_cpu_index):
    from torch_build import torch_source

    assert torch_source(offered, choice, has_gpu)[0] == from_cpu_index


def test_words_about_pytorch_say_what_comes_and_why(tools):
    from torch_build import torch_source

    assert "several gigabytes" in torch_source(CUDA, "auto", True)[1]
    assert "no NVIDIA GPU" in torch_source(CUDA, "auto", False)[1]
    assert "GPU will be idle" in torch_source(CPU, "auto", True)[1]
    assert "idle" not in torch_source(CPU, "auto", False)[1]


def test_cuda_on_request_is_an_error_where_pip_offers_none(tools):
    from torch_build import torch_source

    with pytest.raises(tools.SetupError, match=r"without CUDA, but TORCH=cuda was asked for"):
        torch_source(CPU, "cuda", True)


@pytest.mark.parametrize(
    ("offered", "n_installs", "from_cpu_index"), [(CUDA, 1, True), (CPU, 1, False), (CPU[1:], 0, False)]
)
def test_pytorch_is_installed_from_where_the_report_says(
    tools, monkeypatch, offered, n_installs, from_cpu_index
):
    import torch_build

    calls = []

    def fake_pip(*arguments):
        calls.append(arguments)
        if "--report" in arguments:
            report = arguments[arguments.index("--report") + 1]
            with open(report, "w", encoding="utf-8") as file:
                json.dump({"install": offered}, file)

    tools.VENV.mkdir()
    monkeypatch.setattr(torch_build, "pip", fake_pip)
    monkeypatch.setattr(torch_build, "has_nvidia_gpu", lambda: False)
    torch_build.install_torch("auto")

    assert {"--dry-run", "fast-deps"} < set(calls[0])  # asking downloads nothing
    assert len(calls) == 1 + n_installs
    assert all(call[-1] == "torch==2.13.0" for call in calls)
    assert (torch_build.CPU_INDEX in calls[-1]) == ("--no-deps" in calls[-1]) == from_cpu_index


def test_an_unreachable_cpu_index_names_the_way_around_it(tools, monkeypatch):
    import torch_build

    def fake_pip(*arguments):
        if "--report" not in arguments:
            raise tools.SetupError("pip failed")

    tools.VENV.mkdir()
    (tools.VENV / "glassgpt-torch.json").write_text(json.dumps({"install": CUDA}))
    monkeypatch.setattr(torch_build, "pip", fake_pip)
    monkeypatch.setattr(torch_build, "has_nvidia_gpu", lambda: False)

    with pytest.raises(tools.SetupError, match=r"(?s)pip failed.*TORCH=cuda takes what pip offers"):
        torch_build.install_torch("auto")


@pytest.mark.parametrize(
    ("choice", "has_gpu", "package", "wanted"),
    [
        ("auto", False, "nvidia-cudnn-cu13", False),
        ("auto", False, "nvidia_nccl_cu13", False),
        ("cpu", True, "cuda-bindings", False),
        ("auto", True, "cuda-bindings", True),
        ("cuda", False, "nvidia-cudnn-cu13", True),
        ("auto", False, "numpy", True),
    ],
)
def test_cuda_that_came_in_unwanted_is_an_error(tools, monkeypatch, choice, has_gpu, package, wanted):
    import torch_build

    monkeypatch.setattr(torch_build, "has_nvidia_gpu", lambda: has_gpu)
    sizes = {"torch": 7, package: 11}

    if wanted:
        torch_build.verify_torch(choice, sizes)
    else:
        with pytest.raises(tools.SetupError, match=package):
            torch_build.verify_torch(choice, sizes)


def test_a_failing_pip_is_its_last_lines_and_a_remedy(tools):
    make_fake_venv(tools, "for i in $(seq 30); do echo line $i; done; echo ConnectionError >&2; exit 1")

    with pytest.raises(tools.SetupError) as failure:
        tools.pip("install", "numpy")

    message = str(failure.value)
    assert "line 29\n" in message
    assert "line 9\n" not in message
    assert "ConnectionError\nThe network:" in message
    assert "line 9\n" in (tools.VENV / "log").read_text()


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("NewConnectionError(…)\nERROR: No matching distribution found for torch", "network"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build for this machine"),
        ("[Errno 13] Permission denied: '/x'", "folder of your own"),
        ("Segmentation fault", "make clean"),
    ],
)
def test_a_remedy_fits_the_failure(tools, output, advice):
    assert advice in tools.remedy(output)


@pytest.mark.parametrize(
    ("program", "stays"),
    [
        ("exit 1", False),
        ("echo Installing collected packages: numpy; exit 1", True),
        ("echo Installing collected packages: numpy; exit 0", False),
    ],
)
def test_the_mark_of_an_interruption_stays_only_while_packages_may_be_in_pieces(tools, program, stays):
    make_fake_venv(tools, program)
    with contextlib.suppress(tools.SetupError):
        tools.pip("install", "numpy")

    assert tools.INSTALLING.exists() == stays


def test_a_venv_is_made_anew_only_for_a_reason(tools):
    fresh = {"root": None, "torch": None, "stages": {}}
    known = {"root": str(tools.ROOT), "torch": "auto", "stages": {}}
    assert "none yet" in tools.why_anew(fresh, None)
    tools.VENV.mkdir()
    assert "no Python" in tools.why_anew(fresh, None)
    tools.VENV.rmdir()
    make_fake_venv(tools)

    assert tools.why_anew(fresh, None) is None  # somebody made it by hand
    assert tools.why_anew(known, None) is None
    assert tools.why_anew(known, "auto") is None
    assert "cpu" in tools.why_anew(known, "cpu")
    assert "moved here from /elsewhere" in tools.why_anew({**known, "root": "/elsewhere"}, None)
    (tools.VENV / "pyvenv.cfg").write_text("version = 3.9.18\n")
    assert "another Python" in tools.why_anew(known, None)
    tools.INSTALLING.touch()
    assert "interrupted" in tools.why_anew(known, None)


def test_a_second_set_up_does_nothing_until_the_packages_change(tools, monkeypatch, capsys):
    calls = []
    make_fake_venv(tools)
    monkeypatch.setattr(tools, "pip", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(tools, "install_torch", calls.append)
    monkeypatch.setattr(tools, "installed_sizes", lambda: {"torch": 5_000_000_000})

    def n_calls(stage):
        calls.clear()
        assert tools.main([stage]) == 0, capsys.readouterr().err
        return len(calls)

    assert n_calls("develop") == 4
    assert n_calls("develop") == n_calls("runtime") == 0
    assert "up to date" in capsys.readouterr().out
    pyproject = tools.ROOT / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + "\n[tool.other]\nline-length = 7\n")
    assert n_calls("runtime") == 0
    constraints = tools.ROOT / "constraints.txt"
    constraints.write_text(constraints.read_text().replace("numpy==", "numpy==1"))
    assert n_calls("runtime") == 4
    assert n_calls("runtime") == 0
    assert n_calls("develop") == 4
    pyproject.write_text(pyproject.read_text().replace('"numpy>=', '"numpy>=1'))
    assert n_calls("develop") == 4


def test_the_choice_of_pytorch_is_kept_until_another_is_made(tools, monkeypatch):
    choices, made = [], []
    make_fake_venv(tools)
    monkeypatch.setattr(tools, "pip", lambda *arguments: None)
    monkeypatch.setattr(tools, "install_torch", choices.append)
    monkeypatch.setattr(tools, "installed_sizes", dict)
    monkeypatch.setattr(tools, "make_venv", made.append)

    for arguments in (["runtime", "--torch", "cuda"], ["develop"], ["runtime", "--torch", "cpu"]):
        assert tools.main(arguments) == 0

    assert choices == ["cuda", "cuda", "cpu"]
    assert len(made) == 2  # for cuda, for cpu


def test_the_runtime_stage_installs_no_package_of_the_tests(tools):
    project = tools.read_project()
    runtime, develop = (tools.requirements(project, stage) for stage in ("runtime", "develop"))

    assert set(project["project"]["dependencies"]) < set(runtime) < set(develop)
    assert any(line.startswith("transformers") for line in set(develop) - set(runtime))


def test_an_old_python_can_read_that_it_is_too_old(tools):
    for path in (ROOT / "tools").glob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 7))

    with pytest.raises(tools.SetupError, match=r"needs Python 3\.11 to 3\.14; /usr/bin/python3 is 3\.9\.18"):
        tools.require_python((3, 9, 18), "/usr/bin/python3")
    assert [tools.fits((3, minor, 0)) for minor in (10, 11, 14, 15)] == [False, True, True, False]


def test_a_python_without_venv_is_told_what_to_install(tools, monkeypatch):
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name)

    with pytest.raises(tools.SetupError, match=r"apt install python3\.12-venv"):
        tools.require_python((3, 12, 1), "/usr/bin/python3")


@pytest.mark.parametrize(("error", "code"), [("SetupError", 1), ("KeyboardInterrupt", 130)])
def test_a_mistake_or_an_interruption_is_a_sentence(tools, monkeypatch, capsys, error, code):
    def fail(*arguments):
        raise {"SetupError": tools.SetupError("The disk is full."), "KeyboardInterrupt": KeyboardInterrupt()}[
            error
        ]

    monkeypatch.setattr(tools, "set_up", fail)

    assert tools.main(["runtime"]) == code
    said = capsys.readouterr().err
    assert "setup: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("fitting", "present", "arguments", "said"),
    [
        (["python3", "python3.12"], [], [], "python3 runs runtime"),
        (["python3.12"], ["python3"], [], "python3.12 runs runtime"),
        (["python3.12"], ["python3"], ["TORCH=cpu"], "python3.12 runs --torch cpu runtime"),
        (["python3", "python3.13"], [], ["PYTHON=python3.13"], "python3.13 runs runtime"),
        ([], ["python3"], [], "python3 runs runtime"),  # it says why it does not fit
        ([], [], [], "there is no python3 here"),
    ],
)
def test_make_finds_the_first_python_that_fits(tmp_path, fitting, present, arguments, said):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in fitting + present:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        fits = "exit 0" if name in fitting else "exit 1"
        program.write_text(
            f'#!/bin/sh\nshift\nif [ "$1" = --fits ]; then {fits}; fi\necho {name} runs "$@"\n'
        )
        program.chmod(0o755)
    done = run_make("setup", *arguments, folder=tmp_path, path=str(tmp_path / "bin"))

    assert said in (done.stdout + done.stderr).splitlines()[0]
    assert (done.returncode == 0) == bool(fitting + present)


def test_the_demo_does_not_set_up_the_tests():
    dry = [run_make("-n", name).stdout for name in ("demo", "test")]

    assert [("bootstrap.py  develop" in text, "bootstrap.py  runtime" in text) for text in dry] == [
        (False, True),
        (True, False),
    ]


@pytest.mark.parametrize("passes", [True, False])
def test_ci_checks_and_tests_with_a_copy_of_the_data_and_removes_it(tmp_path, passes):
    run, data, make = tmp_path / "clone/.ci/run", tmp_path / "shared/data/a.txt", tmp_path / "bin/make"
    for path in (run, data, make):
        path.parent.mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", run)
    data.write_text("text")
    make.write_text(
        f'#!/bin/sh\necho "$1 $GLASSGPT_CACHE $(cat "$GLASSGPT_CACHE/a.txt")"\nexit {int(not passes)}\n'
    )
    make.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "GLASSGPT_CACHE"}
    environment["PATH"] = f"{make.parent}:{environment['PATH']}"

    done = subprocess.run(
        ["bash", str(run)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    said = [line.split() for line in done.stdout.splitlines()]
    assert [word for word, _, _ in said] == (["check", "test", "course"] if passes else ["check"])
    assert {text for _, _, text in said} == {"text"}
    assert {os.path.exists(copy) for _, copy, _ in said} == {False}
    assert data.read_text() == "text"
    assert (done.returncode == 0) == passes
