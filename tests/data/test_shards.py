"""Token shards: ids in mapped files, and no damage that goes unnoticed."""

import json
import os

import numpy as np
import pytest

from glassgpt.data import Corpus, TokenShards, prepare, shards
from glassgpt.data.shards import dtype_for
from glassgpt.errors import DataError
from glassgpt.tokenizers import CharTokenizer

LETTERS = CharTokenizer.train("abcdefghijklmnopqrstuvwxyz .\n")


@pytest.fixture
def folder(tmp_path):
    prepare(Corpus.of(["abc def ghi.\n" * 101]), tmp_path / "out", LETTERS, shard_tokens=499)
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(2, "<u2"), (65_536, "<u2"), (65_537, "<u4"), (200_019, "<u4")]
)
def test_ids_take_two_bytes_while_they_fit(vocab_size, dtype):
    assert dtype_for(vocab_size) == dtype
    assert np.array([vocab_size - 1]).astype(dtype)[0] == vocab_size - 1


def test_shards_are_plain_little_endian_files(folder):
    data = (folder / "train_00000.bin").read_bytes()
    ids = [data[i] + 256 * data[i + 1] for i in range(0, len(data), 2)]
    assert ids == LETTERS.encode("abc def ghi.\n" * 101)[:499]


def test_opening_maps_files_and_reads_none(folder):
    train = TokenShards.open(folder, verify=False).train
    assert isinstance(train._shards[0].base, np.memmap)
    assert len(train) == sum(len(shard) for shard in train._shards) == int(0.9 * 13 * 101)
    assert not train._shards[0].flags.writeable


def test_all_damage_is_named_at_once(folder):
    (folder / "train_00000.bin").unlink()
    (folder / "val_00000.bin").write_bytes(b"abc")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError) as caught:
        TokenShards.open(folder)
    for problem in (
        "train_00000.bin is missing",
        "val_00000.bin has 3 bytes, not ",
        "tokenizer.json is missing",
    ):
        assert problem in str(caught.value)


def flip(path):
    data = bytearray(path.read_bytes())
    data[101] ^= 1
    path.write_bytes(data)


def test_an_altered_shard_is_found_when_small_or_on_request(folder, monkeypatch):
    flip(folder / "train_00001.bin")
    for verify in (None, True):
        with pytest.raises(DataError, match=r"train_00001\.bin was altered"):
            TokenShards.open(folder, verify=verify)
    TokenShards.open(folder, verify=False)
    monkeypatch.setattr(shards, "VERIFIED_AT_ONCE_BYTES", 1009)
    TokenShards.open(folder)
    with pytest.raises(DataError, match=r"train_00001\.bin was altered"):
        TokenShards.open(folder, verify=True)


def rewrite(folder, change):
    path = folder / "dataset.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values, indent=1) + "\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("dtype"),
        lambda values: values.update(dtype="<f4"),
        lambda values: values.update(format=2),
        lambda values: values.update(surprise=1),
        lambda values: values["train"].pop("shards"),
        lambda values: values["train"]["shards"][0].pop("sha256"),
        lambda values: values.update(train=[]),
        lambda values: values.update(vocab_size="5"),
        lambda values: values["val"]["shards"][0].update(n_tokens="7"),
        lambda values: values["train"].update(n_bytes="9964"),
        lambda values: values["val"].update(n_documents=-1),
    ],
)
def test_a_description_that_is_not_one_is_an_error(folder, change):
    rewrite(folder, change)
    with pytest.raises(DataError, match="does not describe a dataset"):
        TokenShards.open(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000])
def test_a_description_that_is_not_json_is_an_error(folder, content):
    (folder / "dataset.json").write_text(content)
    with pytest.raises(DataError, match="does not describe a dataset"):
        TokenShards.open(folder)


def test_a_folder_that_is_no_dataset_says_how_to_make_one(tmp_path):
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(DataError, match=r"is not a dataset.*glassgpt prepare"):
            TokenShards.open(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["train"].update(n_bytes=8964),
        lambda values: values["val"].update(n_bytes=values["val"]["n_bytes"] // 10),
        lambda values: values.update(vocab_size=60_000),
        lambda values: values["train"]["shards"].pop(),
    ],
    ids=["bytes to learn from", "bytes held out", "vocabulary", "a shard fewer"],
)
@pytest.mark.parametrize("verify", [False, None, True])
def test_a_description_that_was_altered_is_found(folder, change, verify):
    rewrite(folder, change)
    with pytest.raises(DataError, match=r"dataset\.json (was altered|has \d+ bytes).*Prepare the corpus"):
        TokenShards.open(folder, verify=verify)


def test_a_damaged_manifest_is_found(folder):
    (folder / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"manifest\.json cannot be read"):
        TokenShards.open(folder)


def test_ids_outside_the_described_vocabulary_are_found(folder):
    rewrite(folder, lambda values: values.update(vocab_size=5))
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"train_00000\.bin does not go with.*is outside vocab_size=5"):
        TokenShards.open(folder)
    TokenShards.open(folder, verify=False)


def test_another_tokenizer_in_the_folder_is_found(folder):
    CharTokenizer.train("xyz").save(folder / "tokenizer.json")
    with pytest.raises(DataError, match=r"tokenizer\.json has \d+ bytes, not \d+\. Prepare the corpus again"):
        TokenShards.open(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer\.json has the fingerprint .* Prepare the corpus again"):
        TokenShards.open(folder).tokenizer()


@pytest.mark.skipif(os.name == "nt", reason="Windows does not replace what is mapped")
def test_what_is_open_stays_what_it_was_when_another_version_takes_its_place(folder):
    dataset = TokenShards.open(folder)
    prepare(Corpus.of(["jkl mno pqr.\n" * 103]), folder, LETTERS, overwrite=True)
    assert LETTERS.decode(dataset.train[:]) + LETTERS.decode(dataset.val[:]) == "abc def ghi.\n" * 101


def test_a_megabyte_is_verified_unasked(tmp_path):
    prepare(Corpus.of(["abc def ghi.\n" * 50_021]), tmp_path / "out", LETTERS)
    flip(tmp_path / "out" / "train_00000.bin")
    with pytest.raises(DataError, match=r"train_00000\.bin was altered"):
        TokenShards.open(tmp_path / "out")
