"""ModernBERT, DeBERTa-v2, RoFormer (1 and 2) in NumPy, float64, from tensors as PyTorch names and turns them.

Written from the papers' formulas: Warner et al., "ModernBERT", 2024; He et al., "DeBERTa", 2021; Su et al., "RoFormer",
2021. Weights and configurations of their checkpoints are made by program beside them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import softmax

from hugging_face import ACTIVATIONS, HEADS, HIDDEN, INNER, LAYERS, VOCABULARY, Weights

NUM_LABELS = 15
gelu = ACTIVATIONS["gelu"]
# Three rows of two texts: ids and segments.
IDS = np.random.default_rng(0).integers(1, 40, (3, 9))
SEGMENTS = np.repeat([[0, 1]], [4, 5], 1) * np.ones((3, 1), np.int64)


def draw_weights(model: Any) -> Weights:
    """Have a model of Paddle evaluate with random weights, normalisations far from 1 too; these by name, float64."""
    import paddle

    paddle.seed(5)
    model.eval()
    for parameter in model.parameters():
        parameter.set_value(paddle.randn(parameter.shape) * 0.5)
    return {name: parameter.numpy().astype(np.float64) for name, parameter in model.named_parameters()}


class Layers:
    """The layers of a model by the names of their tensors; what has no bias, or no tensor at all, does without."""

    def __init__(self, weights: Weights, prefix: str, epsilon: float) -> None:
        self.tensors = {name.removeprefix(prefix): value.astype(np.float64) for name, value in weights.items()}
        self.epsilon = epsilon

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors.get(f"{name}.bias", 0)

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.epsilon)
        return x * self.tensors[f"{name}.weight"] + self.tensors.get(f"{name}.bias", 0)


def split(x: np.ndarray) -> np.ndarray:
    """[batch, length, hidden] -> [batch, heads, length, size]"""
    return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)


def attend(scores: np.ndarray, value: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Attended values [batch, length, hidden]; a score counts where it is allowed."""
    x = softmax(np.where(allowed, scores, -1e9), -1) @ value
    return x.transpose(0, 2, 1, 3).reshape(len(x), x.shape[2], -1)


