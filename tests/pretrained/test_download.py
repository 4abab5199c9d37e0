"""GPT-2 from a small imitation of OpenAI's server, or of Hugging Face's hub: every file whole, or none."""

import hashlib
import re
import socket
import sys
import types

import pytest

from glassgpt.cli.main import main
from glassgpt.data.patience import Patience
from glassgpt.errors import ConfigError, DownloadError
from glassgpt.model import count_parameters, gpt2
from glassgpt.pretrained import download_gpt2
from glassgpt.pretrained import hub as hub_module
from glassgpt.pretrained.gpt2_files import ADDRESS, DATA, INDEX, META, VOCABULARY, published_files
from glassgpt.storage import sha256_of
from glassgpt.tokenizers import gpt2_files as vocabulary_files
from tests.data.misbehaving_server import Server, cut, status
from tests.data.test_download import GIVEN_UP
from tests.pretrained.release import hparams_json, serving, small_release

SIZES = ["124M", "355M", "774M", "1558M"]
IMPATIENT = Patience(n_tries=3, sleep=lambda _: None)


@pytest.fixture
def release(tmp_path, monkeypatch):
    """The files of a small "355M": name → content."""
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "cache"))
    return small_release(tmp_path / "release", monkeypatch)


def download(server, size="355M", **options):
    return download_gpt2(size, mirror=server.url, progress=False, patience=IMPATIENT, **options)


def test_the_seven_files_come_to_their_place_in_the_cache(release, tmp_path):
    with Server([serving(release)]) as server:
        folder = download(server)
        assert len(server.log) == 7
        assert download(server) == folder
    assert len(server.log) == 7, "what is there is not asked for again"
    assert folder == tmp_path / "cache" / "openai" / "gpt2" / "355M"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == release


def test_the_vocabulary_lies_also_where_the_tokenizer_looks(release, tmp_path):
    with Server([serving(release)]) as server:
        download(server)
    shared = tmp_path / "cache" / "openai" / "gpt2"
    assert {name: (shared / name).read_bytes() for name in VOCABULARY} == {n: release[n] for n in VOCABULARY}


def test_a_shared_vocabulary_is_left_alone_where_it_is_right_and_replaced_where_it_is_not(release, tmp_path):
    encoder, merges = (tmp_path / "cache" / "openai" / "gpt2" / name for name in VOCABULARY)
    encoder.parent.mkdir(parents=True)
    encoder.write_bytes(release[encoder.name])
    merges.write_bytes(release[merges.name][:-1])
    before = encoder.stat()
    with Server([serving(release)]) as server:
        download(server)
    assert merges.read_bytes() == release[merges.name]
    assert (encoder.stat().st_ino, encoder.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_another_folder_leaves_the_cache_alone(release, tmp_path):
    with Server([serving(release)]) as server:
        assert download(server, folder=tmp_path / "else" / "where") == tmp_path / "else" / "where"
    assert not (tmp_path / "cache").exists()
    assert [path.name for path in (tmp_path / "else").iterdir()] == ["where"]


def test_the_mirror_of_the_environment_is_taken_unless_another_is_given(release, monkeypatch, tmp_path):
    with Server([serving(release)]) as server:
        monkeypatch.setenv("GLASSGPT_MIRROR", f"{server.url}/")
        folder = download_gpt2("355M", progress=False, patience=IMPATIENT)
    assert (folder / DATA).read_bytes() == release[DATA]
    assert server.log[0].path == "/355M/checkpoint"
    with Server([status("404 Not Found")]) as server, pytest.raises(DownloadError, match=server.url):
        download(server, folder=tmp_path / "b")


@pytest.mark.parametrize("name", [DATA, INDEX])
def test_weights_and_index_that_do_not_fit_are_found_and_removed(name, release, tmp_path):
    """No digest of them is known: the checksum of every tensor, in the index, tells."""
    altered = bytearray(release[name])
    altered[29] ^= 1
    with Server([serving(release | {name: bytes(altered)})]) as server:
        with pytest.raises(
            DownloadError, match=r"are damaged and were removed.* Download them again"
        ) as caught:
            download(server)
        assert "\n" not in str(caught.value)
        folder = tmp_path / "cache" / "openai" / "gpt2" / "355M"
        assert not (folder / DATA).exists()
        assert not (folder / INDEX).exists()
        server.answers = [serving(release)]
        download(server)
    assert (folder / name).read_bytes() == release[name]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("checkpoint", b"<html>", "does not name the checkpoint"),
        ("hparams.json", b"<html>", "it is no JSON"),
        ("hparams.json", hparams_json("124M"), r"'n_embd': 768.*, and GPT-2 355M is .*'n_embd': 1024"),
        ("hparams.json", b"[]", "and GPT-2 355M is"),
        (INDEX, b"<html>", "no index of a TensorFlow checkpoint"),
        (META, b"<html>", "no graph of TensorFlow"),
        (DATA, b"", "it is empty"),
        ("vocab.bpe", b"#version: 0.2\nb a\n", "its SHA-256 is"),
        ("encoder.json", b"{}", "has 2 bytes for it, not 8"),
    ],
)
def test_a_file_of_another_form_is_refused(name, content, reason, release, tmp_path):
    with Server([serving(release | {name: content})]) as server, pytest.raises(DownloadError, match=reason):
        download(server)
    assert not (tmp_path / "cache" / "openai" / "gpt2" / "355M" / name).exists()


