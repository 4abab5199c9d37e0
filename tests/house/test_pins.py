"""constraints.txt pins everything that is installed, and nothing else."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.repository import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and line[0] != "#"
]
EXTRAS = PROJECT["project"]["optional-dependencies"]
PINS = {canonicalize_name(Requirement(line).name): line for line in LINES}


def named_packages() -> list[str]:
    """The requirements in pyproject.toml, extras and build backend included."""
    lists = [PROJECT["build-system"]["requires"], PROJECT["project"]["dependencies"], *EXTRAS.values()]
    return [line for lines in lists for line in lines]


def needed_packages() -> tuple[set[str], set[str]]:
    """The named packages and what they need in turn, on any system; and which of them are not installed."""
    needed, absent = set(), set()
    waiting = [Requirement(line) for line in named_packages()]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for part in {name, *(f"{name}[{extra}]" for extra in requirement.extras)} - needed:
            needed.add(part)
            extra = part[len(name) + 1 : -1]
            try:
                lines = distribution(name).requires or []
            except PackageNotFoundError:
                absent.add(name)
            else:
                waiting += [r for r in map(Requirement, lines) if applies(r, extra)]
    return {part for part in needed if "[" not in part and not is_cuda(part)}, absent


def is_cuda(name: str) -> bool:
    """PyTorch's CUDA build names the versions of CUDA itself."""
    return name.startswith(("nvidia-", "cuda-", "triton"))


def applies(requirement: Requirement, extra: str) -> bool:
    """Whether a package's `requirement` holds with `extra` on some system that we support or may support."""
    if requirement.marker is None:
        return True
    systems = [
        {"sys_platform": platform, "platform_system": system, "os_name": os_name}
        for platform, system, os_name in [
            ("linux", "Linux", "posix"),
            ("darwin", "Darwin", "posix"),
            ("win32", "Windows", "nt"),
        ]
    ]
    return any(
        requirement.marker.evaluate(
            {**system, "python_version": f"3.{minor}", "python_full_version": f"3.{minor}.5", "extra": extra}
        )
        for system in systems
        for minor in range(11, 15)
    )


def test_every_constraint_is_an_exact_version_given_once():
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in LINES)
    assert len(PINS) == len(LINES)


def test_every_package_that_pyproject_names_is_pinned_to_a_version_it_allows():
    for line in named_packages():
        named = Requirement(line)
        pin = Requirement(PINS[canonicalize_name(named.name)])

        assert named.specifier.contains(str(pin.specifier).removeprefix("=="))


def test_everything_that_is_installed_is_pinned():
    needed, _ = needed_packages()

    assert needed - set(PINS) == set()


def test_nothing_is_pinned_that_is_not_needed():
    needed, absent = needed_packages()
    # What the benchmarks' peers need, others need too; and three packages are for macOS and Windows alone.
    peers = {canonicalize_name(Requirement(line).name) for line in EXTRAS["bench"]}
    elsewhere = {"appnope", "colorama", "pywinpty"}
    if absent - peers - elsewhere:
        pytest.skip(f"needs every pinned package, which `make develop` installs: {', '.join(sorted(absent))}")

    assert set(PINS) - needed == {"pip"}


def test_the_pinned_pytorch_accepts_the_cpu_build_and_the_cuda_build():
    torch = Requirement(PINS["torch"])

    assert all(torch.specifier.contains(f"2.13.0{build}") for build in ("", "+cpu", "+cu130"))


def test_the_demo_needs_no_package_of_the_tests():
    runtime = {canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["dependencies"]}

    assert not runtime & {"transformers", "tokenizers", "pytest", "tensorboard", "mypy"}
