"""What the model writes while it learns: the same beginning and the same chances each time, so that only
the weights differ."""

from pathlib import Path

from glassgpt.errors import CheckpointError, ConfigError
from glassgpt.generation.config import SamplingConfig
from glassgpt.generation.tokens import generate
from glassgpt.model.gpt import GPT
from glassgpt.storage import write_atomically
from glassgpt.tokenizers import Tokenizer
from glassgpt.training.config import TrainConfig


def sample_prompt(tokenizer: Tokenizer, config: TrainConfig) -> list[int]:
    """The token ids that samples begin with; for an empty prompt, what stands before a document.

    Raises TokenizerError when the tokenizer cannot encode the prompt, ConfigError when it is too long:
    both before the first step, not hours later at the first sample.
    """
    ids = tokenizer.encode(config.sample_prompt)
    if not ids:
        ids = [0 if tokenizer.end_of_text_id is None else tokenizer.end_of_text_id]
    if len(ids) > config.model.context_length:
        raise ConfigError(
            f"sample_prompt has {len(ids):,} tokens; the model's context_length is "
            f"{config.model.context_length:,}. Shorten it."
        )
    return ids


def write_sample(model: GPT, tokenizer: Tokenizer, prompt: list[int], config: TrainConfig, step: int) -> str:
    """Continue `prompt`, write the text to the run's samples/step_000200.txt, and return it.

    The draws come from a generator of their own: whether samples are made changes nothing in the training.
    """
    sampling = SamplingConfig(max_new_tokens=config.sample_tokens, temperature=0.8, seed=config.seed)
    end = () if tokenizer.end_of_text_id is None else (tokenizer.end_of_text_id,)
    new = generate(model, prompt, sampling, stop_token_ids=end, vocab_size=tokenizer.vocab_size)
    text = config.sample_prompt + tokenizer.decode(list(new))
    write_atomically(Path(config.out) / "samples" / f"step_{step:06d}.txt", text + "\n", CheckpointError)
    return text
