"""The step for a GPU, as far as a CPU can tell: its arithmetic, its compiler, and its bookkeeping."""

import contextlib
import warnings
from unittest.mock import MagicMock

import pytest
import torch
from torch.backends import cuda

from glassgpt.decoding import CompiledStep, compile_decoding, compiled, quantize, why_not_compiled
from glassgpt.errors import GenerationError
from glassgpt.generation import SamplingConfig, generate, window
from glassgpt.model import GPT, KVCache
from tests.alone import run_alone
from tests.decoding.models import KINDS, a_model, record_by_running


@pytest.fixture
def on_the_cpu(monkeypatch):
    return record_by_running(monkeypatch)


def compare(model, n_rows: int, n_padding: list[int] | None = None, atol: float = 1e-12) -> None:
    """PyTorch's logits and the step's: five tokens behind a prompt of seven, in memory full of nan."""
    padding = None if n_padding is None else torch.tensor(n_padding)
    dtype = model.final_norm.weight.dtype
    theirs, ours = (KVCache(model.config, n_rows, 17, n_padding=padding, dtype=dtype) for _ in range(2))
    ours.keys.fill_(torch.nan)
    ours.values.fill_(torch.nan)
    step, token_ids = CompiledStep(model), torch.randint(model.config.vocab_size, (n_rows, 12))
    with torch.inference_mode():
        model.hidden(token_ids[:, :7], theirs)
        model.hidden(token_ids[:, :7], ours)
        for t in range(7, 12):
            expected = model(token_ids[:, t : t + 1], theirs)[:, 0]
            logits = step.logits(token_ids[:, t].tolist(), ours)
            torch.testing.assert_close(logits, expected, rtol=0, atol=atol)
    assert ours.n_tokens == theirs.n_tokens == 12
    torch.testing.assert_close(ours.keys[..., :12, :], theirs.keys[..., :12, :], rtol=0, atol=atol)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_the_static_step_computes_what_the_model_does(kind, on_the_cpu):
    compare(a_model(**kind).double(), 3)


@pytest.mark.parametrize("positions", ["learned", "rope", "none"])
@pytest.mark.parametrize("attention_window", [None, 3])
def test_padding_is_never_seen_and_positions_count_from_the_first_token(
    positions, attention_window, on_the_cpu
):
    compare(a_model(positions=positions, attention_window=attention_window).double(), 3, [0, 5, 2])


@pytest.mark.parametrize("numbers", ["bfloat16", "int8"])
def test_quantised_weights_serve_too(numbers, on_the_cpu):
    # attention adds in another order, and what is rounded to bfloat16 behind it may fall on either side
    compare(quantize(a_model(), numbers), 2, atol=0.05)


def test_a_recording_is_made_once_for_a_cache_and_anew_for_another(on_the_cpu):
    model = a_model()
    step, caches = CompiledStep(model), [KVCache(model.config, 2, 9) for _ in range(2)]
    with torch.inference_mode():
        first = step.logits([3, 5], caches[0])
        kept = first.clone()
        step.logits([7, 2], caches[0])
        assert torch.equal(first, kept)  # not overwritten by the second
        assert len(on_the_cpu) == 1
        torch.testing.assert_close(step.logits([3, 5], caches[1]), first)
        assert len(on_the_cpu) == 2


def test_padding_that_is_gone_is_forgotten(on_the_cpu):
    model = a_model()
    step, cache = CompiledStep(model), KVCache(model.config, 2, 9, n_padding=torch.tensor([0, 1]))
    with torch.inference_mode():
        model(torch.tensor([[3, 5], [0, 7]]), cache)
        step.logits([1, 1], cache)
        cache.n_tokens, cache.n_padding = 1, None  # as when a window drops its older half
        fresh = KVCache(model.config, 2, 9)
        model(torch.tensor([[3], [0]]), fresh)
        cache.keys[..., :1, :], cache.values[..., :1, :] = fresh.keys[..., :1, :], fresh.values[..., :1, :]
        expected = model(torch.tensor([[1], [1]]), fresh)[:, 0]
        torch.testing.assert_close(step.logits([1, 1], cache), expected)


def test_a_model_in_training_is_recorded_without_dropout_and_left_in_training(on_the_cpu):
    model = a_model(dropout=0.5)
    expected = CompiledStep(model).logits([3, 5], KVCache(model.config, 2, 9))
    step = CompiledStep(model.train())
    assert torch.equal(step.logits([3, 5], KVCache(model.config, 2, 9)), expected)
    assert all(module.training for module in model.modules())


def test_a_full_cache_is_an_error(on_the_cpu):
    model = a_model()
    step, cache = CompiledStep(model), KVCache(model.config, 1, 1)
    with torch.inference_mode():
        step.logits([3], cache)
        with pytest.raises(GenerationError, match="1 of at most 1 tokens"):
            step.logits([3], cache)


