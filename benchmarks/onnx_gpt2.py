"""GPT-2 for onnxruntime, in int8: its own attention over a cache that stays in place, dynamically quantised.

A graph of float32 operations is written out and given to onnxruntime's `quantize_dynamic`, which turns the
products into int8, weights per column, activations as they come. Tokens, positions and the cache go in; the
likeliest token comes out, so that no scores are copied.
"""

import os
from pathlib import Path
from typing import Any

from benchmarks.gpt2_weights import their_folder
from benchmarks.rows import Setting, Side, Taken
from benchmarks.texts import ONE, Text, time_texts

L, D, H, CONTEXT = 12, 768, 12, 1024


def onnxruntime_side() -> Side:
    return Side("onnxruntime int8", write_onnxruntime, "onnxruntime", "onnxruntime onnx")


def onnx_file(setting: Setting) -> Path:
    return setting.folder / "gpt2-int8.onnx"


def write_onnx_model(setting: Setting) -> None:
    """The quantised graph; nothing where onnx or onnxruntime is not installed."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ModuleNotFoundError:
        return
    if onnx_file(setting).exists():
        return
    from safetensors.numpy import load_file

    exact = setting.folder / "gpt2-float32.onnx"
    onnx.save(gpt2_graph(load_file(their_folder(setting) / "model.safetensors")), exact)
    quantize_dynamic(
        exact,
        onnx_file(setting),
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # behind an operation of their own
    )
    exact.unlink()


def gpt2_graph(weights: dict[str, Any]) -> Any:
    """GPT-2's operations one by one; what ends in com.microsoft is onnxruntime's own, and faster."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, values: Any) -> str:
        constants.append(numpy_helper.from_array(values, name))
        return name

    def weight(name: str) -> str:
        return constant(name, weights[f"transformer.{name}"])

    def node(kind: str, *inputs: str, outputs: int = 1, domain: str = "", **settings: Any) -> list[str]:
        names = [f"{kind}{len(nodes)}_{place}" for place in range(outputs)]
        nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **settings))
        return names

    def norm(x: str, name: str) -> str:
        return node("LayerNormalization", x, weight(f"{name}.weight"), weight(f"{name}.bias"), epsilon=1e-5)[
            0
        ]

    def linear(x: str, name: str) -> str:
        product = node("MatMul", x, weight(f"{name}.weight"))[0]
        return node("Add", product, weight(f"{name}.bias"))[0]

    (tokens,) = node("Gather", weight("wte.weight"), "ids")
    (places,) = node("Gather", weight("wpe.weight"), "positions")
    (x,) = node("Add", tokens, places)  # (1, T, D)
    renamed: dict[str, str] = {}
    for layer in range(L):
        q, k, v = node(
            "Split",
            linear(norm(x, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn"),
            outputs=3,
            axis=-1,
            num_outputs=3,
        )
        cache = [f"past_keys_{layer}", f"past_values_{layer}"]
        mixed, keys, values = node(
            "GroupQueryAttention",
            *[q, k, v, *cache, "last_place", "n_tokens"],
            outputs=3,
            domain="com.microsoft",
            num_heads=H,
            kv_num_heads=H,
        )
        renamed |= {keys: f"keys_{layer}", values: f"values_{layer}"}
        (x,) = node("Add", x, linear(mixed, f"h.{layer}.attn.c_proj"))
        wide = linear(norm(x, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc")
        (bent,) = node("FastGelu", wide, domain="com.microsoft")
        (x,) = node("Add", x, linear(bent, f"h.{layer}.mlp.c_proj"))
    (last,) = node("Gather", x, constant("last", np.array([-1])), axis=1)  # (1, 1, D)
    head = constant("head", np.ascontiguousarray(weights["transformer.wte.weight"].T))
    (scores,) = node("MatMul", norm(last, "ln_f"), head)
    nodes.append(helper.make_node("ArgMax", [scores], ["likeliest"], axis=-1, keepdims=0))
    for made in nodes:
        made.output[:] = [renamed.get(name, name) for name in made.output]

    integers, numbers = TensorProto.INT64, TensorProto.FLOAT
    cache_shape = [1, H, CONTEXT, D // H]
    inputs: list[tuple[str, Any, list[Any]]] = [
        ("ids", integers, [1, "T"]),
        ("positions", integers, [1, "T"]),
    ]
    inputs += [("last_place", TensorProto.INT32, [1]), ("n_tokens", TensorProto.INT32, [1])]
    inputs += [(f"past_{kind}_{i}", numbers, cache_shape) for i in range(L) for kind in ("keys", "values")]
    outputs: list[tuple[str, Any, list[Any]]] = [("likeliest", integers, [1, 1])]
    outputs += [(f"{kind}_{i}", numbers, cache_shape) for i in range(L) for kind in ("keys", "values")]
    graph = helper.make_graph(
        nodes,
        "gpt2",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        constants,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def write_onnxruntime(setting: Setting) -> Taken:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx_file(setting), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_output("likeliest")
    for layer in range(L):
        for kind in ("keys", "values"):  # read and written in the same memory
            cache = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, H, CONTEXT, D // H), np.float32))
            binding.bind_ortvalue_input(f"past_{kind}_{layer}", cache)
            binding.bind_ortvalue_output(f"{kind}_{layer}", cache)

    def read(token_ids: list[int], n_before: int) -> int:
        n_tokens = n_before + len(token_ids)
        inputs = {  # bound where they lie, so they must outlive the run
            "ids": np.array([token_ids]),
            "positions": np.arange(n_before, n_tokens)[None],
            "last_place": np.array([n_tokens - 1], np.int32),
            "n_tokens": np.array([n_tokens], np.int32),
        }
        for name, values in inputs.items():
            binding.bind_cpu_input(name, values)
        session.run_with_iobinding(binding)
        return int(binding.get_outputs()[0].numpy()[0, 0])

    def write(prompts: list[list[int]], n_tokens: int) -> Text:
        text, (prompt,) = Text(), prompts
        text.add([read(prompt, 0)])
        for place in range(n_tokens - 1):
            text.add([read(text.steps[-1], len(prompt) + place)])
        return text

    return time_texts(write, ONE, setting)
