"""Decoders: Qwen2 and Qwen3 against their formulas in NumPy, and GPT; padding on either side changes nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import expit, softmax

from clue_utils import environment, models
from clue_utils.errors import UserError
from clue_utils.tasks import TASKS

environment.import_libraries()

import paddle  # noqa: E402
from paddlenlp import transformers  # noqa: E402

from clue_utils.models.families import BY_TYPE  # noqa: E402

HIDDEN, LAYERS, HEADS, SHARED, INNER, VOCAB, THETA, EPSILON = 16, 2, 4, 2, 24, 50, 1e4, 1e-3
# Of a head; Qwen3's is not the hidden size shared out.
SIZES = {"qwen2": HIDDEN // HEADS, "qwen3": 6}
LENGTHS = np.array([9, 5, 1])
CONFIG = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": SHARED,
    "intermediate_size": INNER,
    "rms_norm_eps": EPSILON,
    "rope_parameters": {"rope_theta": THETA, "rope_type": "default"},
    "pad_token_id": None,
    "dtype": "bfloat16",
}


def make_weights(model_type: str) -> dict[str, np.ndarray]:
    """Random tensors of a classifier under Hugging Face's names."""
    rng, size = np.random.default_rng(5), SIZES[model_type]
    shapes = {"embed_tokens.weight": (VOCAB, HIDDEN), "norm.weight": (HIDDEN,)}
    for i in range(LAYERS):
        layer, attention = f"layers.{i}.", f"layers.{i}.self_attn."
        shapes |= {f"{layer}{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
        shapes |= {f"{layer}mlp.{name}_proj.weight": (INNER, HIDDEN) for name in ("gate", "up")}
        shapes |= {f"{layer}mlp.down_proj.weight": (HIDDEN, INNER), f"{attention}o_proj.weight": (HIDDEN, HEADS * size)}
        for name, number in (("q", HEADS), ("k", SHARED), ("v", SHARED)):
            shapes[f"{attention}{name}_proj.weight"] = (number * size, HIDDEN)
            if model_type == "qwen2":
                shapes[f"{attention}{name}_proj.bias"] = (number * size,)
            elif name != "v":
                shapes[f"{attention}{name}_norm.weight"] = (size,)
    weights = {f"model.{name}": shape for name, shape in shapes.items()} | {"score.weight": (15, HIDDEN)}
    return {name: rng.normal(1 if "norm" in name else 0, 0.4, shape).astype("f4") for name, shape in weights.items()}


def make_folder(folder, model_type, weights, metadata=None, **changes):
    folder.mkdir(exist_ok=True)
    save_file(weights, str(folder / "model.safetensors"), metadata=metadata)
    config = CONFIG | {"model_type": model_type, "head_dim": SIZES[model_type]} | changes
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value != "-"}))
    return str(folder)


