"""tools/course: each fault of a chapter is found, and a chapter without fault passes."""

import importlib.util
import socket
import sys

import nbformat
import pytest

from tests.house.repository import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from course import __main__ as tool
from course import conventions, copies, quoted_numbers
from course.chapter import read_chapter

EXERCISE = """### {n}. Twice

What is it?

<details>
<summary>Solution</summary>

```python
assert 2 * half == 42
```

</details>"""


def prose(text):
    return nbformat.v4.new_markdown_cell(text)


def code(source, stdout=None):
    outputs = [] if stdout is None else [nbformat.v4.new_output("stream", name="stdout", text=stdout)]
    return nbformat.v4.new_code_cell(source, outputs=outputs, execution_count=1)


def chapter(*cells, exercises=None):
    """A notebook that keeps every convention, with `cells` in its middle."""
    exercises = [EXERCISE.format(n=n) for n in range(1, 5)] if exercises is None else exercises
    start = [prose("# 03. Halves\n\nHow much is half?"), code("half = 21\nprint(half)", "21\n")]
    end = [prose("## Exercises"), *map(prose, exercises), prose("## What we now know\n\nHalf is 21.")]
    return nbformat.v4.new_notebook(cells=[*start, *cells, *end])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "03_halves.ipynb"


def check(path, notebook, **options):
    nbformat.write(notebook, path)
    problems, _, _ = tool.check_chapter(path, options.pop("limit_seconds", 60.0), write=False, **options)
    return "\n".join(map(str, problems))


# ---- run for real ----


def test_a_chapter_without_fault_passes(path):
    assert check(path, chapter()) == ""


def test_writing_stores_the_outputs_of_the_run_and_leaves_out_the_solutions(path):
    notebook = chapter()
    notebook.cells[1].update(outputs=[], execution_count=None)
    nbformat.write(notebook, path)

    problems, _, _ = tool.check_chapter(path, 60.0, write=True)

    stored = read_chapter(path)
    assert problems == []
    assert stored.cells[1].outputs[0].text == "21\n"
    assert len(stored.cells) == len(notebook.cells)


@pytest.mark.parametrize(
    ("source", "stored", "words"),
    [
        ("1 / 0", None, "fails: ZeroDivisionError"),
        ("import warnings\nwarnings.warn('old')", None, "stderr"),
        ("print(end='')", None, "has no output"),
        ("print(half)", None, "gives stdout, where nothing is stored"),
        ("half", "21\n", "gives text/plain, where stdout is stored"),
        ("for _ in range(40): print(_)", "0\n", "prints 40 lines"),
        ("import tempfile; print(tempfile.gettempdir() + '/x')", "x\n", "this machine's"),
        ("import os; os._exit(1)", None, "kills the kernel"),
        ("import time; time.sleep(9)", None, "is where 4 seconds are over"),
        ("import urllib.request as r\nr.urlopen('http://192.0.2.1', timeout=2)", None, "network is off"),
        (
            "import urllib.request as r\nr.urlopen('http://example.org', timeout=2)",
            None,
            "the network is off",
        ),
    ],
    ids=["error", "warning", "silence", "new", "other", "long", "private", "dead", "slow", "address", "name"],
)
def test_a_cell_that_goes_wrong_is_found(path, source, stored, words):
    cell = code(source, stored)
    limit_seconds = 4.0 if "sleep" in source else 60.0

    assert words in check(path, chapter(prose("So:"), cell), limit_seconds=limit_seconds)


def test_a_solution_that_is_wrong_is_found_at_its_exercise(path):
    wrong = EXERCISE.format(n=4).replace("42", "43")
    exercises = [*(EXERCISE.format(n=n) for n in range(1, 4)), wrong]

    assert "cell 7: fails: AssertionError" in check(path, chapter(exercises=exercises))


def test_a_number_that_the_cell_no_longer_prints_is_found(path):
    notebook = chapter(prose("Half of it was 37."))

    assert "quotes '37'" in check(path, notebook)


# ---- form ----


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda cells: cells.insert(2, code("x = 1")), "prose stands between"),
        (lambda cells: cells[1].update(source="x = 1\n" * 25), "25 lines"),
        (lambda cells: cells[1].update(source="x = '" + "a" * 100 + "'"), "106 characters"),
        (lambda cells: cells[1].update(source=""), "is empty"),
        (lambda cells: cells[0].update(source="# Halves"), "does not begin with a heading"),
        (lambda cells: cells.append(prose("# More")), "more than one heading"),
        (lambda cells: cells.append(prose("## More")), "does not end with the sections"),
        (lambda cells: cells.pop(4), "does not number its exercises"),
        (lambda cells: cells.__delitem__(slice(3, 7)), "has 0 exercises"),
        (lambda cells: cells[3].update(source="### 1. Twice"), "no folded solution"),
        (
            lambda cells: cells[3].update(source=EXERCISE.format(n=1).replace("assert ", "")),
            "asserts nothing",
        ),
    ],
)  # fmt: skip
def test_a_departure_from_the_form_is_found(path, change, words):
    notebook = chapter()
    assert conventions.form_problems(path, notebook) == []

    change(notebook.cells)

    assert words in "\n".join(map(str, conventions.form_problems(path, notebook)))