def test_generated_text_is_the_same_also_when_windows_slide_and_rows_differ(on_the_cpu, monkeypatch):
    model = a_model(context_length=11)
    prompts = [[3, 5, 7], [2], [9, 1, 4, 4, 8, 8, 1, 3, 2, 6, 7]]
    sampling = SamplingConfig(max_new_tokens=25, seed=1)
    monkeypatch.setenv("GLASSGPT_NATIVE", "0")
    expected = list(generate(model, prompts, sampling))
    monkeypatch.setattr(window, "why_not_compiled", lambda model: None)
    assert list(generate(model, prompts, sampling)) == expected
    assert len(on_the_cpu) == 1


def test_without_a_compiler_it_warns_and_goes_on(monkeypatch):
    def fail():
        raise RuntimeError("Cannot find a working triton installation.\nMore lines.")

    model = a_model()
    monkeypatch.setattr(compiled, "record", lambda run, device: run())
    monkeypatch.setattr(compiled, "_compiled_block", fail)
    step, cache = CompiledStep(model), KVCache(model.config, 2, 9)
    with torch.inference_mode():
        with pytest.warns(UserWarning, match=r"RuntimeError: Cannot find a working triton installation\.\)"):
            first = step.logits([3, 5], cache)
        with warnings.catch_warnings(action="error"):  # it is said once
            step.logits([7, 2], cache)
    torch.testing.assert_close(first, model(torch.tensor([[3], [5]]))[:, 0])


def test_it_is_used_when_asked_for_on_a_gpu():
    model = a_model()
    assert why_not_compiled(model) == "compile_decoding(model) was not called"
    assert compile_decoding(model) is model
    assert why_not_compiled(model) == "the model is on cpu"
    on_gpu = compile_decoding(a_model().to("meta"))
    assert why_not_compiled(on_gpu) == "the model is on meta"


@pytest.mark.parametrize("register", ["forward_hook", "forward_pre_hook"])
def test_it_is_never_used_past_hooks(register, monkeypatch):
    model = compile_decoding(a_model())
    monkeypatch.setattr(type(model.head.weight), "device", torch.device("cuda"))
    assert why_not_compiled(model) is None
    module = torch.nn.modules.module
    for hang, words in (
        (getattr(model.blocks[1].feedforward, f"register_{register}"), "blocks.1.feedforward has hooks"),
        (getattr(model, f"register_{register}"), "the model has hooks"),
        (getattr(module, f"register_module_{register}"), "hooks for all modules"),
    ):
        with hang(lambda *_: None):
            assert words in why_not_compiled(model)
    assert why_not_compiled(model) is None


def test_caches_have_few_sizes_and_none_beyond_the_context():
    assert [CompiledStep.n_columns(n, 1000) for n in (1, 128, 129, 900)] == [128, 128, 256, 1000]


COMPILING = """
import torch
from glassgpt.decoding import CompiledStep, compiled, quantize
from glassgpt.model import GPT, KVCache, ModelConfig

graphs = []
def backend(graph, example_inputs):  # the compiler proper takes long, and is PyTorch's to test
    graphs.append(graph)
    return graph.forward

compiled.record = lambda run, device: (lambda: None, run())
compile = torch.compile
torch.compile = lambda function, **settings: compile(function, backend=backend, fullgraph=True, **settings)
torch.manual_seed(0)
model = GPT(ModelConfig(vocab_size=53, context_length=17, d_model=16, n_layers=5, n_heads=4)).double()
cache = KVCache(model.config, 3, 17, dtype=torch.float64)
with torch.inference_mode():
    logits = CompiledStep(model).logits([3, 5, 7], cache)
    torch.testing.assert_close(logits, model(torch.tensor([[3], [5], [7]]))[:, 0], rtol=0, atol=1e-12)
    print(len(graphs))
    for n_columns in range(3, 13):
        CompiledStep(model).logits([3], KVCache(model.config, 1, n_columns, dtype=torch.float64))
    print(len(graphs))
    for to in ("bfloat16", "int8"):
        CompiledStep(quantize(model, to)).logits([3], KVCache(model.config, 1, 17))
    print(len(graphs))
"""


def test_all_blocks_share_what_is_compiled_once_for_each_of_many_shapes():
    assert run_alone(COMPILING) == "1\n11\n13\n"


