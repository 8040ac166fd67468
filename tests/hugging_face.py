"""Checkpoints in the layout of Hugging Face's models, made by program, and BERT in NumPy beside them.

The encoder is computed in float64 from the tensors as PyTorch names and turns them (Devlin et al., "BERT", 2019;
ERNIE's task embedding after Sun et al., 2020), and shares nothing with the code under test. ALBERT (Lan et al., 2020)
is BERT whose layers are one, ELECTRA (Clark et al., 2020) BERT with a projection of the embeddings, Megatron's BERT
(Shoeybi et al., 2019) one that normalises before each block: the formula is the same, the names are others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file
from scipy.special import erf, softmax

HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 16, 2, 4, 32, 512
VOCABULARY = "[PAD] [unused1] [UNK] [CLS] [SEP] [MASK]".split() + list(
    "aAá的一是了我不人在他有这上们来到时大地为子中你说生国年着就那和"
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


def make_weights(
    prefix: str = "bert.",
    num_labels: int = 15,
    head: str = "classifier",
    task_types: int = 0,
    segments: int = 2,
    positions: int = POSITIONS,
    embedding: int = HIDDEN,
) -> Weights:
    """Random tensors of a BERT-type encoder under PyTorch's names, with layer normalisations far from 1 and 0."""
    rng = np.random.default_rng(3)
    weights: Weights = {}

    def matrix(name: str, *shape: int) -> None:
        weights[name] = rng.normal(0, 0.3, shape).astype(np.float32)

    def linear(name: str, num_in: int, num_out: int) -> None:
        matrix(f"{name}.weight", num_out, num_in)
        matrix(f"{name}.bias", num_out)

    def norm(name: str, size: int = HIDDEN) -> None:
        weights[f"{name}.weight"] = rng.uniform(0.3, 2, size).astype(np.float32)
        matrix(f"{name}.bias", size)

    embeddings = f"{prefix}embeddings."
    matrix(f"{embeddings}word_embeddings.weight", len(VOCABULARY), embedding)
    matrix(f"{embeddings}position_embeddings.weight", positions, embedding)
    matrix(f"{embeddings}token_type_embeddings.weight", segments, embedding)
    if task_types:
        matrix(f"{embeddings}task_type_embeddings.weight", task_types, embedding)
    norm(f"{embeddings}LayerNorm", embedding)
    if embedding != HIDDEN:
        linear(f"{prefix}embeddings_project", embedding, HIDDEN)
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


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": _gelu,
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
}