def states(weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The last hidden states of one row, float64 [length, HIDDEN]."""
    w = {name.removeprefix("model."): value.astype(np.float64) for name, value in weights.items()}
    size = len(w["layers.0.self_attn.q_proj.weight"]) // HEADS

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * w[f"{name}.weight"]

    def heads(x, name, number):
        """[number, length, size]"""
        y = x @ w[f"{name}_proj.weight"].T + w.get(f"{name}_proj.bias", 0)
        y = y.reshape(len(ids), number, size).swapaxes(0, 1)
        return norm(y, f"{name}_norm") if f"{name}_norm.weight" in w else y

    def turned(x):
        """Pairs of units as complex numbers, turned by their positions."""
        pairs = x[..., : size // 2] + 1j * x[..., size // 2 :]
        speeds = THETA ** (-2 * np.arange(size // 2) / size)
        pairs = pairs * np.exp(1j * np.arange(len(ids))[:, None] * speeds)
        return np.concatenate([pairs.real, pairs.imag], -1)

    x = w["embed_tokens.weight"][ids]
    for i in range(LAYERS):
        layer, attention = f"layers.{i}.", f"layers.{i}.self_attn."
        y = norm(x, f"{layer}input_layernorm")
        query = turned(heads(y, f"{attention}q", HEADS))
        key, value = turned(heads(y, f"{attention}k", SHARED)), heads(y, f"{attention}v", SHARED)
        parts = []
        for head in range(HEADS):
            shared = head // (HEADS // SHARED)
            scores = query[head] @ key[shared].T / np.sqrt(size)
            scores[np.triu_indices(len(ids), 1)] = -np.inf
            parts.append(softmax(scores, -1) @ value[shared])
        x = x + np.concatenate(parts, -1) @ w[f"{attention}o_proj.weight"].T
        y = norm(x, f"{layer}post_attention_layernorm")
        gate = y @ w[f"{layer}mlp.gate_proj.weight"].T
        x = x + gate * expit(gate) * (y @ w[f"{layer}mlp.up_proj.weight"].T) @ w[f"{layer}mlp.down_proj.weight"].T
    return norm(x, "norm")


def padded(side: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of the rows, int64 [rows, length]."""
    mask = (np.arange(LENGTHS.max()) < LENGTHS[:, None]).astype(np.int64)
    ids = np.arange(1, 1 + mask.size).reshape(mask.shape) * mask
    if side == "left":
        ids = np.stack([np.roll(row, LENGTHS.max() - n) for row, n in zip(ids, LENGTHS, strict=True)])
        mask = mask[:, ::-1].copy()
    return ids, mask


def run(layer, side):
    layer.eval()
    ids, mask = padded(side)
    with paddle.no_grad():
        output = layer(paddle.to_tensor(ids), attention_mask=paddle.to_tensor(mask))
    return [part.numpy() for part in (output if isinstance(output, tuple) else (output,))], mask.astype(bool)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_states_and_scores_are_those_of_the_formulas(tmp_path, model_type, side):
    """The classifier of Hugging Face has no bias."""
    weights = make_weights(model_type)
    folder = make_folder(tmp_path / "model", model_type, weights, {"format": "pt"})
    model = models.load_model(folder, TASKS["TNEWS"], 0.1, 15, training=False)
    ids, mask = padded("right")
    expected = [states(weights, row[:length]) for row, length in zip(ids, LENGTHS, strict=True)]
    (found,), seen = run(getattr(model, model.base_model_prefix), side)
    np.testing.assert_allclose(found[seen], np.concatenate(expected), atol=1e-5)
    (scores,), _ = run(model, side)
    last = np.stack([row[-1] for row in expected])
    np.testing.assert_allclose(scores, last @ weights["score.weight"].T, atol=2e-5)


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_the_forms_of_a_checkpoint_give_the_same(tmp_path, model_type):
    """With a head for words beside the encoder, alone, without a word of who wrote it, and as Paddle has it."""
    weights = {name: value for name, value in make_weights(model_type).items() if name != "score.weight"}
    bare = {name.removeprefix("model."): value for name, value in weights.items()}
    words = weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}
    forms = [
        make_folder(tmp_path / "words", model_type, words, {"format": "pt"}),
        make_folder(tmp_path / "bare", model_type, bare, {"format": "pt"}),
        make_folder(tmp_path / "unsaid", model_type, bare),
        make_folder(tmp_path / "old", model_type, weights, rope_parameters="-", rope_theta=THETA),
    ]
    found = [models.load_model(folder, TASKS["CMRC2018"], 0.1, 0, training=True) for folder in forms]
    found[0].save_pretrained(tmp_path / "paddle", safe_serialization=True)
    found.append(models.load_model(str(tmp_path / "paddle"), TASKS["CMRC2018"], 0.1, 0, training=False))
    first, seen = run(getattr(found[0], model_type), "right")
    for model in found[1:]:
        np.testing.assert_array_equal(run(getattr(model, model_type), "right")[0][0][seen], first[0][seen])