def test_weights_that_came_before_an_interruption_are_compared_with_their_index_all_the_same(release):
    damaged = release | {DATA: release[DATA][:-1] + bytes([release[DATA][-1] ^ 1])}
    with Server([serving({name: body for name, body in damaged.items() if name != META})]) as server:
        with pytest.raises(DownloadError, match=META):
            download(server)
        server.answers = [serving(damaged)]
        with pytest.raises(DownloadError, match="are damaged and were removed"):
            download(server)
        server.answers = [serving(release)]
        folder = download(server)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == release


def test_an_interrupted_file_goes_on(release):
    body = release[DATA]
    with Server([serving(release)] * 3 + [cut(101, body=body), serving(release)]) as server:
        folder = download(server)
    rest = next(request for request in server.log if "range" in request.headers)
    assert rest.path == f"/355M/{DATA}"
    assert rest.n_sent == len(body) - 101
    assert (folder / DATA).read_bytes() == body


@pytest.mark.parametrize("size", SIZES)
def test_what_is_known_of_the_files_agrees_with_the_model(size):
    files = {file.name: file.expected for file in published_files(size)}
    assert len(files) == 7
    assert files[DATA].n_bytes == 4 * count_parameters(gpt2(size)).total
    assert files["hparams.json"].n_bytes in (None, len(hparams_json(size)))
    assert all(re.fullmatch("[0-9a-f]{64}", expected.sha256 or "0" * 64) for expected in files.values())


def test_what_is_known_of_small_files_is_what_they_hold():
    files = {file.name: file.expected for file in published_files("124M")}
    checkpoint = b'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'
    for name, content in {"checkpoint": checkpoint, "hparams.json": hparams_json("124M")}.items():
        assert files[name].n_bytes == len(content)
        assert files[name].sha256 == hashlib.sha256(content).hexdigest()


def test_what_is_known_of_the_vocabulary_is_what_the_tokenizer_reads(cache):
    for file in published_files("1558M"):
        if file.name in VOCABULARY:
            path = cache / "openai" / "gpt2" / file.name
            assert file.expected.sha256 == vocabulary_files.SHA256[file.name] == sha256_of(path)
            assert file.expected.n_bytes == path.stat().st_size


def test_the_address_is_openais():
    assert ADDRESS == "https://openaipublic.blob.core.windows.net/gpt-2/models"


@pytest.mark.parametrize("source", ["openai", "huggingface"])
def test_a_wrong_size_lists_the_right_ones(source):
    with pytest.raises(ConfigError, match=r"'117M'. Sizes: 124M, 355M, 774M, 1558M"):
        download_gpt2("117M", source)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"source": "bing"}, "not one of openai, huggingface"),
        ({"mirror": "mirror.example"}, "is not an address"),
    ],
)
def test_a_wrong_option_is_an_error(options, reason):
    with pytest.raises(ConfigError, match=reason):
        download_gpt2("124M", **options)


# The command


@pytest.fixture
def no_waits(monkeypatch):
    monkeypatch.setattr("glassgpt.data.download.Patience", lambda: IMPATIENT)


@pytest.mark.parametrize("case", GIVEN_UP)
def test_the_command_says_in_one_line_why_it_failed(case, tmp_path, monkeypatch, capsys, no_waits):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    with Server(GIVEN_UP[case][0]) as server:
        assert main(["download", "gpt2", "--mirror", server.url]) == 2
    *tries, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"glassgpt download: Cannot download {server.url}/124M/checkpoint: ")
    assert all(re.search(r"^checkpoint: .*; try [23] of 3 in \d+\.\d s$", said) for said in tries)
    assert not list((tmp_path / "openai" / "gpt2" / "124M").iterdir())