def bert_hidden_states(
    weights: Weights,
    ids: np.ndarray,
    mask: np.ndarray,
    prefix: str = "bert.",
    act: str = "gelu",
    epsilon: float = 1e-12,
    norm_first: bool = False,
    max_distance: int = 0,
) -> np.ndarray:
    """Last hidden states float64 [batch, length, hidden] of ids and mask [batch, length], segments all 0.

    Args:
        norm_first: each block is normalised before it and not after, and what is called the embeddings' normalisation
            comes last.
        max_distance: NeZha's (Wei et al., 2019): each distance up to it has a vector of sines and cosines, which is
            added to keys and values.
    """
    w = {name.removeprefix(prefix): value.astype(np.float64) for name, value in weights.items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * w[f"{name}.weight"] + w[f"{name}.bias"]

    batch, length = ids.shape

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(batch, length, HEADS, -1).transpose(0, 2, 1, 3)

    size = HIDDEN // HEADS
    apart = np.clip(np.arange(length) - np.arange(length)[:, None], -max_distance, max_distance) + max_distance
    angles = apart[..., None] / 10000 ** (2 * np.arange(size // 2) / size)
    # [length, length, size]
    distances = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, length, size) * bool(max_distance)

    def attend(x: np.ndarray, layer: str) -> np.ndarray:
        query, key, value = (heads(linear(x, f"{layer}attention.self.{part}")) for part in ("query", "key", "value"))
        scores = query @ key.swapaxes(-1, -2) + np.einsum("bhid,ijd->bhij", query, distances)
        shares = softmax(scores / np.sqrt(size) + np.where(mask, 0, -1e9)[:, None, None], -1)
        attended = shares @ value + np.einsum("bhij,ijd->bhid", shares, distances)
        return linear(attended.transpose(0, 2, 1, 3).reshape(x.shape), f"{layer}attention.output.dense")

    def feed(x: np.ndarray, layer: str) -> np.ndarray:
        return linear(ACTIVATIONS[act](linear(x, f"{layer}intermediate.dense")), f"{layer}output.dense")

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
    if "embeddings.position_embeddings.weight" in w:
        x = x + w["embeddings.position_embeddings.weight"][:length]
    if "embeddings.task_type_embeddings.weight" in w:
        x = x + w["embeddings.task_type_embeddings.weight"][0]
    if not norm_first:
        x = norm(x, "embeddings.LayerNorm")
    if "embeddings_project.weight" in w:
        x = linear(x, "embeddings_project")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}."
        for block, name in ((attend, f"{layer}attention.output.LayerNorm"), (feed, f"{layer}output.LayerNorm")):
            x = x + block(norm(x, name), layer) if norm_first else norm(x + block(x, layer), name)
    return norm(x, "embeddings.LayerNorm") if norm_first else x


def bert_logits(weights: Weights, ids: np.ndarray, mask: np.ndarray, prefix: str = "bert.", **how: Any) -> np.ndarray:
    """Logits float64 [batch, classes] of BertForSequenceClassification, or with ELECTRA's head where that is stored."""
    first = bert_hidden_states(weights, ids, mask, prefix, **how)[:, 0]
    if "classifier.out_proj.weight" in weights:
        dense, output = "classifier.dense", "classifier.out_proj"
        pooled = _gelu(first @ weights[f"{dense}.weight"].T + weights[f"{dense}.bias"])
    else:
        dense, output = f"{prefix}pooler.dense", "classifier"
        pooled = np.tanh(first @ weights[f"{dense}.weight"].T + weights[f"{dense}.bias"])
    logits: np.ndarray = pooled @ weights[f"{output}.weight"].T + weights[f"{output}.bias"]
    return logits


def make_rows(lengths: tuple[int, ...] = (11, 4, 7)) -> tuple[np.ndarray, np.ndarray]:
    """Random ids and mask int64 [rows, longest], padded with 0."""
    rng = np.random.default_rng(5)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    return rng.integers(6, len(VOCABULARY), mask.shape) * mask, mask


# --- what is published --------------------------------------------------------------------------------------------

# Paddle's names -> PyTorch's, as transformers 5 has them.
LAYER_NAMES = {
    "encoder.layers.": "encoder.layer.",
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm1": "attention.output.LayerNorm",
    "norm2": "output.LayerNorm",
    "layer_norm": "LayerNorm",
}
SPECIAL_TOKENS = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
NEWS = (
    "mainland China politics,Hong Kong - Macau politics,International news,financial news,culture,entertainment,sports"
).split(",")


class Published(NamedTuple):
    """One publisher's layout of a model, with a classifier where only an encoder is published.

    Attributes:
        config: all of config.json, sizes apart as published.
        files: JSON files of the tokenizer by name.
        stored: tensors as the file of weights has them.
        weights: those that matter under BERT's names, for the formula.
        how: arguments of the formula.
        is_pickle: pytorch_model.bin, else model.safetensors.
        lower_case: whether text is to be written in lower case, without accents.
    """

    config: dict[str, Any]
    files: dict[str, Any]
    stored: Weights
    weights: Weights
    how: dict[str, Any]
    is_pickle: bool = True
    lower_case: bool = True


def rename(weights: Weights, *renames: tuple[str, str]) -> Weights:
    """The tensors with names rewritten by regular expressions, in this order."""
    for pattern, new in renames:
        weights = {re.sub(pattern, new, name): value for name, value in weights.items()}
    return weights


def as_pytorch(model: Any, names: Mapping[str, str]) -> Weights:
    """The weights of a model of Paddle as PyTorch turns its matrices, with parts of their names replaced in turn."""
    import paddle

    linear = {f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, paddle.nn.Linear)}
    weights = {}
    for name, parameter in model.named_parameters():
        theirs, array = name, parameter.numpy()
        for old, new in names.items():
            theirs = theirs.replace(old, new)
        weights[theirs] = np.ascontiguousarray(array.T if name in linear else array)
    return weights


