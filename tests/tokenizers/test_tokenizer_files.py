"""What is saved comes back, and what was damaged does not."""

import errno
import json
import os

import pytest

from glassgpt.errors import TokenizerError
from glassgpt.tokenizers import (
    BPETokenizer,
    CharTokenizer,
    SimpleTokenizerV1,
    SimpleTokenizerV2,
    Tokenizer,
    load_tokenizer,
)

TEXT = "it was the best of times, it was the worst of times — naïve\t\x00"
TOKENIZERS = [
    SimpleTokenizerV1.train(TEXT),
    SimpleTokenizerV2.train(TEXT),
    CharTokenizer.train(TEXT),
    BPETokenizer.train(TEXT, 271),
]


@pytest.fixture(params=TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def tokenizer(request):
    return request.param


def test_each_kind_is_a_tokenizer(tokenizer):
    assert isinstance(tokenizer, Tokenizer)


def test_a_saved_tokenizer_comes_back_as_what_it_was(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "tokenizer.json")
    for loaded in (
        load_tokenizer(tmp_path / "new" / "tokenizer.json"),
        type(tokenizer).load(str(tmp_path / "new" / "tokenizer.json")),
    ):
        assert type(loaded) is type(tokenizer)
        assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
        assert loaded.special_tokens == tokenizer.special_tokens
        assert loaded.fingerprint == tokenizer.fingerprint


def test_fingerprints_differ_between_kinds():
    assert len({tokenizer.fingerprint for tokenizer in TOKENIZERS}) == len(TOKENIZERS)
    words = TOKENIZERS[1].content()
    assert SimpleTokenizerV1.from_content(words).fingerprint != TOKENIZERS[1].fingerprint


def test_a_truncated_file_is_refused_wherever_it_ends(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    whole = path.read_bytes()
    for n_bytes in range(0, len(whole) - 2, 97):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
            load_tokenizer(path)


def test_an_altered_file_is_refused(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    saved = json.loads(path.read_text(encoding="utf-8"))
    for name in saved.keys() - {"kind"}:
        altered = {**saved, name: saved[name][:-1]}
        path.write_text(json.dumps(altered), encoding="utf-8")
        with pytest.raises(TokenizerError, match="was altered"):
            load_tokenizer(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"kind": "wordpiece"}',
        b'{"kind": ["bpe"]}',
        b'{"kind": "bpe"}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load_tokenizer(path)


@pytest.mark.parametrize("kind", [type(tokenizer) for tokenizer in TOKENIZERS], ids=lambda kind: kind.kind)
@pytest.mark.parametrize(
    "content",
    [
        {},
        {"words": "abc", "alphabet": 7, "bytes": "a", "merges": [], "special_tokens": []},
        {"words": [1], "alphabet": None, "bytes": None, "merges": None, "special_tokens": None},
        {"words": ["a", "a"], "alphabet": "", "bytes": "é" * 256, "merges": ["a b"], "special_tokens": []},
    ],
)
def test_content_that_describes_no_tokenizer_is_refused(kind, content):
    with pytest.raises(TokenizerError):
        kind.from_content(content)


@pytest.mark.parametrize("line", ["a", "a b c", "a Ā Ā", "ab c", "a €"])
def test_a_merge_that_cannot_be_is_refused(line):
    content = BPETokenizer([]).content()
    with pytest.raises(TokenizerError, match="not a BPE vocabulary"):
        BPETokenizer.from_content({**content, "merges": [line]})
    with pytest.raises(TokenizerError, match="'ab' is made twice"):
        BPETokenizer.from_content({**content, "merges": ["a b", "a b"]})


def test_a_missing_file_and_another_kind_are_named(tmp_path):
    with pytest.raises(TokenizerError, match=r"Cannot read .*none\.json: No such file"):
        load_tokenizer(tmp_path / "none.json")
    TOKENIZERS[2].save(tmp_path / "char.json")
    with pytest.raises(TokenizerError, match="holds a 'char' tokenizer, not 'bpe'"):
        BPETokenizer.load(tmp_path / "char.json")


def test_a_full_disk_is_explained_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    TOKENIZERS[0].save(path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TokenizerError, match="The disk is full"):
        TOKENIZERS[1].save(path)
    assert load_tokenizer(path).fingerprint == TOKENIZERS[0].fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_importing_the_package_loads_no_torch():
    import subprocess
    import sys

    code = "import glassgpt.tokenizers as t, sys; t.BPETokenizer; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