def test_a_cell_stored_unexecuted_and_a_file_too_large_are_found(path):
    notebook = chapter()
    notebook.cells[1].execution_count = None
    path.write_bytes(b"x" * 1_500_000)

    assert "without having been run" in str(conventions.unexecuted_problems(notebook)[0])
    assert "1,500,000 bytes" in str(conventions.size_problems(path.stat().st_size)[0])


# ---- numbers in prose ----


def stale(text, printed="", source="x = 1"):
    notebook = nbformat.v4.new_notebook(cells=[prose("## One"), code(source, printed), prose(text)])
    return [problem.words.split("'")[1] for problem in quoted_numbers.stale_numbers(notebook)]


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("The loss is 3.91.", "loss 3.9140"),
        ("The loss is 3.91, and 47 words", "47 3.9051"),
        ("about 3.9 nats", "3.60"),
        ("≈ 120 steps", "113"),
        ("12% of them", "0.123"),
        ("12.3% of them", "12.31"),
        ("124,439,808 parameters", "n = 124439808"),
        ("some 124 million", "124,439,808"),
        ("a loss of -0.25", "-0.25"),
        ("of 0.0012", "1.2e-3"),
        ("GPT-2's 124M in 2019 has 12 layers (arXiv:1706.03762 §3.2)", ""),
        ("`x = 7.7` and $\\sqrt{64.5}$ and [here](p7.7.md) ```77```", ""),
        ("It is 1.6 GB <!-- from elsewhere: 1.6 (Google) -->", ""),
    ],
)
def test_a_number_that_was_printed_is_borne_out(text, printed):
    assert stale(text, printed) == []


@pytest.mark.parametrize(
    ("text", "printed", "found"),
    [
        ("The loss is 3.91.", "3.9140 was 3.81", []),
        ("The loss is 3.92.", "3.9140", ["3.92"]),
        ("The loss is 3.914.", "3.91", ["3.914"]),
        ("about 3.9", "3.4", ["about 3.9"]),
        ("All 128 of them: 12.5%", "64", ["128", "12.5%"]),
        ("1,024 and 20 but not 19", "", ["1,024", "20"]),
        ("It is 1.6 GB <!-- 1.6 -->", "", ["1.6 GB"]),
    ],
)
def test_a_number_that_nothing_bears_out_is_found(text, printed, found):
    assert stale(text, printed) == found


def test_numbers_in_the_code_count_everywhere_and_printed_ones_in_their_section_and_at_the_end():
    cells = [
        prose("## One"),
        code("d_model = 7_68\nprint(d_model / 3)", "256.0"),
        prose("It is 256."),
        prose("## Two\n\nNot 256, but 768."),
        prose("## Exercises\n\n256, still"),
    ]

    found = quoted_numbers.stale_numbers(nbformat.v4.new_notebook(cells=cells))

    assert [problem.cell for problem in found] == [4]


# ---- copies ----


def test_a_class_pasted_from_the_library_is_found_whatever_its_names_and_comments(path):
    source = (ROOT / "src/glassgpt/model/feedforward.py").read_text(encoding="utf-8")
    pasted = "class " + source.split("\nclass ")[1].replace("forward(self", "forward(  self")
    notebook = chapter(prose("So:"), code(pasted))

    (problem, *_) = copies.copied_definitions(path, notebook)

    assert "FeedForward" in problem.words
    assert "feedforward.py" in problem.words


def test_a_function_of_ones_own_is_no_copy(path):
    own = "def halves(values):\n    found = []\n    for value in values:\n        found.append(value / 2)\n" \
        "    return found"  # fmt: skip
    assert copies.copied_definitions(path, chapter(prose("So:"), code(own))) == []


def test_a_line_for_jupyter_is_no_python(path):
    magic = code("%matplotlib inline\ndef halves(values):\n    return [value / 2 for value in values]")

    assert copies.copied_definitions(path, chapter(prose("So:"), magic)) == []
    assert not conventions.prints(magic.source)


def test_a_number_in_the_text_of_an_f_string_is_said_by_the_code():
    assert stale("There are 4,567 of them.", source='print(f"{1} of 4567")') == []


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        (b"localhost", True),
        ("127.0.0.2", True),
        ("::1", True),
        (None, True),
        ("localhost.example.org", False),
        ("127.example.org", False),
        ("192.0.2.1", False),
    ],
)
def test_what_stays_reachable_is_this_machine(monkeypatch, host, local):
    monkeypatch.setattr("socket.socket.connect", socket.socket.connect)  # put back what importing it changes
    monkeypatch.setattr("socket.socket.connect_ex", socket.socket.connect_ex)
    monkeypatch.setattr("socket.getaddrinfo", socket.getaddrinfo)
    source = ROOT / "tools" / "course" / "no_network" / "sitecustomize.py"
    spec = importlib.util.spec_from_file_location("no_network", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert module.is_local(host) is local
