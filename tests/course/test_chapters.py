"""The notebooks as they are stored: form, outputs, size, nothing pasted. `make course` runs them."""

import re
import sys

import pytest

from tests.house.repository import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from course import conventions
from course.chapter import chapter_paths, read_chapter
from course.copies import copied_definitions

CHAPTERS = chapter_paths([])


@pytest.mark.parametrize("path", CHAPTERS, ids=[path.name[:2] for path in CHAPTERS])
def test_a_stored_chapter_was_run_and_keeps_the_conventions(path):
    notebook = read_chapter(path)

    problems = [
        *conventions.form_problems(path, notebook),
        *conventions.unexecuted_problems(notebook),
        *conventions.output_problems(notebook, ["/work/", "/root/", "/home/", "/Users/", "/tmp/"]),
        *conventions.size_problems(path.stat().st_size),
        *copied_definitions(path, notebook),
    ]

    assert not problems, "\n".join(map(str, problems))


def test_the_course_has_all_its_chapters_and_its_readme_and_the_front_page_link_each():
    names = sorted(path.name for path in (ROOT / "course").glob("[0-9][0-9]_*"))
    tables = [(ROOT / name).read_text(encoding="utf-8") for name in ("course/README.md", "README.md")]

    assert [name[:2] for name in names] == [f"{number:02d}" for number in range(1, 12)]
    for text in tables:
        assert set(re.findall(r"\((?:course/)?(\d\d_\w+\.(?:ipynb|py))\)", text)) == set(names)
