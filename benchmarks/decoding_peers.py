"""The peers that generate with GPT-2: each gets the same weights in its own format, and its best settings.

None of their loops is Python's where they have one of their own; llama.cpp's is, as ours is, with its scores
compared by NumPy, which takes 1% of its time.
"""

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpt2_weights import load_theirs, their_folder
from benchmarks.rows import Setting, Side, Taken
from benchmarks.texts import ONE, Task, Text, time_texts

CONTEXT, VOCABULARY = 1024, 50_257


def write_transformers(
    task: Task, setting: Setting, device: str = "cpu", numbers: str = "float32", **options: Any
) -> Taken:
    """Their `generate` with its cache, and `options` for it."""
    import torch

    model = load_theirs(setting).to(device, getattr(torch, numbers))

    class Streamer:
        """Gets the prompts first, then the new tokens of each step."""

        def __init__(self) -> None:
            self.text: Text | None = None

        def put(self, token_ids: Any) -> None:
            if self.text is None:
                self.text = Text()
            else:
                self.text.add(token_ids.tolist())

        def end(self) -> None:
            pass

    def write(prompts: list[list[int]], n_tokens: int) -> Text:
        streamer, token_ids = Streamer(), torch.tensor(prompts, device=device)
        model.generate(
            token_ids,
            attention_mask=torch.ones_like(token_ids),
            max_new_tokens=n_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            streamer=streamer,
            **options,
        )
        assert streamer.text is not None
        return streamer.text

    return time_texts(write, task, setting)


# CTranslate2


def ctranslate2_side(numbers: str) -> Side:
    return Side(f"ctranslate2 {numbers}", partial(write_ctranslate2, numbers), "ctranslate2")


def ctranslate2_folder(setting: Setting) -> Path:
    return setting.folder / "gpt2-ctranslate2"


def write_ctranslate2_folder(setting: Setting) -> None:
    """Their converter's own work, but with numbers for a vocabulary."""
    try:
        from ctranslate2.converters.transformers import GPT2Loader
    except ModuleNotFoundError:
        return
    if ctranslate2_folder(setting).is_dir():
        return
    spec = GPT2Loader().get_model_spec(load_theirs(setting))
    spec.register_vocabulary([str(token_id) for token_id in range(VOCABULARY)])
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = str(VOCABULARY - 1)
    spec.validate()
    spec.optimize()
    ctranslate2_folder(setting).mkdir()
    spec.save(str(ctranslate2_folder(setting)))


def write_ctranslate2(numbers: str, setting: Setting) -> Taken:
    import os

    import ctranslate2

    generator = ctranslate2.Generator(
        str(ctranslate2_folder(setting)),
        compute_type=numbers,
        inter_threads=1,
        intra_threads=os.cpu_count(),
    )

    def write(prompts: list[list[int]], n_tokens: int) -> Text:
        text = Text()

        def keep(step: Any) -> bool:
            text.add([step.token_id])
            return False  # True would end the text

        generator.generate_batch(
            [[str(token_id) for token_id in prompt] for prompt in prompts],
            max_length=n_tokens,
            min_length=n_tokens,
            include_prompt_in_result=False,
            callback=keep,
        )
        return text

    return time_texts(write, ONE, setting)


# llama.cpp


def llama_side(kind: str) -> Side:
    return Side(f"llama.cpp {kind}", partial(write_llama, kind), "llama_cpp", "llama-cpp-python gguf")


def gguf_file(setting: Setting, kind: str) -> Path:
    return setting.folder / f"gpt2-{kind}.gguf"


GGUF_NAMES = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm",
    "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}  # fmt: skip


def write_gguf_files(setting: Setting) -> None:
    """What their converter writes: matrices in f16 or q8_0, positions, norms and biases in float32."""
    try:
        from gguf import GGMLQuantizationType, GGUFWriter, quants
    except ModuleNotFoundError:
        return
    import numpy as np
    from safetensors.numpy import load_file

    kinds = {"f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}
    if all(gguf_file(setting, kind).exists() for kind in kinds):
        return
    weights = load_file(their_folder(setting) / "model.safetensors")
    for kind, dtype in kinds.items():
        writer = GGUFWriter(str(gguf_file(setting, kind)), "gpt2")
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(768)
        writer.add_feed_forward_length(4 * 768)
        writer.add_block_count(12)
        writer.add_head_count(12)
        writer.add_layer_norm_eps(1e-5)
        writer.add_vocab_size(VOCABULARY)
        writer.add_tokenizer_model("no_vocab")
        for name, tensor in weights.items():
            parts = name.removeprefix("transformer.").split(".")
            block = f"blk.{parts[1]}." if parts[0] == "h" else ""
            inner = ".".join(parts[2:-1] if block else parts[:-1])
            if inner.startswith(("attn", "mlp")) and tensor.ndim == 2:
                tensor = tensor.T  # theirs are (in, out)
            tensor = np.ascontiguousarray(tensor, np.float32)
            theirs = dtype if tensor.ndim == 2 and inner != "wpe" else GGMLQuantizationType.F32
            writer.add_tensor(
                f"{block}{GGUF_NAMES[inner]}.{parts[-1]}", quants.quantize(tensor, theirs), raw_dtype=theirs
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def write_llama(kind: str, setting: Setting) -> Taken:
    import os

    import llama_cpp
    import numpy as np

    n_threads = os.cpu_count()
    llama = llama_cpp.Llama(
        str(gguf_file(setting, kind)),
        n_ctx=CONTEXT,
        n_batch=CONTEXT,
        n_threads=n_threads,
        n_threads_batch=n_threads,
        verbose=False,
    )

    def likeliest() -> int:
        scores = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
        return int(np.ctypeslib.as_array(scores, (VOCABULARY,)).argmax())

    def write(prompts: list[list[int]], n_tokens: int) -> Text:
        text = Text()
        llama.reset()
        llama.eval(prompts[0])
        text.add([likeliest()])
        for _ in range(n_tokens - 1):
            llama.eval(text.steps[-1])
            text.add([likeliest()])
        return text

    return time_texts(write, ONE, setting)
