"""The numbers of a run are whole lines, and can be read back and drawn."""

import builtins
import errno
import os

import pytest

from glassgpt.errors import CheckpointError, ConfigError
from glassgpt.training.metrics import METRICS, MetricsLog, read_metrics
from glassgpt.training.plot import draw_loss

RECORDS = [
    {"step": 0, "val_loss": 4.1, "val_bits_per_byte": 6.0},
    {"step": 1, "loss": 4.0, "lr": 1e-3},
    {"step": 2, "loss": 3.5, "lr": 2e-3},
    {"step": 2, "val_loss": 3.6, "val_bits_per_byte": 5.0},
]


def write(run, step, records, tensorboard=False):
    with MetricsLog(run, step, tensorboard) as log:
        for record in records:
            log.append(record)


def test_what_is_appended_is_read_back(tmp_path):
    write(tmp_path, -1, RECORDS)
    assert read_metrics(tmp_path) == RECORDS
    assert read_metrics(tmp_path / "nowhere") == []


def test_each_record_can_be_read_as_soon_as_it_is_written(tmp_path):
    with MetricsLog(tmp_path, -1, False) as log:
        for n, record in enumerate(RECORDS, start=1):
            log.append(record)
            assert read_metrics(tmp_path) == RECORDS[:n]


def test_going_on_drops_what_lies_behind_the_checkpoint_and_a_torn_line(tmp_path):
    write(tmp_path, -1, RECORDS)
    with open(tmp_path / METRICS, "a") as file:
        file.write('{"step": 3, "lo')
    assert read_metrics(tmp_path) == RECORDS
    write(tmp_path, 1, [{"step": 2, "loss": 9.0}])
    assert read_metrics(tmp_path) == [*RECORDS[:2], {"step": 2, "loss": 9.0}]


@pytest.mark.parametrize("line", ["no json", "[1]", '{"loss": 1}', "3"])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    (tmp_path / METRICS).write_text('{"step": 1}\n' + line + "\n")
    with pytest.raises(CheckpointError, match="line 2 is no record"):
        read_metrics(tmp_path)


def test_a_full_disk_is_explained(tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with MetricsLog(tmp_path, -1, False) as log:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="The disk is full"):
            log.sync()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
def test_a_disk_that_is_full_at_a_line_is_explained_and_the_file_closed(tmp_path):
    log = MetricsLog(tmp_path, -1, False)
    log.file.close()
    log.file = open("/dev/full", "a")  # noqa: SIM115 - closing it is what is tested
    with pytest.raises(CheckpointError, match="The disk is full"):
        log.append(RECORDS[0])
    with pytest.raises(CheckpointError, match="The disk is full"):  # the line is still waiting to be written
        log.__exit__(None, None, None)
    assert log.file.closed


def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'glassgpt[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, -1, RECORDS, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 4.0), (2, 3.5)]


def test_a_missing_tensorboard_says_how_to_get_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if "tensorboard" in name:
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r'pip install "glassgpt\[tensorboard\]"'):
        MetricsLog(tmp_path, -1, tensorboard=True)


@pytest.mark.parametrize("records", [RECORDS, RECORDS[:1], RECORDS[1:2], []])
def test_the_picture_is_a_picture_even_of_few_numbers(tmp_path, records):
    draw_loss(records, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_drawing_leaves_no_figure_open(tmp_path):
    from matplotlib import pyplot

    draw_loss(RECORDS, tmp_path / "loss.png")
    assert pyplot.get_fignums() == []
