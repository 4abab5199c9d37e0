"""The training loop: batches in, a smaller loss out. Chapter 06.

Step n of a run is a function of the weights, the optimizer's averages and (config, n) alone. That is why a
run that was interrupted anywhere, and goes on from a checkpoint, is bit for bit the run that was not; on a
GPU up to rounding, as it adds some gradients in no fixed order.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from glassgpt.data import Batches, TokenShards, eval_windows
from glassgpt.errors import ConfigError, GenerationError
from glassgpt.model.folder import load_model
from glassgpt.model.gpt import GPT
from glassgpt.training.checkpoint import TrainState, load_checkpoint, prune_checkpoints, save_checkpoint
from glassgpt.training.clock import Clock
from glassgpt.training.config import RUN_CONFIG, TrainConfig
from glassgpt.training.evaluation import evaluate
from glassgpt.training.interruption import Interruption
from glassgpt.training.loss import bits_per_byte
from glassgpt.training.metrics import MetricsLog, read_metrics
from glassgpt.training.plot import LOSS_PLOT, draw_loss
from glassgpt.training.precision import Execution, choose_execution
from glassgpt.training.progress import Progress, Say
from glassgpt.training.run import (
    check_belongs,
    check_same_tokens,
    claim_run_folder,
    model_config_for,
    only_trainer,
    open_data,
    tokens_sha256,
)
from glassgpt.training.samples import sample_prompt, write_sample
from glassgpt.training.schedule import learning_rate, share_of_highest
from glassgpt.training.step import TrainStep

Stopped = Literal["finished", "interrupted", "time", "early stop"]


@dataclass(frozen=True)
class TrainResult:
    """What a run came to. `val_loss` is the last one measured, in nats a token."""

    run: Path
    checkpoint: Path
    stopped: Stopped
    step: int
    tokens: int
    seconds: float
    n_parameters: int
    val_loss: float
    val_bits_per_byte: float
    best_val_loss: float
    best_step: int


def train(config: TrainConfig, *, resume: bool = False, say: Say = tqdm.write) -> TrainResult:
    """Train a GPT as `config` says, in the run folder `config.out`; with `resume`, go on with the run there.

    `say` gets each line that is meant for people. Ctrl-C finishes the step, saves, and returns with
    stopped="interrupted".

    Raises ConfigError for settings that do not go together, and when the loss stops being a number;
    DataError and TokenizerError for what the data or the tokenizer cannot do; CheckpointError when the run
    folder cannot be read or written.
    """
    execution = choose_execution(config)
    execution.prepare()
    try:
        with (
            only_trainer(config.out),
            torch.random.fork_rng(_cuda_devices(execution)),  # the caller's random numbers stay the caller's
        ):
            checkpoint = claim_run_folder(config, resume, say)
            shards = open_data(config, resume, say)
            return _Training(config, execution, shards, checkpoint, say).run()
    except RuntimeError as fault:
        # For a GPU it is an OutOfMemoryError, for a CPU the same words in a plain RuntimeError.
        wanted = re.search(r"tried to allocate [\d.]+ \w+", str(fault), re.IGNORECASE)
        if wanted is None:
            raise
        raise ConfigError(
            f"{execution.device} has too little memory for micro_batch_size={config.micro_batch_size} × "
            f"context_length={config.model.context_length:,}: {wanted[0]}. Make micro_batch_size "
            f"smaller; tokens_per_step can keep the step as large."
        ) from fault


class _Training:
    """One call of `train`: what the loop works with, and its parts."""

    def __init__(
        self,
        config: TrainConfig,
        execution: Execution,
        shards: TokenShards,
        checkpoint: Path | None,
        say: Say,
    ) -> None:
        self.config, self.execution, self.shards, self.say = config, execution, shards, say
        self.tokenizer = shards.tokenizer()
        self.prompt = sample_prompt(self.tokenizer, config)
        self.batches = Batches(
            shards.train,
            context_length=config.model.context_length,
            micro_batch_size=config.micro_batch_size,
            seed=config.seed,
        )
        self.windows = eval_windows(shards.val, config.model.context_length, config.eval_windows)
        model_config = model_config_for(config, shards)
        if checkpoint is None:
            torch.manual_seed(config.seed)
            self.model = GPT(model_config).to(execution.device)
        else:
            self.model, tokenizer = load_model(checkpoint, execution.device)
            check_belongs(checkpoint, self.model, tokenizer, model_config, shards)
        self.step = TrainStep(self.model, config, execution)
        self.state = TrainState()
        if checkpoint is not None:
            self.state = load_checkpoint(checkpoint, self.model, self.step.optimizer)
            check_same_tokens(checkpoint, self.state.tokens_sha256, shards)
            if self.state.step > config.steps:
                raise ConfigError(
                    f"steps={config.steps:,} is below step {self.state.step:,}, which the run in "
                    f"{config.out} has reached. Give more steps."
                )
        self.state.tokens_sha256 = tokens_sha256(shards)
        self.checkpoint = checkpoint
        self.unchecked: list[tuple[int, Tensor, Tensor]] = []

    def run(self) -> TrainResult:
        config, state = self.config, self.state
        self.say(
            f"{self.model.n_parameters:,} parameters, {len(self.shards.train):,} tokens to learn from, "
            f"{self.execution.describe()}."
            + (f" Going on from {self.checkpoint}." if self.checkpoint else "")
        )
        with (
            MetricsLog(config.out, state.step if self.checkpoint else -1, config.tensorboard) as self.metrics,
            Progress(config.steps, state.step, self.say) as self.progress,
            Interruption() as self.interruption,
        ):
            config.save(config.out / RUN_CONFIG)  # now that all of it has turned out to work
            self.clock = Clock(state.seconds, config.max_minutes)
            if self.checkpoint is None:
                self.evaluate()  # what an untrained model is worth: about log V
            self.model.train()
            stopped = self.outcome()  # a run that goes on may have nothing left to do
            while stopped is None:
                state.step += 1
                loss, grad_norm = self.optimizer_step(state.step)
                if self.is_due(config.log_every_steps):
                    self.log(loss, grad_norm)
                if self.is_due(config.eval_every_steps):
                    self.evaluate()
                if self.is_due(config.sample_every_steps):
                    self.sample()
                stopped = self.outcome() or self.wish()
                if stopped or self.is_due(config.checkpoint_every_steps) or self.is_best_to_keep():
                    self.save()
        return self.result(stopped)

    def optimizer_step(self, step: int) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Step number `step`: the loss before it and the norm of its gradient, both still on the device."""
        config, n_micro_batches = self.config, self.config.n_micro_batches
        torch.manual_seed(dropout_seed(config.seed, step))
        numbers = range((step - 1) * n_micro_batches, step * n_micro_batches)
        loss, grad_norm = self.step(map(self.batches.batch, numbers), share_of_highest(step, config))
        n_tokens = n_micro_batches * config.micro_batch_size * config.model.context_length
        self.state.tokens += n_tokens
        self.clock.count(n_tokens)
        self.unchecked.append((step, loss, grad_norm))
        self.progress.advance()
        return loss, grad_norm

    def log(self, loss: Tensor, grad_norm: Tensor) -> None:
        self.check_numbers()
        state = self.state
        speed = self.clock.tokens_per_second()
        self.metrics.append(
            {
                "step": state.step,
                "loss": loss.item(),
                "lr": learning_rate(state.step, self.config),
                "grad_norm": grad_norm.item(),
                "tokens": state.tokens,
                "tokens_per_second": round(speed, 1),
                "seconds": round(self.clock.seconds(), 3),
            }
        )
        self.progress.show(state.step, loss.item(), speed)

    def evaluate(self) -> None:
        self.check_numbers()
        self.check_weights()
        state = self.state
        with self.clock.paused():
            state.val_loss = evaluate(self.model, self.windows, self.config.micro_batch_size, self.execution)
        if not math.isfinite(state.val_loss):
            raise self.lost(f"Held-out loss is {state.val_loss:.4g}", state.step)
        if state.val_loss < state.best_val_loss:
            state.best_val_loss, state.best_step, state.evals_since_best = state.val_loss, state.step, 0
        else:
            state.evals_since_best += 1
        bits = self.val_bits_per_byte()
        self.metrics.append(
            {
                "step": state.step,
                "val_loss": state.val_loss,
                "val_bits_per_byte": bits,
                "tokens": state.tokens,
                "seconds": round(self.clock.seconds(), 3),
            }
        )
        self.progress.val_loss = state.val_loss
        self.say(f"step {state.step:,}: held-out loss {state.val_loss:.4f}, {bits:.3f} bits per byte")

    def sample(self) -> None:
        self.check_numbers()
        self.check_weights()
        try:
            with self.clock.paused():
                text = write_sample(self.model, self.tokenizer, self.prompt, self.config, self.state.step)
        except GenerationError as fault:  # the prompt was checked at the start
            raise self.lost("A sample's logits are no numbers", self.state.step) from fault
        self.say(f"step {self.state.step:,} writes: {' '.join(text.split())}")

    def save(self) -> None:
        self.check_numbers()
        self.check_weights()
        with self.clock.paused():
            self.metrics.sync()  # before the checkpoint that counts on these lines
            self.state.seconds = self.clock.seconds()
            self.checkpoint = save_checkpoint(
                self.config.out, self.model, self.tokenizer, self.step.optimizer, self.state
            )
            prune_checkpoints(self.config.out, self.config.keep_checkpoints, self.state.best_step)
            draw_loss(read_metrics(self.config.out), self.config.out / LOSS_PLOT)

    def check_numbers(self) -> None:
        """Raise ConfigError if the loss or the gradient of any step since the last look was not a number.

        Looking makes the processor wait for the device, so it happens only now and then; but always before
        a checkpoint, which therefore never holds such weights.
        """
        for step, *numbers in self.unchecked:
            loss, grad_norm = torch.stack(numbers).tolist()
            if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                raise self.lost(f"Loss is {loss:.4g}", step, f", gradient norm {grad_norm:.2g}")
        self.unchecked.clear()

    def check_weights(self) -> None:
        """Raise ConfigError if any weight is not a number: a step can be too large for float32 though its
        loss and gradient were not."""
        if not torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()]).all():
            raise self.lost("Weights are no longer numbers", self.state.step)

    def lost(self, what: str, step: int, more: str = "") -> ConfigError:
        clip = self.config.optimizer.grad_clip
        remedy = "set optimizer.grad_clip" if clip is None else f"optimizer.grad_clip (now {clip:g})"
        rates = "optimizer.lr, optimizer.muon_lr" if self.config.optimizer.name == "muon" else "optimizer.lr"
        return ConfigError(
            f"{what} at step {step:,} (lr {learning_rate(step, self.config):.2g}{more}). "
            f"Last good checkpoint: {self.checkpoint.name if self.checkpoint else 'none yet'}. "
            f"Lower {rates} or {remedy}."
        )

    def is_due(self, every_steps: int | None) -> bool:
        """Whether something done so often is done at this step; all is done at the last one."""
        if every_steps is None:
            return False
        return self.state.step % every_steps == 0 or self.state.step == self.config.steps

    def is_best_to_keep(self) -> bool:
        """With early stopping, the weights that a run was stopped for are somewhere before its end."""
        return self.config.early_stop_evals is not None and self.state.best_step == self.state.step

    def outcome(self) -> Stopped | None:
        patience = self.config.early_stop_evals
        if self.state.step >= self.config.steps:
            return "finished"
        if patience is not None and self.state.evals_since_best >= patience:
            return "early stop"
        return None

    def wish(self) -> Stopped | None:
        if self.interruption.requested:
            return "interrupted"
        return "time" if self.clock.is_over() else None

    def val_bits_per_byte(self) -> float:
        return bits_per_byte(self.state.val_loss, len(self.shards.val), self.shards.val_bytes)

    def result(self, stopped: Stopped) -> TrainResult:
        state, run = self.state, self.config.out
        assert self.checkpoint is not None, "the last step saves"
        numbers = {"step": f"{state.step:,}", "best_step": f"{state.best_step:,}"}
        self.say(_LAST_WORDS[stopped].format(**numbers, checkpoint=self.checkpoint, run=run))
        return TrainResult(
            run=run,
            checkpoint=self.checkpoint,
            stopped=stopped,
            step=state.step,
            tokens=state.tokens,
            seconds=state.seconds,
            n_parameters=self.model.n_parameters,
            val_loss=state.val_loss,
            val_bits_per_byte=self.val_bits_per_byte(),
            best_val_loss=state.best_val_loss,
            best_step=state.best_step,
        )


_GO_ON = "To go on: glassgpt train --resume {run}"
_LAST_WORDS: dict[Stopped, str] = {
    "finished": "Finished all {step} steps: {checkpoint}",
    "early stop": "Stopped at step {step}, as the held-out loss no longer falls: {checkpoint}. "
    "The best stays beside it: step {best_step}.",
    "interrupted": "Interrupted after step {step}, saved as {checkpoint}. " + _GO_ON,
    "time": "Time is up after step {step}, saved as {checkpoint}. " + _GO_ON,
}


def dropout_seed(seed: int, step: int, rank: int = 0) -> int:
    """What random numbers inside the model start from at a step: a function of (seed, step, rank), so that
    no state of a generator need be saved."""
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _cuda_devices(execution: Execution) -> list[torch.device]:
    return [execution.device] if execution.device.type == "cuda" else []