def test_the_head_is_padded_and_what_was_added_is_not_seen(monkeypatch):
    model = a_model(vocab_size=53)
    shapes, linear = [], compiled.F.linear
    monkeypatch.setattr(
        compiled.F, "linear", lambda x, weight: (shapes.append(weight.shape), linear(x, weight))[1]
    )
    x = torch.randn(3, 1, 64)
    logits = compiled.padded_head(model)(x)
    assert shapes == [(64, 64)]
    torch.testing.assert_close(logits, linear(x, model.head.weight))
    whole = a_model(vocab_size=128)
    assert compiled.padded_head(whole) is whole.head


@pytest.mark.parametrize("kind", KINDS[::5], ids=lambda kind: "-".join(map(str, kind.values())))
def test_the_step_asks_its_device_for_no_number_and_uses_no_other(kind, on_the_cpu):
    """Either would wait for a GPU, or could not be recorded. "meta" has no numbers, and refuses both."""
    model = GPT.uninitialised(a_model(**kind).config, device="meta")
    cache = KVCache(model.config, 3, 17, device="meta")
    step, newest = CompiledStep(model), torch.empty(3, dtype=torch.long, device="meta")
    with torch.inference_mode():
        logits = [step.logits(newest, cache) for _ in range(2)]
    assert len(on_the_cpu) == 1
    assert {(part.device.type, part.shape) for part in logits} == {("meta", (3, 53))}


def test_a_recording_is_made_on_a_stream_of_its_own_device(monkeypatch):
    devices, streams = [], []

    @contextlib.contextmanager
    def on(device):
        devices.append(device)
        yield
        devices.pop()

    def make_stream():
        streams.append(MagicMock(device=devices[-1]))
        return streams[-1]

    recorded, clear = MagicMock(), MagicMock()
    order = MagicMock(recorded=recorded, clear=clear)
    for name, stand_in in {"device": on, "Stream": make_stream, "graph": recorded}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", clear, raising=False)
    for name in ("CUDAGraph", "current_stream", "stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    for device in map(torch.device, ("cuda:0", "cuda:1")):
        compiled.record(lambda: None, device)
        assert recorded.call_args.kwargs["stream"] is streams[-1]
        assert streams[-1].device == device
        steps = [name for name, *_ in order.mock_calls]
        assert steps == ["clear", "recorded", "recorded().__enter__", "recorded().__exit__", "clear"]
        assert torch.cuda.stream.call_args_list[0].args == (torch.cuda.current_stream.return_value,)
        torch.cuda.stream.reset_mock()
        order.reset_mock()


def test_a_recording_has_no_attention_by_cudnn(monkeypatch):
    allowed = []

    def record(run, device):
        allowed.append(cuda.cudnn_sdp_enabled())
        return lambda: None, run()

    monkeypatch.setattr(compiled, "record", record)
    monkeypatch.setattr(compiled, "_compiled_block", lambda: compiled.block_in_columns)
    model = a_model()
    CompiledStep(model).logits([3], KVCache(model.config, 1, 9))
    assert (allowed, cuda.cudnn_sdp_enabled()) == ([False], True)


ON_A_GPU = """
import torch, warnings
from glassgpt.decoding import CompiledStep, compile_decoding
from glassgpt.generation import SamplingConfig, generate
from glassgpt.model import KVCache
from tests.decoding.models import a_model

warnings.filterwarnings("error", message="The decoding step could not")
prompts, sampling = [[3, 5, 7], [2]], SamplingConfig(max_new_tokens=30, temperature=0.0)
for kind in ({"positions": "rope", "n_kv_heads": 2, "attention_window": 5}, {}):
    model = a_model(**kind).to("cuda")
    expected = list(generate(model, prompts, sampling))
    steps = generate(compile_decoding(model), prompts, sampling)
    written = [next(steps) for _ in range(3)]  # the first one is recorded behind the prompts
    torch.cuda.set_sync_debug_mode("error")
    assert written + list(steps) == expected
    torch.cuda.set_sync_debug_mode("default")

model = model.bfloat16()
step = CompiledStep(model)
seen = []
caches = [KVCache(model.config, 2, 40, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
for token_id in range(20):
    with torch.inference_mode():
        expected = model(torch.full((2, 1), token_id, device="cuda"), caches[0])[:, -1].float()
        logits = step.logits([token_id] * 2, caches[1])
    assert (logits.float() - expected).abs().max() < 0.1 * expected.std(), token_id
    seen.append((logits, logits.clone()))
assert all(torch.equal(logits, as_they_were) for logits, as_they_were in seen)

with torch.inference_mode():
    expected = model(torch.full((2, 1), 3, device="cuda"), caches[0])[:, -1].float()
    model.float()  # the recording goes on with the weights that it has seen
    logits = step.logits([3, 3], caches[1])
assert (logits.float() - expected).abs().max() < 0.1 * expected.std()
"""


def test_on_a_gpu_the_recorded_step_writes_the_same_text(python_with_gpu):
    python_with_gpu(ON_A_GPU)
