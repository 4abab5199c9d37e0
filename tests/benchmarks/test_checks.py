"""What must agree before a row counts."""

import time
from types import SimpleNamespace

import pytest
import torch

from benchmarks import prose, reading_batches, texts, tokenizing, training
from benchmarks.rows import Setting
from glassgpt.tokenizers import BPETokenizer


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path, quick=True)


@pytest.mark.parametrize(
    ("theirs", "rounded", "agrees"),
    [(3.70001, 3.701, True), (3.7002, 3.701, False), (3.70001, 3.73, False)],
)
def test_the_first_loss_is_compared_in_float32_and_as_trained(setting, theirs, rounded, agrees):
    outputs = {"ours": {"float32": 3.7, "as trained": rounded}, "peer": {"float32": theirs}}

    assert training.check_losses(setting, outputs).agrees == agrees


def test_our_first_loss_and_transformers_are_of_the_same_weights_and_batch(setting):
    pytest.importorskip("transformers", reason="needs transformers: pip install transformers")
    config = training.ModelConfig(vocab_size=37, context_length=11, d_model=14, n_layers=2, n_heads=7)
    ours = training.train_ours(config, 2, 11, 1, 0.0, setting)
    theirs = training.train_theirs(config, 2, 11, 1, 0.1, setting)

    check = training.check_losses(setting, {"ours": ours.output, "transformers": theirs.output})

    assert check.agrees, check.how
    assert len(ours.values) == len(theirs.values) == 1


def test_one_token_id_that_differs_is_found(setting):
    same = [tokenizing.fingerprint([2, 3, 5]), 3]
    other = [tokenizing.fingerprint([2, 3, 7]), 3]

    assert tokenizing.check_ids(setting, {"ours": same, "peer": list(same)}).agrees
    found = tokenizing.check_ids(setting, {"ours": same, "peer": other, "third": same})
    assert not found.agrees
    assert found.how == "3 token ids, compared by their SHA-256: not those of peer."


def test_vocabularies_that_share_less_than_they_must_disagree(setting):
    ours = [str(token) for token in range(8192)]

    assert tokenizing.check_vocabularies(setting, {"ours": ours, "peer": ours[:-80]}).agrees
    assert not tokenizing.check_vocabularies(setting, {"ours": ours, "peer": ours[:-90]}).agrees
    assert not tokenizing.check_vocabularies(setting, {"ours": ours[:-1], "peer": ours}).agrees


def test_the_tokens_of_the_parts_are_the_tokens_of_the_whole():
    text = "the cat  sat on the mat;\n\n the hat 12 cats' " * 7
    tokenizer = BPETokenizer.train(text, 300, special_tokens=())

    parts = prose.cut_safely(text, 11)

    assert len(parts) > 10
    assert "".join(parts) == text
    assert [token for part in parts for token in tokenizer.encode(part)] == tokenizer.encode(text)


def test_batches_are_windows_of_the_file_that_counts(setting):
    reading_batches.write_shard(setting)

    ours = reading_batches.timed_ours(setting)
    slices = reading_batches.read_slices(setting)

    check = reading_batches.check_places(setting, {"ours": ours.output, "slices": slices.output})
    assert check.agrees, check.how
    ours.output[0][1][0][3] += 1  # a target of the first row
    assert not reading_batches.check_places(setting, {"ours": ours.output}).agrees


def test_the_prose_is_gathered_once(setting, monkeypatch):
    monkeypatch.setattr(prose, "prose", lambda: iter(["one text", "another"]))

    prose.write_prose(setting)
    monkeypatch.setattr(prose, "prose", lambda: pytest.fail("gathered again"))
    prose.write_prose(setting)

    assert prose.read_prose(setting) == "one text\n\nanother"


def test_docstrings_are_those_of_a_module_and_of_all_in_it():
    source = '"""One."""\nclass A:\n    """Two."""\n    def f(self):\n        """Three."""\n'

    assert prose.docstrings(source + "x = 'no docstring'") == ["One.", "Two.", "Three."]


def test_tokens_a_second_are_counted_from_the_first_new_token():
    text = texts.Text(started=100.0, steps=[[2, 3], [5, 7], [11, 13]], times=[104.0, 105.0, 108.0])

    assert text.first_seconds == 4
    assert text.tokens_a_second == 1  # two rows, two steps, four seconds
    assert text.rows == [[2, 5, 11], [3, 7, 13]]


def test_a_text_is_written_to_warm_up_and_its_first_token_can_be_the_figure(setting):
    calls = []

    def write(prompts, n_tokens):
        calls.append((len(prompts), len(prompts[0]), n_tokens))
        return texts.collect(time.sleep(0.001) or [3] for _ in range(n_tokens))

    taken = texts.time_texts(write, texts.Task(1, 5, 3, only_first=True), setting)

    assert calls == [(1, 5, 8), (1, 5, 3)]
    assert taken.values[0] >= 0.001
    assert taken.output == [[3, 3, 3]]


def test_where_code_is_compiled_for_their_number_as_many_tokens_warm_up_as_are_timed(tmp_path):
    calls = []

    def write(prompts, n_tokens):
        calls.append(n_tokens)
        return texts.collect(time.sleep(0.001) or [3] for _ in range(n_tokens))

    texts.time_texts(write, texts.Task(1, 5, 11, warm_up_whole=True), Setting(tmp_path))
    assert calls == [11, 11, 11]


def test_memory_is_measured_before_and_after_each_text_that_waits_for_it(tmp_path, monkeypatch):
    order, speeds = [], iter(range(1, 99))

    def write(prompts, n_tokens):
        order.append("text")
        return texts.collect(time.sleep(0.001) or [3] for _ in range(n_tokens))

    monkeypatch.setattr(texts, "memory_now", lambda: (order.append("memory"), next(speeds))[1])
    taken = texts.time_texts(write, texts.Task(1, 5, 3, n_texts=3, beside_memory=True), Setting(tmp_path))
    assert order == ["text", *["memory", "text", "memory"] * 3]
    assert taken.memory == [(1, 2), (3, 4), (5, 6)]
    assert len(taken.values) == 3
    order.clear()
    assert texts.time_texts(write, texts.Task(1, 5, 3), Setting(tmp_path)).memory == []
    assert order == ["text"] * 3


@pytest.mark.parametrize(
    ("ours", "agrees", "said"),
    [
        ([7, 7, 7], True, "ours 100.0% (at most 0 behind)"),
        ([7, 8, 7], True, "ours 66.7% (at most 0.25 behind)"),
        ([7, 9, 7], False, "ours 66.7% (at most 1 behind)"),
    ],
)
def test_the_referee_finds_how_far_a_token_is_behind_the_likeliest(setting, monkeypatch, ours, agrees, said):
    def read(token_ids):
        logits = torch.zeros(*token_ids.shape, 11, device=token_ids.device)
        logits[..., 7], logits[..., 8] = 1.0, 0.75
        return SimpleNamespace(logits=logits)

    monkeypatch.setattr(texts, "load_theirs", lambda setting, device: read)

    check = texts.referee(texts.Task(1, 5, 3), 0.5, setting, {"ours": [ours], "peer": [[9, 9, 9]]})

    assert check.agrees == agrees
    assert said in check.how
    assert "peer 0.0% (at most 1 behind)" in check.how
