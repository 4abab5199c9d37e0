"""Reading a TensorFlow checkpoint of GPT-2 124M: the bare file, ours with its checksums, TensorFlow's reader.

    python benchmarks/tf_checkpoint.py                    498 MB of random weights, written for it
    python benchmarks/tf_checkpoint.py --folder FOLDER    a checkpoint of your own, such as OpenAI's

The raw read is one `read()` of the data file: its bytes in fresh memory, and nothing else; for comparison
once more into memory that was there before. Ours opens the checkpoint, maps every tensor and verifies its
CRC-32C; TensorFlow's `load_checkpoint` copies and verifies them. The file lies in the disk's cache for all of
them. They are interleaved and medians taken, since a machine is never quite idle; each runs once before that,
uncounted. TensorFlow is left out where it is not installed.
"""

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from _side_by_side import print_machine, print_table, verdict

from glassgpt.by_hand.gpt2_stand_in import write_gpt2_checkpoint
from glassgpt.pretrained import TensorBundle, open_checkpoint

TARGET = 1.5  # times the raw read


def main() -> int:
    options = read_options()
    print_machine()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or random_checkpoint(Path(temporary), options.size)
        return 0 if compare(open_checkpoint(folder), options.runs) else 1


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="a checkpoint (default: one of random weights)")
    parser.add_argument("--size", default="124M", help="of the random one (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=7, help="of each reader (default: %(default)s)")
    return parser.parse_args()


def random_checkpoint(folder: Path, size: str) -> Path:
    """OpenAI's form, random weights."""
    return write_gpt2_checkpoint(folder, size)


def compare(bundle: TensorBundle, runs: int) -> bool:
    """Time the readers, print the table; return whether the targets were reached."""
    names = [info.name for info in bundle.list_tensors()]
    gigabytes = sum(info.n_bytes for info in bundle.list_tensors()) / 1e9
    print(f"{len(names)} tensors, {gigabytes:.3f} GB")

    buffer = bytearray(max(path.stat().st_size for path in data_files(bundle)))
    readers: dict[str, Callable[[], object]] = {
        "raw read": lambda: [path.read_bytes() for path in data_files(bundle)],
        "raw read into memory held before": lambda: [read_into(path, buffer) for path in data_files(bundle)],
        "ours, checksums verified": lambda: read_ours(bundle.prefix),
    }
    if importlib.util.find_spec("tensorflow"):
        readers["TensorFlow"] = tensorflow_reader(bundle.prefix, names)
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(runs + 1):
        for name, read in readers.items():
            started = time.perf_counter()
            read()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}

    raw, ours = medians["raw read"], medians["ours, checksums verified"]
    print_table(
        ["", "seconds", "GB/s", "× raw"],
        [[name, f"{s:.3f}", f"{gigabytes / s:.1f}", f"{s / raw:.2f}"] for name, s in medians.items()],
    )
    reached = [verdict(f"{ours / raw:.2f} × the raw read; wanted below {TARGET}", ours < TARGET * raw)]
    if "TensorFlow" in medians:
        times = medians["TensorFlow"] / ours
        reached.append(verdict(f"{times:.1f} × as fast as TensorFlow; wanted more than 1", times > 1))
    return all(reached)


def data_files(bundle: TensorBundle) -> list[Path]:
    return sorted(bundle.prefix.parent.glob(f"{bundle.prefix.name}.data-*"))


def read_into(path: Path, buffer: bytearray) -> int:
    """Copy a file without asking the system for memory, which takes most of a plain read's time."""
    with open(path, "rb", buffering=0) as file:
        return sum(iter(lambda: file.readinto(memoryview(buffer)[file.tell() :]) or 0, 0))


def read_ours(prefix: Path) -> None:
    bundle = open_checkpoint(prefix)
    for info in bundle.list_tensors():
        bundle.read_tensor(info.name)


def tensorflow_reader(prefix: Path, names: list[str]) -> Callable[[], object]:
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}  # no greeting
    import tensorflow as tf

    def read() -> None:
        reader = tf.train.load_checkpoint(str(prefix))
        for name in names:
            reader.get_tensor(name)

    return read


if __name__ == "__main__":
    sys.exit(main())
