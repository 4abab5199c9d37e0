"""Training on the CPU, beside `transformers` as a first script uses it.

A step is forward, backward and an optimizer step on random token ids; the first two steps of each process
are not counted, as memory is touched for the first time in them. Theirs is `GPT2LMHeadModel` in training
mode and float32, with its own loss and `torch.optim.AdamW` at its defaults. Ours are the parts that
`glassgpt.training.train` puts together.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.limits import MATRIX
from benchmarks.processes import peak_gigabytes, seconds
from benchmarks.rows import OURS, Bound, Check, Ratio, Row, Setting, Share, Side, Taken
from glassgpt.model import ModelConfig, gpt2
from glassgpt.model.costs import estimate

if TYPE_CHECKING:
    from torch import Tensor

    from glassgpt.model import GPT

WARMUP_STEPS = 2
SAME_LOSS, NEAR_LOSS = 1e-4, 2e-2  # float32's rounding; bfloat16's, whose numbers have 8 bits

SMALL = ModelConfig(vocab_size=65, context_length=256, d_model=384, n_layers=6, n_heads=6)
"""nanoGPT's model of characters: 10.7 million parameters."""


def same_start(config: ModelConfig, B: int, T: int) -> tuple["GPT", "Tensor"]:
    """The weights and the T + 1 tokens of each sequence that everybody starts from."""
    import torch

    from glassgpt.model import GPT

    torch.manual_seed(0)
    return GPT(config), torch.randint(config.vocab_size, (B, T + 1))


def speeds(step: Callable[[], object], n_tokens: int, n_steps: int, setting: Setting) -> list[float]:
    """Tokens/s of each step that counts."""
    n_warmup, n_steps = (1, 1) if setting.quick else (WARMUP_STEPS, n_steps)
    taken = [seconds(step) for _ in range(n_warmup + n_steps)]
    return [n_tokens / second for second in taken[n_warmup:]]


def train_ours(config: ModelConfig, B: int, T: int, n_steps: int, dropout: float, setting: Setting) -> Taken:
    import torch

    from glassgpt.training import TrainConfig, linear_cross_entropy
    from glassgpt.training.loss import IGNORED
    from glassgpt.training.precision import choose_execution
    from glassgpt.training.step import TrainStep

    config = replace(config, dropout=dropout)
    settings = TrainConfig(model=config, device="cpu", micro_batch_size=B)
    execution = choose_execution(settings)
    execution.prepare()
    model, ids = same_start(config, B, T)
    token_ids, targets = ids[:, :-1], ids[:, 1:]
    shown = targets.clone()
    shown[:, -1] = IGNORED  # theirs does not see the last target

    model.eval()

    def first_loss() -> float:
        return linear_cross_entropy(model.hidden(token_ids), model.head.weight, shown).item()

    with torch.no_grad():
        exact = first_loss()
        with execution.autocast():
            rounded = first_loss()
    step = TrainStep(model.train(), settings, execution)

    return Taken(
        speeds(lambda: step([(token_ids, targets)]), B * T, n_steps, setting),
        output={"float32": exact, "as trained": rounded},
        beside={"peak GB": peak_gigabytes()},
        note=str(execution.dtype).removeprefix("torch."),
    )


def their_model(ours: "GPT", dropout: float) -> Any:
    """transformers' model with the weights of `ours`."""
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    from glassgpt.pretrained.huggingface_config import DROPOUTS, config_to
    from glassgpt.pretrained.huggingface_export import state_dict

    logging.set_verbosity_error()
    model = GPT2LMHeadModel(GPT2Config(**config_to(ours.config) | dict.fromkeys(DROPOUTS, dropout)))
    model.loss_type = "ForCausalLM"  # the same as by default, but for a warning that cannot be compiled
    missing, unexpected = model.load_state_dict(state_dict(ours), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], []), "the weights are not the same"
    return model


def train_theirs(
    config: ModelConfig, B: int, T: int, n_steps: int, dropout: float, setting: Setting
) -> Taken:
    import torch

    ours, ids = same_start(config, B, T)
    token_ids = ids[:, :-1]
    model = their_model(ours, dropout)
    del ours
    model.eval()
    with torch.no_grad():
        exact = model(token_ids, labels=token_ids).loss.item()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        model(token_ids, labels=token_ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Taken(
        speeds(step, B * T, n_steps, setting), {"float32": exact}, beside={"peak GB": peak_gigabytes()}
    )


def check_losses(setting: Setting, outputs: Mapping[str, Any]) -> Check:
    ours = outputs[OURS]
    others = [output["float32"] for name, output in outputs.items() if name != OURS]
    far = max((abs(ours["float32"] - loss) for loss in others), default=0.0)
    rounding = max(
        abs(output["as trained"] - output["float32"]) for output in outputs.values() if "as trained" in output
    )
    return Check(
        far <= SAME_LOSS and rounding <= NEAR_LOSS,
        f"from the same weights and batch, without dropout, the first loss is {ours['float32']:.5f} in "
        f"float32 and differs by {far:.1e} from the others' (allowed {SAME_LOSS:g}), by {rounding:.1e} in "
        f"the precision that ours trains in (allowed {NEAR_LOSS:g}).",
    )


def row(name: str, what: str, config: ModelConfig, B: int, T: int, n_steps: int, **wanted: Any) -> Row:
    operations = estimate(config, tokens=T).training_flops_per_token
    ours, theirs = (partial(train, config, B, T, n_steps) for train in (train_ours, train_theirs))
    return Row(
        name=name,
        what=what,
        unit="tokens/s",
        how=f"a step is forward, backward and AdamW on {B} × {T} tokens, behind {WARMUP_STEPS} that do not "
        "count; ours without dropout, transformers with its own of 0.1, and each the other way, too.",
        sides=(
            Side(OURS, partial(ours, 0.0)),
            Side("ours with dropout 0.1", partial(ours, 0.1)),
            Side("transformers", partial(theirs, 0.1), "transformers"),
            Side("transformers without dropout", partial(theirs, 0.0), "transformers"),
        ),
        check=check_losses,
        bound=Bound(MATRIX, operations, f"6N + 12·L·H·Q·T = {operations / 1e9:.3g} G operations a token"),
        rounds=2,
        **wanted,
    )


ROWS = [
    row(
        "train-124m",
        "train 124M, batch 4 × 256",
        gpt2("124M"),
        4,
        256,
        3,
        goals=(Ratio(beside=("transformers",), at_least=2.4, aim=2.8), Share(aim=0.8)),
    ),
    row(
        "train-10m",
        "train 10M (6 × 384), batch 12 × 256",
        SMALL,
        12,
        256,
        8,
        goals=(Ratio(beside=("transformers",), at_least=2.2, aim=2.8),),
    ),
]
