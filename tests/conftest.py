"""What every test shares: checked shapes, one thread, and the cache of real texts."""

import contextlib
import os
import warnings
from pathlib import Path

import jaxtyping
import pytest

from tests.alone import run_alone
from tests.stand_in_gpu import COMPILED

# Shapes in signatures are checked at every call while tests run: wherever signatures have shapes, and
# before those modules are first imported. Not in `decoding`, of which much is compiled, nor in
# `data.sliding_window`, which says itself what is wrong with its arguments.
WITH_SHAPES = ["data.batches", "model", "generation", "inspection.tracing", "by_hand"]
WITH_SHAPES += ["embeddings.pairs", "embeddings.skip_gram"]
WITH_SHAPES += [f"training.{name}" for name in ("evaluation", "loss", "muon", "optimizer", "step", "trainer")]
jaxtyping.install_import_hook([f"glassgpt.{name}" for name in WITH_SHAPES], "beartype.beartype")

os.environ["MPLBACKEND"] = "agg"  # no test opens a window


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run side by side, one process a core; more threads than cores would only wait for each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def gpu():
    """A CUDA GPU. Where there is none, test_stand_in_gpu.py runs the tests that ask for one on a stand-in."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU; where there is none, test_stand_in_gpu.py runs this on a stand-in")
    return torch.device("cuda", 0)


@pytest.fixture
def nothing_waits(gpu):
    """A context in which waiting for the GPU is an error; only events may be waited for."""
    import torch

    @contextlib.contextmanager
    def forbidden():
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
                torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return forbidden


@pytest.fixture
def python_with_gpu(gpu):
    """`run_alone`, in a process that has the GPU, too, and can compile for it."""
    from glassgpt.training.precision import _missing_for_compiling

    if COMPILED not in os.environ and (missing := _missing_for_compiling(gpu)):
        pytest.skip(f"needs {missing}")

    stand_in = "import tests.stand_in_gpu.plugin\n" if COMPILED in os.environ else ""
    return lambda code: run_alone(stand_in + code)


@pytest.fixture
def cache() -> Path:
    """The project's cache folder, with GPT-2's vocabulary and the small corpora in it."""
    folder = os.environ.get("GLASSGPT_CACHE")
    if not folder or not (Path(folder) / "openai" / "gpt2" / "vocab.bpe").is_file():
        pytest.skip(
            "needs GLASSGPT_CACHE to name a folder holding openai/gpt2/{vocab.bpe,encoder.json} and "
            "corpora/{tinyshakespeare,the-verdict}.txt, as OpenAI and karpathy/char-rnn publish them"
        )
    return Path(folder).resolve()