def with_pretraining_heads(weights: Weights, prefix: str = "bert.", position_ids: int = 0) -> Weights:
    """The tensors with those of pretraining beside them, as checkpoints are published, and a buffer of positions."""
    words = weights[f"{prefix}embeddings.word_embeddings.weight"]
    size = words.shape[1]
    extra: Weights = {
        "cls.predictions.bias": np.ones(len(words), np.float32),
        "cls.predictions.transform.dense.weight": np.ones((size, size), np.float32),
        "cls.predictions.transform.dense.bias": np.ones(size, np.float32),
        "cls.predictions.transform.LayerNorm.weight": np.ones(size, np.float32),
        "cls.predictions.transform.LayerNorm.bias": np.ones(size, np.float32),
        "cls.predictions.decoder.weight": words,
        "cls.seq_relationship.weight": np.ones((2, size), np.float32),
        "cls.seq_relationship.bias": np.ones(2, np.float32),
    }
    if position_ids:
        extra[f"{prefix}embeddings.position_ids"] = np.arange(position_ids, dtype=np.int64)[None]
    return extra | weights


_OLD_NORMS = ((r"LayerNorm\.weight$", "LayerNorm.gamma"), (r"LayerNorm\.bias$", "LayerNorm.beta"))
_ALBERT = (
    (r"^bert\.embeddings_project", "albert.encoder.embedding_hidden_mapping_in"),
    (r"^bert\.pooler\.dense", "albert.pooler"),
    (r"^bert\.encoder\.layer\.0", "albert.encoder.albert_layer_groups.0.albert_layers.0"),
    (r"attention\.self", "attention"),
    (r"attention\.output", "attention"),
    (r"intermediate\.dense", "ffn"),
    (r"(albert_layers\.0)\.output\.dense", r"\1.ffn_output"),
    (r"(albert_layers\.0)\.output\.LayerNorm", r"\1.full_layer_layer_norm"),
    (r"^bert\.", "albert."),
)
_MEGATRON = (
    (r"embeddings\.LayerNorm", "encoder.ln"),
    (r"attention\.output\.LayerNorm", "attention.ln"),
    (r"output\.LayerNorm", "ln"),
)


