"""Says how far quantised models' words are from f32, ours beside llama.cpp's, as a table in Markdown.

    cargo build --release --workspace --example quality --example blocks
    target/release/examples/quality MODEL TEXT... --dump DUMP
    python compare.py MODEL DUMP --blocks target/release/examples/blocks

MODEL is a checkpoint of the Qwen2-VL architecture. llama.cpp reads the same tokens, and pictures as the same rows, through

  same bytes     weights that our quantiser made: the blocks are copied into a GGUF file
  own bytes      weights that its own quantiser made, in the same format everywhere
  weights alone  our weights as f32: what is lost before anything is computed

and is compared with itself in f32; ours is compared with ours in f32. A cell is the mean and the 99th percentile of the KL divergence
in nats, and how often the most probable word is the same. The last column is the relative root mean square error of the quantised
weights, ours and of llama.cpp's quantiser. Needs numpy, gguf, llama-cpp-python.
"""

import argparse
import ctypes
import json
import struct
import subprocess
import tempfile
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np
from gguf import GGMLQuantizationType as Type

# Our name of a format, llama.cpp's, and what its quantiser calls a file of it.
FORMATS = {
    "q2k": ("Q2_K", "Q2_K"),
    "q3k": ("Q3_K", "Q3_K_M"),
    "q4_0": ("Q4_0", "Q4_0"),
    "q4k": ("Q4_K", "Q4_K_M"),
    "q4_1": ("Q4_1", "Q4_1"),
    "q5_0": ("Q5_0", "Q5_0"),
    "q5k": ("Q5_K", "Q5_K_M"),
    "q5_1": ("Q5_1", "Q5_1"),
    "q6k": ("Q6_K", "Q6_K"),
    "q8_0": ("Q8_0", "Q8_0"),
}
# The formats whose token table is q6k; those of the others is q8_0.
LOW = ["q2k", "q3k", "q4_0", "q4k", "q4_1"]

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def checkpoint(path):
    """The language model's tensors as f32, by llama.cpp's names."""
    data = path.read_bytes()
    header = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, info in json.loads(data[8 : 8 + header]).items():
        if not name.startswith("model."):
            continue
        start, end = (8 + header + at for at in info["data_offsets"])
        if info["dtype"] == "BF16":
            numbers = (np.frombuffer(data[start:end], np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            numbers = np.frombuffer(data[start:end], {"F32": np.float32, "F16": np.float16}[info["dtype"]]).astype(np.float32)
        tensors[renamed(name)] = numbers.reshape(info["shape"])
    return tensors


def renamed(name):
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in fixed:
        return fixed[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def write(path, config, tensors):
    """A GGUF file of (numbers, type) by name."""
    writer = gguf.GGUFWriter(path, "qwen2vl")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_sections(config["rope_scaling"]["mrope_section"] + [0])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    for name, (numbers, kind) in tensors.items():
        writer.add_tensor(name, numbers, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def format_of(name, chosen):
    return ("q6k" if chosen in LOW else "q8_0") if name == "token_embd.weight" else chosen


def our_blocks(program, numbers, chosen):
    kind = FORMATS[chosen][0]
    argument = kind.replace("_K", "K")
    done = subprocess.run([program, argument], input=numbers.tobytes(), stdout=subprocess.PIPE, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(numbers.shape[0], -1), Type[kind]


def quantise(source, target, chosen):
    """llama.cpp's own quantiser."""
    options = llama.llama_model_quantize_default_params()
    options.ftype = getattr(llama, "LLAMA_FTYPE_MOSTLY_" + FORMATS[chosen][1])
    options.pure = True
    table = FORMATS[format_of("token_embd.weight", chosen)][0]
    options.token_embedding_type = getattr(llama, "GGML_TYPE_" + table)
    if llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(options)) != 0:
        raise SystemExit(f"llama.cpp cannot quantise to {chosen}")


def error(tensors, blocks):
    """Root mean square error of the quantised weights, relative to their root mean square."""
    lost = total = 0.0
    for name, (numbers, kind) in blocks.items():
        if kind != Type.F32:
            plain = tensors[name].astype(np.float64)
            lost += ((gguf.quants.dequantize(numbers, kind).reshape(plain.shape) - plain) ** 2).sum()
            total += (plain**2).sum()
    return (lost / total) ** 0.5


def logits(path, cases, media, exact):
    """llama.cpp's logits of the rows that count. Exact: keys and values in f32."""
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    options = llama.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = max(512, max(len(case["tokens"]) for case in cases))
    if exact:
        options.type_k = options.type_v = llama.GGML_TYPE_F32
        options.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama.llama_init_from_model(model, options)
    words = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    found, done = [], 0
    for case in cases:
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        at = 0
        for start, end in case["media"] + [[len(case["tokens"])] * 2]:
            found += read(context, case, (at, start), None, words)
            found += read(context, case, (start, end), media[done : done + end - start], words)
            done, at = done + end - start, end
    llama.llama_free(context)
    llama.llama_model_free(model)
    return np.array(found)


def read(context, case, span, rows, words):
    """Reads some tokens of a case, or the rows that stand in their place."""
    start, end = span
    count = end - start
    if count == 0:
        return []
    first, last = case["counted"]
    counts = [first <= i < last for i in range(start, end)]
    batch = llama.llama_batch(n_tokens=count)
    if rows is None:
        batch.token = (ctypes.c_int32 * count)(*case["tokens"][start:end])
        positions = [p[0] for p in case["positions"][start:end]]
    else:
        rows = np.ascontiguousarray(rows)
        batch.embd = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        positions = [p[axis] for axis in range(3) for p in case["positions"][start:end]] + [0] * count
    batch.pos = (ctypes.c_int32 * len(positions))(*positions)
    batch.n_seq_id = (ctypes.c_int32 * count)(*[1] * count)
    sequence = (ctypes.c_int32 * 1)(0)
    batch.seq_id = (ctypes.POINTER(ctypes.c_int32) * count)(*[ctypes.cast(sequence, ctypes.POINTER(ctypes.c_int32))] * count)
    batch.logits = (ctypes.c_int8 * count)(*counts)
    if llama.llama_decode(context, batch) != 0:
        raise SystemExit("llama.cpp cannot read a case")
    wanted = [i for i, counted in enumerate(counts) if counted]
    return [np.ctypeslib.as_array(llama.llama_get_logits_ith(context, i), (words,)).copy() for i in wanted]


def divergence(expected, found):
    """Mean and 99th percentile of KL(expected || found) over rows, and how often the most probable word is the same."""
    def logs(x):
        x = x.astype(np.float64)
        x = x - x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    p, q = logs(expected), logs(found)
    each = (np.exp(p) * (p - q)).sum(axis=1)
    same = (expected.argmax(axis=1) == found.argmax(axis=1)).mean()
    return {"kl_mean": each.mean(), "kl_99": np.quantile(each, 0.99), "same_word": same}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("dump", type=Path)
    parser.add_argument("--blocks", required=True, help="the program of the example `blocks`")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    @llama.llama_log_callback
    def quiet(level, text, data):
        pass

    llama.llama_log_set(quiet, None)
    config = json.loads((args.model / "config.json").read_text())
    tensors = checkpoint(args.model / "model.safetensors")
    cases = json.loads((args.dump / "cases.json").read_text())
    media = np.fromfile(args.dump / "media.bin", np.float32).reshape(-1, config["hidden_size"])
    ours = lambda name: np.fromfile(args.dump / f"{name}.bin", np.float32).reshape(-1, config["vocab_size"])
    results = []
    with tempfile.TemporaryDirectory() as folder:
        plain, other = Path(folder, "f32.gguf"), Path(folder, "other.gguf")
        write(plain, config, {name: (numbers, Type.F32) for name, numbers in tensors.items()})
        theirs = logits(plain, cases, media, True)
        results.append({"format": "f32", "figures": {"ours and llama.cpp": divergence(ours("f32"), theirs)}})
        for name in FORMATS:
            figures = {"ours": divergence(ours("f32"), ours(name))}
            make = lambda t, x: our_blocks(args.blocks, x, format_of(t, name)) if x.ndim == 2 else (x, Type.F32)
            blocks = {t: make(t, x) for t, x in tensors.items()}
            write(other, config, blocks)
            figures["same bytes"] = divergence(theirs, logits(other, cases, media, False))
            write(other, config, {t: (gguf.quants.dequantize(x, kind), Type.F32) for t, (x, kind) in blocks.items()})
            figures["weights alone"] = divergence(theirs, logits(other, cases, media, True))
            quantise(plain, other, name)
            figures["own bytes"] = divergence(theirs, logits(other, cases, media, False))
            own = {tensor.name: (tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(other).tensors}
            results.append({"format": name, "figures": figures, "errors": [error(tensors, blocks), error(tensors, own)]})
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    table(results)


def table(results):
    [first, *rest] = results
    print(f"f32, ours and llama.cpp: {show(first['figures']['ours and llama.cpp'])}\n")
    columns = list(rest[0]["figures"])
    print("| format | bits | " + " | ".join(columns) + " | weights |\n| --- | --- |" + " --- |" * (len(columns) + 1))
    for row in rest:
        size, length = gguf.GGML_QUANT_SIZES[Type[FORMATS[row["format"]][0]]]
        cells = [show(row["figures"][column]) for column in columns]
        cells.append(" / ".join(f"{100 * error:.2f}" for error in row["errors"]) + " %")
        print(f"| {row['format']} | {8 * length / size:.4g} | " + " | ".join(cells) + " |")


def show(figures):
    return f"{figures['kl_mean']:.2e} / {figures['kl_99']:.1e} / {100 * figures['same_word']:.1f} %"


if __name__ == "__main__":
    main()
