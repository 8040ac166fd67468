"""Checkpoints in the layout of Hugging Face's models, made by program, and BERT in NumPy beside them.

The encoder is computed in float64 from the tensors as PyTorch names and turns them (Devlin et al., "BERT", 2019;
ERNIE's task embedding after Sun et al., 2020), and shares nothing with the code under test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from scipy.special import erf, softmax

HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 16, 2, 4, 32, 512
VOCABULARY = "[PAD] [unused1] [UNK] [CLS] [SEP] [MASK]".split() + list(
    "的一是了我不人在他有这上们来到时大地为子中你说生国年着就那和"
)

Weights = dict[str, np.ndarray]

# What bert-base-chinese and hfl's checkpoints say beside the sizes.
BERT_EXTRAS = {
    "directionality": "bidi",
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "output_past": True,
    "gradient_checkpointing": False,
    "transformers_version": "4.9.1",
    "use_cache": True,
}


def make_weights(prefix: str = "bert.", num_labels: int = 15, head: str = "classifier", task_types: int = 0) -> Weights:
    """Random tensors of a BERT-type encoder under PyTorch's names, with layer normalisations far from 1 and 0."""
    rng = np.random.default_rng(3)
    weights: Weights = {}

    def matrix(name: str, *shape: int) -> None:
        weights[name] = rng.normal(0, 0.3, shape).astype(np.float32)

    def linear(name: str, num_in: int, num_out: int) -> None:
        matrix(f"{name}.weight", num_out, num_in)
        matrix(f"{name}.bias", num_out)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = rng.uniform(0.3, 2, HIDDEN).astype(np.float32)
        matrix(f"{name}.bias", HIDDEN)

    embeddings = f"{prefix}embeddings."
    matrix(f"{embeddings}word_embeddings.weight", len(VOCABULARY), HIDDEN)
    matrix(f"{embeddings}position_embeddings.weight", POSITIONS, HIDDEN)
    matrix(f"{embeddings}token_type_embeddings.weight", 2, HIDDEN)
    if task_types:
        matrix(f"{embeddings}task_type_embeddings.weight", task_types, HIDDEN)
    norm(f"{embeddings}LayerNorm")
    for i in range(LAYERS):
        layer = f"{prefix}encoder.layer.{i}."
        for part in ("query", "key", "value"):
            linear(f"{layer}attention.self.{part}", HIDDEN, HIDDEN)
        linear(f"{layer}attention.output.dense", HIDDEN, HIDDEN)
        norm(f"{layer}attention.output.LayerNorm")
        linear(f"{layer}intermediate.dense", HIDDEN, INNER)
        linear(f"{layer}output.dense", INNER, HIDDEN)
        norm(f"{layer}output.LayerNorm")
    linear(f"{prefix}pooler.dense", HIDDEN, HIDDEN)
    if head:
        linear(head, HIDDEN, num_labels)
    return weights


def make_config(**changes: Any) -> dict[str, Any]:
    """``config.json`` of a BERT; a value of None takes the key away."""
    config: dict[str, Any] = {
        "architectures": ["BertForSequenceClassification"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "model_type": "bert",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": len(VOCABULARY),
    }
    config |= changes
    return {key: value for key, value in config.items() if value is not None}


def write(
    folder: Path,
    weights: Weights,
    config: dict[str, Any] | None = None,
    metadata: dict[str, str] | None = {"format": "pt"},  # noqa: B006
    config_file: str = "config.json",
) -> Path:
    """Write a checkpoint with one file of safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, str(folder / "model.safetensors"), metadata=metadata)
    write_settings(folder, config, config_file)
    return folder


def write_settings(folder: Path, config: dict[str, Any] | None = None, config_file: str = "config.json") -> None:
    """Write all but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / config_file).write_text(json.dumps(make_config() if config is None else config), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}', encoding="utf-8")


def bert_hidden_states(
    weights: Weights, ids: np.ndarray, mask: np.ndarray, prefix: str = "bert.", tanh_gelu: bool = False
) -> np.ndarray:
    """Last hidden states float64 [batch, length, hidden] of ids and mask [batch, length], segments all 0."""
    w = {name.removeprefix(prefix): value.astype(np.float64) for name, value in weights.items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x: np.ndarray) -> np.ndarray:
        if tanh_gelu:
            return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return 0.5 * x * (1 + erf(x / np.sqrt(2)))

    batch, length = ids.shape

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(batch, length, HEADS, -1).transpose(0, 2, 1, 3)

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:length]
    x = x + w["embeddings.token_type_embeddings.weight"][0]
    if "embeddings.task_type_embeddings.weight" in w:
        x = x + w["embeddings.task_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}."
        query, key, value = (heads(linear(x, f"{layer}attention.self.{part}")) for part in ("query", "key", "value"))
        scores = query @ key.swapaxes(-1, -2) / np.sqrt(HIDDEN / HEADS) + np.where(mask, 0, -1e9)[:, None, None]
        attended = (softmax(scores, -1) @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + linear(attended, f"{layer}attention.output.dense"), f"{layer}attention.output.LayerNorm")
        inner = gelu(linear(x, f"{layer}intermediate.dense"))
        x = norm(x + linear(inner, f"{layer}output.dense"), f"{layer}output.LayerNorm")
    return x


def bert_logits(weights: Weights, ids: np.ndarray, mask: np.ndarray, prefix: str = "bert.", **how: bool) -> np.ndarray:
    """Logits float64 [batch, classes] of BertForSequenceClassification."""
    first = bert_hidden_states(weights, ids, mask, prefix, **how)[:, 0]
    pooled = np.tanh(first @ weights[f"{prefix}pooler.dense.weight"].T + weights[f"{prefix}pooler.dense.bias"])
    logits: np.ndarray = pooled @ weights["classifier.weight"].T + weights["classifier.bias"]
    return logits


def make_rows(lengths: tuple[int, ...] = (11, 4, 7)) -> tuple[np.ndarray, np.ndarray]:
    """Random ids and mask int64 [rows, longest], padded with 0."""
    rng = np.random.default_rng(5)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    return rng.integers(6, len(VOCABULARY), mask.shape) * mask, mask