def rotate(x: np.ndarray, theta: float, first: slice, second: slice) -> np.ndarray:
    """Pairs of a head's numbers as complex ones, turned by an angle for each position."""
    size = x.shape[-1]
    angles = np.arange(x.shape[-2])[:, None] * theta ** (-2 * np.arange(size // 2) / size)
    turned = (x[..., first] + 1j * x[..., second]) * np.exp(1j * angles)
    result = np.empty_like(x)
    result[..., first], result[..., second] = turned.real, turned.imag
    return result


class Maker:
    """Random tensors by name."""

    def __init__(self) -> None:
        self.rng, self.tensors = np.random.default_rng(7), {}

    def matrix(self, name: str, *shape: int) -> None:
        self.tensors[name] = self.rng.normal(0, 0.4, shape).astype(np.float32)

    def linear(self, name: str, num_in: int, num_out: int, bias: bool = True) -> None:
        self.matrix(f"{name}.weight", num_out, num_in)
        if bias:
            self.matrix(f"{name}.bias", num_out)

    def norm(self, name: str, bias: bool = True) -> None:
        self.tensors[f"{name}.weight"] = self.rng.uniform(0.3, 2, HIDDEN).astype(np.float32)
        if bias:
            self.matrix(f"{name}.bias", HIDDEN)


def sizes(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(VOCABULARY),
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    } | more


# --- ModernBERT ---------------------------------------------------------------------------------------------------


def modernbert_config(**changes: Any) -> dict[str, Any]:
    config = sizes(
        **{"model_type": "modernbert", "architectures": ["ModernBertForSequenceClassification"]},
        **{"hidden_activation": "gelu", "classifier_activation": "gelu", "norm_eps": 1e-5, "norm_bias": False},
        **{"attention_bias": False, "mlp_bias": False, "classifier_bias": False, "classifier_pooling": "cls"},
        **{"global_attn_every_n_layers": 2, "local_attention": 6, "attention_dropout": 0.0, "mlp_dropout": 0.0},
        **{"global_rope_theta": 1000.0, "local_rope_theta": 10.0, "embedding_dropout": 0.0, "decoder_bias": True},
    )
    return config | changes


def modernbert_weights(bias: bool = False, num_labels: int = NUM_LABELS) -> Weights:
    make = Maker()
    make.matrix("model.embeddings.tok_embeddings.weight", len(VOCABULARY), HIDDEN)
    make.norm("model.embeddings.norm", bias)
    for i in range(LAYERS):
        if i:
            make.norm(f"model.layers.{i}.attn_norm", bias)
        make.linear(f"model.layers.{i}.attn.Wqkv", HIDDEN, 3 * HIDDEN, bias)
        make.linear(f"model.layers.{i}.attn.Wo", HIDDEN, HIDDEN, bias)
        make.norm(f"model.layers.{i}.mlp_norm", bias)
        make.linear(f"model.layers.{i}.mlp.Wi", HIDDEN, 2 * INNER, bias)
        make.linear(f"model.layers.{i}.mlp.Wo", INNER, HIDDEN, bias)
    make.norm("model.final_norm", bias)
    make.linear("head.dense", HIDDEN, HIDDEN, bias)
    make.norm("head.norm", bias)
    make.linear("classifier", HIDDEN, num_labels)
    return make.tensors


def modernbert_logits(weights: Weights, ids: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    """Logits [batch, classes], of the first token's state ("cls") or their mean ("mean"), or of each token ("none").

    Every second layer sees three tokens on each side.
    """
    layers, positions = Layers(weights, "model.", 1e-5), np.arange(ids.shape[1])
    near = np.abs(positions[:, None] - positions) <= 3
    half = HIDDEN // HEADS // 2
    pairs = slice(0, half), slice(half, None)
    x = layers.norm(layers.tensors["embeddings.tok_embeddings.weight"][ids], "embeddings.norm")
    for i in range(LAYERS):
        name, is_local = f"layers.{i}.", i % 2 == 1
        inner = layers.norm(x, f"{name}attn_norm") if i else x
        query, key, value = (split(part) for part in np.split(layers.linear(inner, f"{name}attn.Wqkv"), 3, -1))
        query, key = (rotate(part, 10.0 if is_local else 1000.0, *pairs) for part in (query, key))
        allowed = mask[:, None, None].astype(bool) & (near if is_local else True)
        attended = attend(query @ key.swapaxes(-1, -2) / np.sqrt(2 * half), value, allowed)
        x = x + layers.linear(attended, f"{name}attn.Wo")
        inner, gate = np.split(layers.linear(layers.norm(x, f"{name}mlp_norm"), f"{name}mlp.Wi"), 2, -1)
        x = x + layers.linear(gelu(inner) * gate, f"{name}mlp.Wo")
    x = layers.norm(x, "final_norm")
    if pooling == "cls":
        x = x[:, 0]
    elif pooling == "mean":
        x = (x * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    return layers.linear(layers.norm(gelu(layers.linear(x, "head.dense")), "head.norm"), "classifier")


# --- DeBERTa-v2 ---------------------------------------------------------------------------------------------------

DEBERTA_KINDS: dict[str, dict[str, Any]] = {
    "v3": {"share_att_key": True, "norm_rel_ebd": "layer_norm", "position_buckets": 8, "pos_att_type": "p2c|c2p"},
    "v2-xlarge": {
        **{"share_att_key": True, "norm_rel_ebd": "layer_norm", "position_buckets": 8, "pos_att_type": ["c2p", "p2c"]},
        **{"conv_kernel_size": 3, "conv_act": "gelu"},
    },
    "matrices of distances": {"pos_att_type": ["c2p", "p2c"], "type_vocab_size": 2, "embedding_size": 8},
    "positions alone": {"relative_attention": False, "position_biased_input": True},
}


def deberta_config(**changes: Any) -> dict[str, Any]:
    config = sizes(
        **{"model_type": "deberta-v2", "architectures": ["DebertaV2ForSequenceClassification"], "layer_norm_eps": 1e-7},
        **{"hidden_act": "gelu", "pooler_hidden_act": "gelu", "pooler_dropout": 0, "pooler_hidden_size": HIDDEN},
        **{"relative_attention": True, "max_relative_positions": 12, "position_biased_input": False},
        **{"type_vocab_size": 0, "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "legacy": True},
    )
    return config | changes


def deberta_weights(config: dict[str, Any], head: str = "classifier", num_labels: int = NUM_LABELS) -> Weights:
    make, width = Maker(), config.get("embedding_size", HIDDEN)
    embeddings, encoder = "deberta.embeddings.", "deberta.encoder."
    make.matrix(f"{embeddings}word_embeddings.weight", len(VOCABULARY), width)
    if config["position_biased_input"]:
        make.matrix(f"{embeddings}position_embeddings.weight", 512, width)
    if config["type_vocab_size"]:
        make.matrix(f"{embeddings}token_type_embeddings.weight", 2, width)
    if width != HIDDEN:
        make.linear(f"{embeddings}embed_proj", width, HIDDEN, bias=False)
    make.norm(f"{embeddings}LayerNorm")
    for i in range(LAYERS):
        layer = f"{encoder}layer.{i}."
        own = () if config.get("share_att_key") or not config["relative_attention"] else ("pos_key", "pos_query")
        for part in ("query", "key", "value", *own):
            make.linear(f"{layer}attention.self.{part}_proj", HIDDEN, HIDDEN)
        make.linear(f"{layer}attention.output.dense", HIDDEN, HIDDEN)
        make.norm(f"{layer}attention.output.LayerNorm")
        make.linear(f"{layer}intermediate.dense", HIDDEN, INNER)
        make.linear(f"{layer}output.dense", INNER, HIDDEN)
        make.norm(f"{layer}output.LayerNorm")
    if config["relative_attention"]:
        make.matrix(f"{encoder}rel_embeddings.weight", 2 * config.get("position_buckets", 12), HIDDEN)
    if config.get("norm_rel_ebd") == "layer_norm":
        make.norm(f"{encoder}LayerNorm")
    if config.get("conv_kernel_size"):
        make.matrix(f"{encoder}conv.conv.weight", HIDDEN, HIDDEN, 3)
        make.matrix(f"{encoder}conv.conv.bias", HIDDEN)
        make.norm(f"{encoder}conv.LayerNorm")
    if head == "classifier":
        make.linear("pooler.dense", HIDDEN, HIDDEN)
    make.linear(head, HIDDEN, num_labels)
    return make.tensors


def bucket(distance: int, buckets: int, largest: int) -> int:
    """The bucket of a distance: one each up to half of them, then ever more distances in one."""
    near = buckets // 2
    if abs(distance) <= near:
        return distance
    far = near + math.ceil(math.log(abs(distance) / near) / math.log((largest - 1) / near) * (near - 1))
    return int(math.copysign(far, distance))


def deberta_logits(weights: Weights, config: dict[str, Any], ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Logits [batch, classes], or of each token where the head is that for spans; segments are all 0."""
    layers, length = Layers(weights, "deberta.", 1e-7), ids.shape[1]
    w = layers.tensors
    x = w["embeddings.word_embeddings.weight"][ids]
    for part, rows in (("position", slice(length)), ("token_type", 0)):
        if f"embeddings.{part}_embeddings.weight" in w:
            x = x + w[f"embeddings.{part}_embeddings.weight"][rows]
    if "embeddings.embed_proj.weight" in w:
        x = layers.linear(x, "embeddings.embed_proj")
    x = embedded = layers.norm(x, "embeddings.LayerNorm") * mask[..., None]
    distances = w.get("encoder.rel_embeddings.weight")
    if "encoder.LayerNorm.weight" in w:
        distances = layers.norm(distances, "encoder.LayerNorm")
    size = HIDDEN // HEADS
    for i in range(LAYERS):
        name = f"encoder.layer.{i}.attention."
        query, key, value = (split(layers.linear(x, f"{name}self.{part}_proj")) for part in ("query", "key", "value"))
        scores = query @ key.swapaxes(-1, -2)
        if distances is not None:
            span, buckets = len(distances) // 2, config.get("position_buckets")
            apart = [[a - b for b in range(length)] for a in range(length)]
            apart = [[bucket(d, buckets, 12) if buckets else d for d in row] for row in apart]
            rows = np.clip(np.array(apart) + span, 0, 2 * span - 1)
            own = "" if config.get("share_att_key") else "pos_"
            far_key, far_query = (
                layers.linear(distances, f"{name}self.{own}{part}_proj").reshape(2 * span, HEADS, size)[rows]
                for part in ("key", "query")
            )
            scores = (
                scores + np.einsum("bhid,ijhd->bhij", query, far_key) + np.einsum("bhjd,ijhd->bhij", key, far_query)
            )
        kinds = 1 if distances is None else 3
        attended = attend(scores / np.sqrt(kinds * size), value, mask[:, None, None].astype(bool))
        x = layers.norm(x + layers.linear(attended, f"{name}output.dense"), f"{name}output.LayerNorm")
        name = f"encoder.layer.{i}."
        inner = layers.linear(gelu(layers.linear(x, f"{name}intermediate.dense")), f"{name}output.dense")
        x = layers.norm(x + inner, f"{name}output.LayerNorm")
        if i == 0 and "encoder.conv.conv.weight" in w:
            padded = np.pad(embedded, ((0, 0), (1, 1), (0, 0)))
            windows = np.stack([padded[:, j : j + length] for j in range(3)], -1)  # [batch, length, hidden, 3]
            out = np.einsum("blik,oik->blo", windows, w["encoder.conv.conv.weight"]) + w["encoder.conv.conv.bias"]
            x = layers.norm(x + gelu(out * mask[..., None]), "encoder.conv.LayerNorm") * mask[..., None]
    if "qa_outputs.weight" in w:
        return layers.linear(x, "qa_outputs")
    return layers.linear(gelu(layers.linear(x[:, 0], "pooler.dense")), "classifier")


# --- RoFormer and RoFormerV2 --------------------------------------------------------------------------------------


def roformer_weights(is_second: bool, narrow: int = HIDDEN) -> Weights:
    """With a classifier: of two layers, as Hugging Face's first RoFormer has it, or of one."""
    make, bias = Maker(), not is_second

    def norm(name: str) -> None:
        if not is_second:
            make.norm(name)

    make.matrix("roformer.embeddings.word_embeddings.weight", len(VOCABULARY), narrow)
    make.matrix("roformer.embeddings.token_type_embeddings.weight", 2, narrow)
    norm("roformer.embeddings.LayerNorm")
    if narrow != HIDDEN:
        make.linear("roformer.embeddings_project", narrow, HIDDEN)
        for part in ("weight", "bias"):
            make.tensors[f"roformer.embeddings.LayerNorm.{part}"] = make.tensors[
                f"roformer.embeddings.LayerNorm.{part}"
            ][:narrow]
    for i in range(LAYERS):
        layer = f"roformer.encoder.layer.{i}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            make.linear(f"{layer}attention.{part}", HIDDEN, HIDDEN, bias)
        norm(f"{layer}attention.output.LayerNorm")
        make.linear(f"{layer}intermediate.dense", HIDDEN, INNER, bias)
        make.linear(f"{layer}output.dense", INNER, HIDDEN, bias)
        norm(f"{layer}output.LayerNorm")
    if not is_second:
        make.linear("classifier.dense", HIDDEN, HIDDEN)
    make.linear("classifier" if is_second else "classifier.out_proj", HIDDEN, NUM_LABELS, bias)
    return make.tensors


def roformer_logits(weights: Weights, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Logits [batch, classes]; segments are all 0, an encoder without parameters of normalisation is the second."""
    layers = Layers(weights, "roformer.", 1e-12)
    w = layers.tensors
    is_second = "embeddings.LayerNorm.weight" not in w

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) if is_second else layers.norm(x, name)

    def turned(x: np.ndarray) -> np.ndarray:
        return rotate(split(x), 10000.0, slice(0, None, 2), slice(1, None, 2))

    act = ACTIVATIONS["relu" if is_second else "gelu"]
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    if "embeddings_project.weight" in w:
        x = layers.linear(x, "embeddings_project")
    for i in range(LAYERS):
        name = f"encoder.layer.{i}."
        query, key, value = (layers.linear(x, f"{name}attention.self.{part}") for part in ("query", "key", "value"))
        scores = turned(query) @ turned(key).swapaxes(-1, -2) / np.sqrt(HIDDEN / HEADS)
        attended = attend(scores, split(value), mask[:, None, None].astype(bool))
        x = norm(x + layers.linear(attended, f"{name}attention.output.dense"), f"{name}attention.output.LayerNorm")
        inner = layers.linear(act(layers.linear(x, f"{name}intermediate.dense")), f"{name}output.dense")
        x = norm(x + inner, f"{name}output.LayerNorm")
    if is_second:
        return layers.linear(x[:, 0], "classifier")
    return layers.linear(act(layers.linear(x[:, 0], "classifier.dense")), "classifier.out_proj")
