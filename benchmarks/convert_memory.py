"""Memory that converting a checkpoint in MedDr's layout takes, against the size of its shards.

    python benchmarks/convert_memory.py                       # 8 GB in 16 shards; needs 19 GB of disk for a
    while python benchmarks/convert_memory.py --scale 0.25 --shards 4

A checkpoint of InternVL-Chat V1.2's layout (48 layers of the vision tower, Llama inside, bfloat16) is made of
random numbers, converted by `gsco generalist convert` in a process of its own, and deleted. The process is
watched through ``/proc``: `VmHWM` is the most that ever was resident, mapped file pages included; `RssAnon`
and `RssFile` are its parts, polled.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gsco.generalist.internvl_chat.tensors import TensorInfo, header_bytes

VISION_LAYERS, TEXT_LAYERS, VOCABULARY, IMAGE, PATCH = 48, 32, 64000, 448, 14
_WORDS = np.random.default_rng(0).integers(0, 256, 8 << 20, dtype=np.uint8)
_WORDS[1::2] = 0x3C  # bfloat16 between .0078 and .03, which every type can hold
BLOCK = _WORDS.tobytes()


def tensors(vision: int, text: int) -> Iterator[tuple[str, TensorInfo]]:
    """Names and shapes, with the widths of vision tower and language model."""

    def info(*shape: int) -> TensorInfo:
        return TensorInfo("BF16", shape)

    tokens, feed, llm_feed = (IMAGE // PATCH) ** 2 + 1, 4 * vision, text * 27 // 10
    yield "vision_model.embeddings.class_embedding", info(1, 1, vision)
    yield "vision_model.embeddings.position_embedding", info(1, tokens, vision)
    yield "vision_model.embeddings.patch_embedding.weight", info(vision, 3, PATCH, PATCH)
    yield "vision_model.embeddings.patch_embedding.bias", info(vision)
    for n in range(VISION_LAYERS):
        layer = f"vision_model.encoder.layers.{n}"
        for name in ("ls1", "ls2", "attn.q_norm.weight", "attn.k_norm.weight", "attn.proj.bias"):
            yield f"{layer}.{name}", info(vision)
        for name in ("mlp.fc2.bias", "norm1.weight", "norm2.weight"):
            yield f"{layer}.{name}", info(vision)
        yield f"{layer}.attn.qkv.weight", info(3 * vision, vision)
        yield f"{layer}.attn.proj.weight", info(vision, vision)
        yield f"{layer}.mlp.fc1.weight", info(feed, vision)
        yield f"{layer}.mlp.fc1.bias", info(feed)
        yield f"{layer}.mlp.fc2.weight", info(vision, feed)
    yield "language_model.model.embed_tokens.weight", info(VOCABULARY, text)
    for n in range(TEXT_LAYERS):
        layer = f"language_model.model.layers.{n}"
        for letter in "qkvo":
            yield f"{layer}.self_attn.{letter}_proj.weight", info(text, text)
        for name, shape in (("gate", (llm_feed, text)), ("up", (llm_feed, text)), ("down", (text, llm_feed))):
            yield f"{layer}.mlp.{name}_proj.weight", info(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}.{name}.weight", info(text)
    yield "language_model.model.norm.weight", info(text)
    yield "language_model.lm_head.weight", info(VOCABULARY, text)
    yield "mlp1.0.weight", info(4 * vision)
    yield "mlp1.0.bias", info(4 * vision)
    yield "mlp1.1.weight", info(text, 4 * vision)
    yield "mlp1.1.bias", info(text)
    yield "mlp1.3.weight", info(text, text)
    yield "mlp1.3.bias", info(text)


def make_checkpoint(folder: Path, *, vision: int, text: int, shards: int) -> int:
    """Write it; the bytes of its largest shard."""
    every = list(tensors(vision, text))
    total = sum(info.nbytes for _, info in every)
    parts: list[dict[str, TensorInfo]] = [{}]
    for name, info in every:
        if len(parts) < shards and sum(held.nbytes for held in parts[-1].values()) >= total / shards:
            parts.append({})
        parts[-1][name] = info
    where: dict[str, str] = {}
    largest = 0
    for number, part in enumerate(parts, 1):
        path = folder / f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        with path.open("wb") as file:
            file.write(header_bytes(part))
            left = sum(info.nbytes for info in part.values())
            while left:
                left -= file.write(BLOCK[: min(len(BLOCK), left)])
        largest = max(largest, path.stat().st_size)
        where |= dict.fromkeys(part, path.name)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "model_type": "internvl_chat", "architectures": ["InternVLChatModel"], "select_layer": -4,
        "downsample_ratio": 0.5, "force_image_size": IMAGE, "template": "Hermes-2", "img_context_token_id": 5,
        "vision_config": {
            "hidden_size": vision, "num_hidden_layers": VISION_LAYERS, "num_attention_heads": vision // 64,
            "intermediate_size": 4 * vision, "image_size": IMAGE, "patch_size": PATCH, "qkv_bias": False,
            "qk_normalization": True,
        },
        "llm_config": {
            "architectures": ["LlamaForCausalLM"], "hidden_size": text, "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": text // 64, "num_key_value_heads": text // 64, "vocab_size": VOCABULARY,
            "intermediate_size": text * 27 // 10,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return largest


def watch(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Peaks of a process in bytes, and its CPU seconds."""
    peaks = dict.fromkeys(("VmHWM", "RssAnon", "RssFile", "sum"), 0.0)
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        now = {line.split(":")[0]: 1024.0 * int(line.split()[1]) for line in status if line.endswith(" kB")}
        now["sum"] = now.get("RssAnon", 0) + now.get("RssFile", 0)
        peaks = {key: max(value, now.get(key, 0)) for key, value in peaks.items()}
        time.sleep(0.02)
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of 8 GB")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary folder by default")
    asked = parser.parse_args()
    side = asked.scale**0.5
    vision, text = (max(64, round(width * side / 64) * 64) for width in (1536, 2432))
    work = Path(tempfile.mkdtemp(dir=asked.folder, prefix="convert-memory-"))
    try:
        (work / "old").mkdir()
        shard = make_checkpoint(work / "old", vision=vision, text=text, shards=asked.shards)
        size = sum(path.stat().st_size for path in (work / "old").iterdir())
        shards = len(list((work / "old").glob("*.safetensors")))
        print(f"{size / 1e9:.2f} GB in {shards} shards, the largest {shard / 1e9:.3f} GB")
        print(f"{'':34}{'peak GB':>9}{'shards':>8}{'wall s':>8}{'MB/s':>7}")
        convert = ["-m", "gsco", "generalist", "convert", str(work / "old"), "--out", str(work / "new")]
        runs = {
            "nothing but the imports": ["-c", "import torch, gsco.generalist.internvl_chat.modeling"],
            "convert": convert,
            "convert --drop-unused-layers, fp16": [*convert, "--drop-unused-layers", "--dtype", "float16"],
        }
        for name, command in runs.items():
            shutil.rmtree(work / "new", ignore_errors=True)
            started = time.monotonic()
            process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
            peaks = watch(process)
            seconds = time.monotonic() - started
            if process.returncode:
                sys.exit(f"{name} failed")
            peak = max(peaks["VmHWM"], peaks["sum"])
            speed = f"{size / 1e6 / seconds:7.0f}" if "convert" in name else ""
            print(f"{name:34}{peak / 1e9:9.3f}{peak / shard:8.2f}{seconds:8.1f}{speed}")
            print(f"{'':4}anonymous {peaks['RssAnon'] / 1e9:.3f} GB, files {peaks['RssFile'] / 1e9:.3f} GB")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