def make_published() -> dict[str, Published]:
    """Layouts by the name of a model that is published so."""
    pooler = {key: value for key, value in BERT_EXTRAS.items() if key.startswith(("pooler", "direct"))}
    hfl = {"tokenizer_config": {"init_inputs": []}, "special_tokens_map": SPECIAL_TOKENS, "added_tokens": {}}
    bert = make_weights()
    published = {
        "hfl/chinese-roberta-wwm-ext": Published(
            make_config(architectures=["BertForMaskedLM"], bos_token_id=0, eos_token_id=2, output_past=True, **pooler),
            *(hfl, with_pretraining_heads(bert), bert, {}),
        ),
        "hfl/chinese-macbert-base": Published(
            make_config(architectures=["BertForMaskedLM"], gradient_checkpointing=False, **pooler),
            *(hfl, with_pretraining_heads(bert, position_ids=POSITIONS), bert, {}),
        ),
        "google-bert/bert-base-chinese": Published(
            make_config(architectures=["BertForMaskedLM"], **pooler),
            {"tokenizer_config": {"do_lower_case": False, "model_max_length": 512}},
            *(rename(with_pretraining_heads(bert), *_OLD_NORMS), bert, {}, False, False),
        ),
    }

    ernie_1 = make_weights("ernie.", positions=513)
    ernie_3 = make_weights("ernie.", task_types=3, segments=4, positions=2048)
    for name, weights, act, extras in (
        ("nghuyong/ernie-1.0-base-zh", ernie_1, "relu", {"max_position_embeddings": 513}),
        (
            "nghuyong/ernie-3.0-base-zh",
            *(ernie_3, "gelu"),
            {"max_position_embeddings": 2048, "task_type_vocab_size": 3, "type_vocab_size": 4, "use_task_id": True},
        ),
    ):
        config = {"architectures": ["ErnieForMaskedLM"], "model_type": "ernie", "layer_norm_eps": 1e-5} | extras
        stored = with_pretraining_heads(weights, "ernie.")
        stored = {key: value for key, value in stored.items() if "decoder" not in key and "seq_" not in key}
        how = {"prefix": "ernie.", "act": act, "epsilon": 1e-5}
        config = make_config(hidden_act=act, pad_token_id=None, **config)
        published[name] = Published(config, {}, rename(stored, *_OLD_NORMS), weights, how)

    news = make_weights(num_labels=len(NEWS))
    published["uer/roberta-base-finetuned-chinanews-chinese"] = Published(
        make_config(id2label=dict(enumerate(NEWS)), label2id={name: i for i, name in enumerate(NEWS)}),
        {
            "tokenizer_config": {"do_lower_case": False, "strip_accents": None, "tokenize_chinese_chars": True}
            | {"special_tokens_map_file": None, "name_or_path": "somewhere"}
            | SPECIAL_TOKENS,
            "special_tokens_map": SPECIAL_TOKENS,
        },
        *(news, news, {}, True, False),
    )
    labels = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
    nli = make_weights(num_labels=3)
    published["IDEA-CCNL/Erlangshen-Roberta-110M-NLI"] = Published(
        make_config(
            id2label=dict(enumerate(labels)),
            label2id={name: i for i, name in enumerate(labels)},
            classifier_dropout=None,
            position_embedding_type="absolute",
            torch_dtype="float32",
            **BERT_EXTRAS,
        ),
        *({}, nli | {"bert.embeddings.position_ids": np.arange(POSITIONS)[None]}, nli, {}),
    )
    published["IDEA-CCNL/Erlangshen-MegatronBert-1.3B"] = Published(
        make_config(
            model_type="megatron-bert",
            **{"architectures": None, "pad_token_id": None, "hidden_act": "gelu_new", "use_cache": False},
            **{"gradient_checkpointing": False, "position_embedding_type": "absolute"},
        ),
        {},
        rename(with_pretraining_heads(bert, position_ids=POSITIONS), *_MEGATRON),
        *(bert, {"act": "gelu_new", "norm_first": True}),
    )

    nezha = {name: value for name, value in make_weights("nezha.").items() if "position_embeddings" not in name}
    table = "attention.self.relative_positions_encoding.positions_encoding"
    tables = {f"nezha.encoder.layer.{i}.{table}": np.ones((8, 8, 4), np.float32) for i in range(LAYERS)}
    published["sijunhe/nezha-cn-base"] = Published(
        make_config(
            **{"model_type": "nezha", "architectures": ["NezhaForPreTraining"], "max_relative_position": 5},
            **{"classifier_dropout": 0.1, "embedding_size": HIDDEN, "use_cache": True, "bos_token_id": 2},
        ),
        {},
        with_pretraining_heads(nezha, "nezha.") | tables,
        *(nezha, {"prefix": "nezha.", "max_distance": 5}),
    )

    narrow = make_weights(embedding=8)
    tied = {name: narrow[name.replace("layer.1.", "layer.0.")] for name in narrow}
    one_layer = {name: value for name, value in tied.items() if "layer.1." not in name}
    for name, act, files in (
        ("voidful/albert_chinese_tiny", "gelu", {}),
        ("voidful/albert_chinese_base", "relu", {"tokenizer_config": {"tokenizer_class": "BertTokenizer"}}),
        ("voidful/albert_chinese_xxlarge", "gelu_new", {}),
    ):
        config = make_config(
            **{"architectures": ["AlbertForMaskedLM"], "model_type": "albert", "hidden_act": act, "embedding_size": 8},
            **{"bos_token_id": 2, "eos_token_id": 3, "num_hidden_groups": 1, "inner_group_num": 1, "gap_size": 0},
            **{"net_structure_type": 0, "num_memory_blocks": 0, "down_scale_factor": 1, "layers_to_keep": []},
            **{"classifier_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0},
        )
        stored = rename(one_layer, *_ALBERT) | {"predictions.bias": np.ones(len(VOCABULARY), np.float32)}
        published[name] = Published(config, files, stored, tied, {"act": act})

    for size, embedding in (("base", HIDDEN), ("small", 8)):
        weights = make_weights("electra.", head="classifier.out_proj", embedding=embedding)
        weights |= {f"classifier.dense.{part}": weights[f"electra.pooler.dense.{part}"] for part in ("weight", "bias")}
        weights = {name: value for name, value in weights.items() if "pooler" not in name}
        published[f"hfl/chinese-electra-180g-{size}-discriminator"] = Published(
            make_config(
                **{"architectures": ["ElectraForPreTraining"], "model_type": "electra", "embedding_size": embedding},
                **{"summary_activation": "gelu", "summary_last_dropout": 0.1, "summary_type": "first"},
                **{"summary_use_proj": True, "output_past": True},
            ),
            hfl,
            weights | {"discriminator_predictions.dense.weight": np.ones((HIDDEN, HIDDEN), np.float32)},
            *(weights, {"prefix": "electra."}),
        )
    return published


PUBLISHED = make_published()
