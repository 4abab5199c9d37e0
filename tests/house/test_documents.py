"""What the documents say about the repository is so."""

import re
from pathlib import Path

import pytest

from tests.house.repository import ROOT, SOURCE, repository_files, run_make

CHAPTERS = {f"{number:02d}" for number in range(1, 12)}
LARGEST_BYTES = 1_500_000


def documents() -> list[Path]:
    return [path for path in repository_files() if path.suffix == ".md"]


def links(text: str) -> list[str]:
    """The targets of links and pictures in Markdown, code aside."""
    prose = re.sub(r"^( *)(```|~~~).*?^\1\2", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`\n]*`", "`", prose)
    inline = re.findall(r"\]\(\s*<?([^\s)>]+)", prose)
    reference = re.findall(r"^ {0,3}\[[^\]]+\]:\s*<?([^\s>]+)", prose, re.MULTILINE)
    html = re.findall(r"""(?:src|href)=["']([^"']+)""", prose)
    return inline + reference + html


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a Markdown file."""
    headings = re.findall(r"^#+ +(.+?) *#*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def link_problems(document: Path, text: str, files: set[Path]) -> list[str]:
    """The relative links in `document`, with `text` in it, that lead to none of `files`."""
    places = files | {folder for path in files for folder in path.parents}
    problems = []
    for link in links(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue  # another site
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if target not in places | {document}:
            problems.append(f"{document.name}: {link} leads nowhere in the repository")
        elif anchor and target.suffix == ".md":
            headings = anchors(text if target == document else target.read_text(encoding="utf-8"))
            if anchor not in headings:
                problems.append(f"{document.name}: {link} names no heading")
    return problems


def test_every_relative_link_leads_to_a_file_of_the_repository():
    files = set(repository_files())
    problems = [
        problem
        for document in documents()
        for problem in link_problems(document, document.read_text(encoding="utf-8"), files)
    ]

    assert {path.name for path in documents()} >= {"README.md", "CONTRIBUTING.md"}
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("text", "n_problems"),
    [
        ("[a](b.md) ![p](pictures/p.png) [f](pictures) [s](https://x.org/none)", 0),
        ("# A title, with `code`\n[up](#a-title-with-code) [there](b.md#part)\n[r]\n\n[r]: b.md", 0),
        ("`[a](none.md)`\n```\n[a](none.md)\n```\n", 0),
        ("[a](none.md)", 1),
        ("![p](pictures/none.png)\n[r]: none.md", 2),
        ('<img src="none.png" alt="">', 1),
        ("[up](#none) [there](b.md#none)", 2),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path, text, n_problems):
    other, picture = tmp_path / "b.md", tmp_path / "pictures" / "p.png"
    other.write_text("## Part\n")

    assert len(link_problems(tmp_path / "a.md", text, {other, picture})) == n_problems


def test_no_file_is_larger_than_a_page_can_be():
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in repository_files()}
    too_large = {name: size for name, size in sizes.items() if size > LARGEST_BYTES}

    assert len(sizes) > 50
    assert not too_large


def test_every_chapter_that_the_library_names_is_one_of_the_course():
    named = {
        (path.name, number)
        for path in SOURCE.rglob("*.py")
        for number in re.findall(r"\bChapters? +(\w+)", path.read_text(encoding="utf-8"))
    }

    assert len(named) > 10
    assert not {(name, number) for name, number in named if number not in CHAPTERS}


def make_commands(text: str) -> tuple[set[str], set[str]]:
    """The targets and the variables of the `make …` commands in Markdown."""
    code = re.findall(r"`(make [^`\n]+)`", text)
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        code += re.findall(r"^\$? *(make [^#\n]+)", block, re.MULTILINE)
    words = [word for command in code for word in command.split()[1:]]
    return (
        {word for word in words if re.fullmatch(r"[a-z]+", word)},
        {word.partition("=")[0] for word in words if re.match(r"[A-Z]+=", word)},
    )


def test_the_commands_in_documents_are_found():
    text = (
        "Say `make demo` or `make test ARGS=-x` to make sure:\n```sh\n$ make setup TORCH=cuda  # a GPU\n```\n"
    )

    assert make_commands(text) == ({"demo", "test", "setup"}, {"ARGS", "TORCH"})


def test_every_make_command_in_a_document_is_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) *\??=", makefile, re.MULTILINE))
    named = [make_commands(document.read_text(encoding="utf-8")) for document in documents()]

    assert {"demo", "test"} <= set().union(*(names for names, _ in named)) <= targets
    assert set().union(*(names for _, names in named)) <= variables


def test_make_alone_lists_every_command():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()

    listed = run_make().stdout

    assert re.findall(r"^  make (\w+) +\w", listed, re.MULTILINE) == commands