def test_without_a_network_the_command_says_where_the_files_go(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    with socket.socket() as taken:  # bound, not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert main(["download", "gpt2", "--size", "774M", "--mirror", mirror]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    assert "there is no connection to the server" in line
    folder = tmp_path / "openai" / "gpt2" / "774M"
    assert f"put these files in {folder} by other means: checkpoint, encoder.json, hparams.json, " in line


def test_the_command_lists_what_it_has_got(release, tmp_path, capsys):
    with Server([serving(release)]) as server:
        assert main(["download", "gpt2", "--size", "355M", "--mirror", server.url]) == 0
    out = capsys.readouterr().out
    assert f"GPT-2 355M is whole in {tmp_path / 'cache' / 'openai' / 'gpt2' / '355M'}" in out
    assert all(re.search(rf"{re.escape(name)} +{len(body):,} bytes", out) for name, body in release.items())


# Hugging Face


class Hub(types.ModuleType):
    """What `huggingface_hub` offers and we use, over a dictionary of files."""

    class errors:
        HTTPError = type("HTTPError", (Exception,), {})

    def __init__(self, files, listed=None):
        super().__init__("huggingface_hub")
        self.files, self.listed, self.asked = files, listed or files, {}

    def HfApi(self, endpoint):
        self.asked["endpoint"] = endpoint
        return types.SimpleNamespace(model_info=self.model_info)

    def model_info(self, repository, files_metadata):
        assert files_metadata
        siblings = [
            types.SimpleNamespace(
                rfilename=name,
                size=len(body),
                lfs=types.SimpleNamespace(sha256=hashlib.sha256(body).hexdigest())
                if "model" in name
                else None,
            )
            for name, body in self.listed.items()
        ]
        return types.SimpleNamespace(sha="c0ffee", siblings=siblings)

    def snapshot_download(self, repository, *, revision, local_dir, allow_patterns, endpoint):
        self.asked |= {"repository": repository, "revision": revision, "endpoint again": endpoint}
        for name, body in self.files.items():
            if name in allow_patterns:
                (local_dir / name).write_bytes(body)


HUB_FILES = {name: name.encode() for name in ["config.json", "merges.txt", "tokenizer.json", "vocab.json"]}
HUB_FILES |= {"model.safetensors": b"weights", "flax_model.msgpack": b"not wanted"}


@pytest.fixture
def hub(monkeypatch):
    hub = Hub(HUB_FILES)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return hub


@pytest.mark.parametrize(
    ("size", "repository"),
    [("124M", "gpt2"), ("355M", "gpt2-medium"), ("774M", "gpt2-large"), ("1558M", "gpt2-xl")],
)
def test_safetensors_come_from_the_repository_of_that_size(size, repository, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    folder = download_gpt2(size, "huggingface")
    assert folder == tmp_path / "huggingface" / "gpt2" / size
    assert sorted(path.name for path in folder.iterdir()) == sorted(set(HUB_FILES) - {"flax_model.msgpack"})
    assert hub.asked["repository"] == f"openai-community/{repository}"
    assert hub.asked["revision"] == "c0ffee", "one state of the repository, not whatever is newest"
    assert hub.asked["endpoint"] is hub.asked["endpoint again"] is None


def test_a_mirror_stands_for_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_MIRROR", "https://for-openai.example")
    download_gpt2("124M", "huggingface", "https://hub.example", tmp_path)
    assert hub.asked["endpoint"] == hub.asked["endpoint again"] == "https://hub.example"


@pytest.mark.parametrize("body", [b"weight", b"weightz"])
def test_weights_that_are_not_what_the_hub_lists_are_removed(body, hub, tmp_path):
    hub.files = HUB_FILES | {"model.safetensors": body}
    with pytest.raises(DownloadError, match=r"model.safetensors of openai-community/gpt2 came damaged"):
        download_gpt2("124M", "huggingface", folder=tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_folder_for_the_hub_that_cannot_be_made_is_an_error(hub, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="is a file, not a folder"):
        download_gpt2("124M", "huggingface", folder=tmp_path / "file" / "gpt2")


def test_a_repository_without_weights_is_an_error(hub, tmp_path):
    hub.files = {"config.json": b"config.json"}
    with pytest.raises(DownloadError, match=r"brought no merges\.txt"):
        download_gpt2("124M", "huggingface", folder=tmp_path)


@pytest.mark.parametrize("fault", [OSError("no\n route"), Hub.errors.HTTPError("no\n route")])
def test_a_hub_that_cannot_be_reached_is_one_line(fault, hub, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(hub, "model_info", fail)
    with pytest.raises(DownloadError, match=r"from huggingface.co: no route\. Try again") as caught:
        download_gpt2("124M", "huggingface", folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_the_real_package_fails_in_one_line_without_a_hub(tmp_path):
    pytest.importorskip(
        "huggingface_hub", reason='needs huggingface_hub: pip install "glassgpt[huggingface]"'
    )
    with Server([status("404 Not Found")]) as server:
        with pytest.raises(
            DownloadError, match="Cannot download openai-community/gpt2 from http://127"
        ) as caught:
            download_gpt2("124M", "huggingface", server.url, tmp_path)
        assert "\n" not in str(caught.value)


def test_without_the_package_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=re.escape('pip install "glassgpt[huggingface]"')):
        download_gpt2("124M", "huggingface", folder=tmp_path)


def test_a_file_that_is_shorter_than_the_hub_lists_is_removed(tmp_path):
    """Small files have no SHA-256 in the hub's list: their length is all there is to compare."""
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(DownloadError, match=r"2 bytes came, and the hub lists 665"):
        hub_module._check(
            tmp_path / "config.json", types.SimpleNamespace(size=665, lfs=None), "openai-community/gpt2"
        )

    assert not (tmp_path / "config.json").exists()