@pytest.mark.parametrize("task_name", ["TNEWS", "CMRC2018"])
@pytest.mark.parametrize("model_type", ["gpt", "gpt2", "qwen2", "qwen3"])
def test_padding_on_either_side_changes_nothing(tmp_path, model_type, task_name):
    family = BY_TYPE[model_type]
    sizes = {name: CONFIG[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")}
    encoder = family.base_class(family.base_class.config_class(**sizes, num_attention_heads=2, initializer_range=0.3))
    encoder.save_pretrained(tmp_path, safe_serialization=True)
    model = models.load_model(str(tmp_path), TASKS[task_name], 0.1, 15, training=True)
    right, left = run(model, "right"), run(model, "left")
    for one, other in zip(right[0], left[0], strict=True):
        if task_name == "CMRC2018":
            one, other = one[right[1]], other[left[1]]
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert one.std() > 0.1


def test_gpt_without_padding_is_paddlenlps(tmp_path):
    config = transformers.GPTConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    encoder = transformers.GPTModel(config)
    encoder.save_pretrained(tmp_path, safe_serialization=True)
    encoder.eval()
    model = models.load_model(str(tmp_path), TASKS["TNEWS"], 0.1, 15, training=True)
    (found,), _ = run(model.gpt, "right")
    for row, length in enumerate(LENGTHS):
        alone = encoder(paddle.to_tensor(padded("right")[0][row : row + 1, :length]))
        np.testing.assert_allclose(found[row, :length], alone.numpy()[0], atol=1e-6)


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_gpt2_is_paddlenlps_gpt_under_other_names(tmp_path, prefix):
    """Queries, keys and values come of one matrix; matrices lie as in Paddle, but for the classifier's."""
    config = transformers.GPTConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=12, initializer_range=0.3,
    )  # fmt: skip
    encoder = transformers.GPTModel(config)
    for parameter in encoder.parameters():
        if parameter.ndim == 1:
            parameter.set_value(paddle.rand(parameter.shape) + 0.5)
    w = {name.removeprefix("decoder."): value.numpy() for name, value in encoder.state_dict().items()}
    tensors = {
        "wte.weight": w["embeddings.word_embeddings.weight"],
        "wpe.weight": w["embeddings.position_embeddings.weight"],
    }
    for part in ("weight", "bias"):
        tensors[f"ln_f.{part}"] = w[f"norm.{part}"]
        for i in range(2):
            old, new = f"layers.{i}.", f"h.{i}."
            heads = [w[f"{old}self_attn.{name}_proj.{part}"] for name in "qkv"]
            tensors |= {
                f"{new}attn.c_attn.{part}": np.concatenate(heads, -1),
                f"{new}attn.c_proj.{part}": w[f"{old}self_attn.out_proj.{part}"],
                f"{new}mlp.c_fc.{part}": w[f"{old}linear1.{part}"],
                f"{new}mlp.c_proj.{part}": w[f"{old}linear2.{part}"],
                f"{new}ln_1.{part}": w[f"{old}norm1.{part}"],
                f"{new}ln_2.{part}": w[f"{old}norm2.{part}"],
            }
    score = np.random.default_rng(2).normal(size=(15, 16)).astype(np.float32)
    weights = {prefix + name: value for name, value in tensors.items()} | {"score.weight": score}
    save_file(weights, str(tmp_path / "model.safetensors"), metadata={"format": "pt"})
    sizes = {"vocab_size": VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": None, "n_positions": 12}
    said = sizes | {"model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}
    (tmp_path / "config.json").write_text(json.dumps(said))
    model = models.load_model(str(tmp_path), TASKS["TNEWS"], 0.1, 15, training=False)
    (found,), _ = run(model, "left")
    encoder.eval()
    for row, length in enumerate(LENGTHS):
        alone = encoder(paddle.to_tensor(padded("right")[0][row : row + 1, :length])).numpy()[0]
        np.testing.assert_allclose(found[row], alone[-1] @ score.T, atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_parameters of type 'yarn' is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_scaling of type 'linear' is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window True is not supported"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide num_attention_heads"),
        ({"head_dim": 5}, "head_dim cannot be 5"),
        ({"head_dim": -2}, "head_dim cannot be -2"),
        ({"head_dim": 34}, "head_dim cannot be 34"),
        ({"hidden_act": "swiglu"}, "hidden_act 'swiglu' is none of"),
    ],
    ids=str,
)
def test_a_configuration_of_another_computation_is_refused(tmp_path, changes, line):
    folder = make_folder(tmp_path / "model", "qwen3", make_weights("qwen3"), {"format": "pt"}, **changes)
    with pytest.raises(UserError, match=f"config.json: .*{line}"):
        models.load_model(folder, TASKS["TNEWS"], 0.1, 15, training=True)
