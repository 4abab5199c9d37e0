"""What every test shares: checked shapes, one thread, and the cache of real texts."""

import os
from pathlib import Path

import jaxtyping
import pytest

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
def cache() -> Path:
    """The project's cache folder, with GPT-2's vocabulary and the small corpora in it."""
    folder = os.environ.get("GLASSGPT_CACHE")
    if not folder or not (Path(folder) / "openai" / "gpt2" / "vocab.bpe").is_file():
        pytest.skip(
            "needs GLASSGPT_CACHE to name a folder holding openai/gpt2/{vocab.bpe,encoder.json} and "
            "corpora/{tinyshakespeare,the-verdict}.txt, as OpenAI and karpathy/char-rnn publish them"
        )
    return Path(folder).resolve()
