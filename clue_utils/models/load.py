"""Load a pretrained encoder with the head of a task, and save a checkpoint of ours."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import math
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from clue_utils.errors import UserError, is_out_of_memory, shorten, show
from clue_utils.files import put, scratch
from clue_utils.language import say
from clue_utils.models import lora
from clue_utils.models import source as sources
from clue_utils.models.config import Config, encoder_settings, family_of, read_config, with_common_names
from clue_utils.models.conversion import Origin, find_origins, may_be_missing, stored_shape, unwrapped
from clue_utils.models.families import FAMILIES, Family
from clue_utils.models.heads import CHOICES, HEADS, input_names, to_tensors
from clue_utils.models.lora import Lora
from clue_utils.models.source import Source
from clue_utils.models.tokenizer import num_ids
from clue_utils.record import WEIGHTS_FILE, require_trained_for
from clue_utils.tasks import Task

logger = logging.getLogger(__name__)
# A setting of ours in config.json: the epsilon of every layer normalisation of a checkpoint that came from PyTorch, for
# the architectures where PaddleNLP computes with 1e-5 whatever layer_norm_eps says.
_EPSILON = "clue_layer_norm_eps"
# How the logits of a row may differ between batches, relative to the largest: a wrong mask is off by a hundredth.
_TOLERANCE = 1e-3


def load_model(
    name_or_path: str, task: Task, dropout: float, num_outputs: int, training: bool, lora_rank: int = 0
) -> paddle.nn.Layer:
    """Load the encoder with the task's head.

    Every parameter of the encoder must come from the checkpoint, but for the pooler where it is to be trained. The
    logits of two rows of different length must not depend on each other's presence. A checkpoint of adapters is loaded
    with the model that they stand on.

    Args:
        dropout: probability, for what is dropped of hidden states and attention, and before the classifier. What a
            configuration has for activations (``act_dropout``) stays as it is.
        num_outputs: classes of a classifier, choices of a question; not used for spans.
        training: a head that is missing or of another shape is then drawn anew; otherwise it is refused, since its
            predictions would be noise.
        lora_rank: of the adapters that are to be trained in the place of the encoder, see ``lora``; 0: all of it is.

    Raises:
        UserError: no such model, files that are not what they should be, an architecture without such a head, a head
            that does not fit and ``training`` is false, or adapters of another rank.
    """
    if not training:
        require_trained_for(name_or_path, task)
    source = sources.find(name_or_path)
    adapters = lora.of_config(source.config)
    base = _find_base(source.config, adapters) if adapters else source
    family = family_of(base.config, unwrapped(base.weights.shapes))
    model = _build(base, family, task, dropout, num_outputs)
    origins, is_torch = find_origins(model, family, base.weights)
    _check_encoder(base, family, model, origins, training and not adapters)
    order, keeps_head = None, _is_head_of(task, source)
    if keeps_head and task.kind == "classification":
        order, keeps_head = _class_order(source, task, training)
    if adapters:
        _fill(base, model, origins, None, False)
        drawn = _fill_adapters(source, base, family, model, adapters, dropout, order, keeps_head)
    else:
        if not training:
            _refuse_shifted_positions(source, family)
        drawn = _fill(source, model, origins, order, keeps_head)
    lost = [name for name in drawn if task.kind != "span" or "pooler" not in name]  # a pooler that spans do not use
    if lost and not training:
        raise UserError(
            say(
                "{name_or_path} has no trained head for {name} ({lost} missing, or of another task): name the "
                "folder of a fine-tuned checkpoint, or fine-tune this one with --do_train",
                name_or_path=name_or_path,
                name=task.name,
                lost=", ".join(lost[:4]),
            )
        )
    if not training and not adapters and task.kind != "span":
        _refuse_other_parts(source, model, origins)
    _set_epsilon(base, family, model, is_torch)
    if family.complete:
        family.complete(getattr(model, model.base_model_prefix), base.weights)
    _check_rows(source, family, model, task)
    if training:
        _choose_what_is_trained(source, family, model, adapters, lora_rank, dropout)
    return model


def require_architecture(name_or_path: str, output_dir: str | None = None) -> None:
    """Refuse an architecture that is not supported, by a folder's config.json or PaddleNLP's name of the model.

    Args:
        output_dir: the folder that a run is to train in, which would lose the base of the model's adapters there.

    Raises:
        UserError: it is not, or the folder has no such file; or the base of a checkpoint of adapters is not to be had,
            or is ``output_dir``.
    """
    with sources.unshadowed(name_or_path) as source:
        if not os.path.isdir(source):
            sources.refuse_unsupported(source)
            return
        config = read_config(Path(source))
        family_of(config, ())
    if adapters := lora.of_config(config):
        if output_dir and os.path.realpath(adapters.base) == os.path.realpath(output_dir):
            raise UserError(
                say(
                    "--output_dir {output_dir} is the model that the adapters of {name_or_path} stand on, which "
                    "training would replace: choose another",
                    output_dir=output_dir,
                    name_or_path=name_or_path,
                )
            )
        _find_base(config, adapters)


def check_fit(model: paddle.nn.Layer, tokenizer: Any, max_seq_length: int) -> None:
    """Refuse inputs that the model has no embedding for, which Paddle would end with a crash.

    Raises:
        UserError: sequences longer than the positions, or a vocabulary larger than the embedding.
    """
    family = next(family for family in FAMILIES if isinstance(model.config, family.base_class.config_class))
    positions = _num_positions(model, family)
    if max_seq_length > positions:
        raise UserError(
            say(
                "--max_seq_length {max_seq_length}: the model has {positions} positions; pass at most that",
                max_seq_length=max_seq_length,
                positions=positions,
            )
        )
    if num_ids(tokenizer) > model.config.vocab_size:
        raise UserError(
            say(
                "the tokenizer knows {num_ids} tokens but the model embeds {vocab_size}: the files of the "
                "tokenizer and the weights are not of one model",
                num_ids=num_ids(tokenizer),
                vocab_size=model.config.vocab_size,
            )
        )


def check_segments(model: paddle.nn.Layer, num_segments: int) -> None:
    """Refuse a tokenizer that numbers more segments than the model embeds.

    Raises:
        UserError: it does, and the model takes them. (XLNet compares segments and embeds none: any number will do.)
    """
    embedded = getattr(model.config, "type_vocab_size", num_segments)
    if "token_type_ids" in input_names(model) and embedded < num_segments:
        raise UserError(
            say(
                "the tokenizer numbers {num_segments} segments but the model embeds {embedded}: "
                "tokenizer_config.json and weights are not of one model",
                num_segments=num_segments,
                embedded=embedded,
            )
        )


def _num_positions(model: paddle.nn.Layer, family: Family) -> int:
    """How many tokens a sequence can have."""
    name = family.setting_names.get("max_position_embeddings", "max_position_embeddings")
    positions: int = getattr(model.config, name, None) or sys.maxsize
    return positions - family.first_position(model.config) if positions > 0 else sys.maxsize  # XLNet: -1


def save_model(model: paddle.nn.Layer, tokenizer: Any, folder: Path) -> None:
    """Save weights (safetensors), configuration and tokenizer into ``folder``.

    Of a model with adapters, the weights of the base are left out.

    All files are written in a folder of their own first and then moved into place, so that an interrupted save leaves
    the earlier checkpoint whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with scratch(folder / "model") as written:
        written.mkdir()
        model.save_pretrained(
            str(written), safe_serialization=True, state_dict=lora.own_state(model), max_shard_size=sys.maxsize
        )
        tokenizer.save_pretrained(str(written))
        # The weights last: they are what says that a checkpoint is there.
        for path in sorted(written.iterdir(), key=lambda path: path.name == WEIGHTS_FILE):
            put(path, folder / path.name)


# --- which architecture, and its model with random weights --------------------------------------------------------


def _build(source: Source, family: Family, task: Task, dropout: float, num_outputs: int) -> paddle.nn.Layer:
    """The model with every weight drawn at random."""
    head_class = family.head_class(task.kind, unwrapped(source.weights.shapes))
    if source.weights.format == "pt" and not family.torch_prefix:
        raise UserError(
            say(
                "{files}: {model_type} cannot be read in PyTorch's form; take PaddleNLP's form of the checkpoint",
                files=source.weights.files[0],
                model_type=family.model_type,
            )
        )
    settings = encoder_settings(source.config, family)
    _check_sizes(source, family, settings)
    config_class = family.base_class.config_class
    known = inspect.signature(config_class.__init__).parameters
    settings["classifier_dropout"] = dropout  # of the generic head too
    for name in known:
        if "dropout" in name and not name.startswith("act"):  # those after activations stay as they are
            settings[name] = dropout
    settings["finetuning_task"] = task.name
    if task.kind == "classification":
        settings["id2label"] = dict(enumerate(task.names))
        settings["label2id"] = {name: i for i, name in enumerate(task.names)}
    elif task.kind != "span":
        settings["num_choices"] = num_outputs
    activation = settings.get("hidden_act", "gelu")
    if activation == "gelu_new" and family.is_transformer_encoder:
        settings["hidden_act"] = "gelu"  # Paddle's layers know no other
    try:
        model = head_class(config_class(**settings))
    except Exception as error:  # whatever PaddleNLP makes of settings that do not go together
        if is_out_of_memory(error):
            raise
        raise _impossible(source, family, error) from error
    if activation == "gelu_new" and family.is_transformer_encoder:
        model.config.hidden_act = activation
        for layer in model.sublayers():
            if isinstance(layer, paddle.nn.TransformerEncoderLayer):
                layer.activation = functools.partial(F.gelu, approximate=True)
    if family.encoder_class:
        getattr(model, model.base_model_prefix).__class__ = family.encoder_class
    return model


def _impossible(source: Source, family: Family, error: Exception) -> UserError:
    """What PaddleNLP ends with where settings do not go together."""
    reason = shorten(" ".join(str(error).split()), 120)
    return source.config.error(
        say(
            "no {model_type} can be made, or computes, with these settings ({reason})",
            model_type=family.model_type,
            reason=reason,
        )
    )


# Ends of names -> the setting that each dimension is, in PyTorch's order or Paddle's; None: any.
_DIMENSIONS: Mapping[str, tuple[str | None, ...]] = {
    "word_embeddings.weight": ("vocab_size", None),
    "position_embeddings.weight": ("max_position_embeddings", None),
    "token_type_embeddings.weight": ("type_vocab_size", None),
    "task_type_embeddings.weight": ("task_type_vocab_size", None),
    "q_proj.bias": ("hidden_size",),
    "self.query.bias": ("hidden_size",),
    "linear1.bias": ("intermediate_size",),
    "intermediate.dense.bias": ("intermediate_size",),
    "ffn.bias": ("intermediate_size",),
}
_LAYER = re.compile(r"\b(?:layers?|h)\.(\d{1,6})\.")
# Tensors of an encoder that hold nothing learnt, or what another holds too: numbers of places and segments, masks,
# angles and tables of fixed positions, readings, embeddings that encoder and decoder share.
_NOT_LEARNT = re.compile(
    r"(?:^|\.)(?:(?:position|token_type)_ids|attn\.(?:masked_)?bias|inv_freq|readings|sin|cos|positions_encoding"
    r"|embed_positions\.weight|encoder\.embed_tokens\.weight)$"
)


def _beside_encoder(names: Collection[str]) -> set[str]:
    """The names of a decoder beside an encoder, which is not read: mBART's. GPT's decoder stands alone."""
    has_both = all(any(f"{part}.layers." in name for name in names) for part in ("encoder", "decoder"))
    return {name for name in names if has_both and "decoder." in name}


def _check_sizes(source: Source, family: Family, settings: Mapping[str, Any]) -> None:
    """Hold the sizes that config.json claims to those of the tensors, before memory is taken for them."""
    settings = with_common_names(settings, family)
    left_out = _beside_encoder(source.weights.shapes)
    shapes = {name: shape for name, shape in source.weights.shapes.items() if name not in left_out}
    largest = max((max(shape, default=1) for shape in shapes.values()), default=1)
    for name, value in settings.items():
        if name.endswith("_size") and type(value) is int and value > largest:
            raise source.config.error(
                say("{name} {value} is larger than any tensor of the weights", name=name, value=value)
            )
    for tensor, shape in shapes.items() if family.torch_prefix else ():  # others have dimensions of their own
        expected = next((names for end, names in _DIMENSIONS.items() if tensor.endswith(end)), ())
        for setting, size in zip(expected, shape, strict=False):
            if setting and settings.get(setting, size) != size:
                raise source.config.error(
                    say(
                        "{setting} is {settings}, but {tensor} has {size}",
                        setting=setting,
                        settings=settings[setting],
                        tensor=tensor,
                        size=size,
                    )
                )
    layers = {int(match[1]) for tensor in shapes if (match := _LAYER.search(tensor))}
    claimed = settings.get("num_hidden_layers", 1)
    if claimed > (max(layers) + 1 if layers else len(shapes)):
        raise source.config.error(
            say(
                "num_hidden_layers is {claimed}, but the weights have {layers} layers",
                claimed=claimed,
                layers=max(layers) + 1 if layers else say("no"),
            )
        )
    hidden, inner = settings.get("hidden_size", 1), settings.get("intermediate_size") or 1
    # A layer has a matrix of these sizes, in the thriftiest architectures a fourth of one; ALBERT's layers are one.
    if (claimed if layers else 1) * hidden * max(hidden, inner) > 4 * sum(map(math.prod, shapes.values())):
        raise source.config.error(
            say(
                "hidden_size {hidden}, intermediate_size {inner}: the weights are far smaller",
                hidden=hidden,
                inner=inner,
            )
        )
    if layers and claimed <= max(layers):
        logger.warning(
            say(
                "{name}: of {layers} layers the first {claimed} are used",
                name=source.name,
                layers=max(layers) + 1,
                claimed=claimed,
            )
        )


# --- filling it ---------------------------------------------------------------------------------------------------


def _check_encoder(
    source: Source, family: Family, model: paddle.nn.Layer, origins: Mapping[str, Origin], training: bool
) -> None:
    """See that the encoder's parameters are in the checkpoint, and say so."""
    prefix = f"{model.base_model_prefix}."
    shapes = {name: list(value.shape) for name, value in model.named_parameters() if name.startswith(prefix)}
    files = ", ".join(str(file) for file in source.weights.files[:1])
    for name in sorted(origins.keys() & shapes.keys()):
        stored = stored_shape(origins[name], source.weights.shapes)
        if stored != shapes[name]:
            raise UserError(
                say(
                    "{files}: {name} has shape {stored} where {path} makes it {shapes}",
                    files=files,
                    name=origins[name].name,
                    stored=stored,
                    path=source.config.path,
                    shapes=shapes[name],
                )
            )
    missing = sorted(shapes.keys() - origins.keys())
    needed = [name for name in missing if not may_be_missing(name)]
    if needed:
        known = say("PyTorch or Paddle") if family.torch_prefix else say("Paddle, whose form alone is read")
        raise UserError(
            say(
                "{files}: {num_needed} of the encoder's {num_shapes} parameters are not in it (such as {needed}; "
                "it has {shapes}): incomplete, or no {model_type} as written by {known}",
                files=files,
                num_needed=len(needed),
                num_shapes=len(shapes),
                needed=needed[0],
                shapes=shorten(min(source.weights.shapes)),
                model_type=family.model_type,
                known=known,
            )
        )
    _refuse_unread(source, family, origins.keys() & shapes.keys(), origins)
    drawn = f"; drawn at random: {', '.join(missing)}" if missing and training else ""
    logger.info(
        "model: %s, %d of the encoder's %d parameters from %s%s",
        family.model_type,
        len(shapes) - len(missing),
        len(shapes),
        files,
        drawn,
    )
    if family.remark:
        logger.info("%s: %s", family.model_type, family.remark)


def _refuse_unread(source: Source, family: Family, read: Collection[str], origins: Mapping[str, Origin]) -> None:
    """Refuse an encoder of which the model has only a part, since configuration and weights are not of one model.

    Args:
        read: the encoder's parameters that the checkpoint has.
    """
    names = {stored: name for name, stored in unwrapped(source.weights.shapes).items()}
    used = {origins[name].name for name in read}
    first_parts = {names[stored].partition(".")[0] for stored in used}
    num_layers = 1 + max((int(match[1]) for stored in used if (match := _LAYER.search(stored))), default=sys.maxsize)
    left = [
        stored
        for stored in names.keys() - used - _beside_encoder(names)
        if names[stored].partition(".")[0] in first_parts
        and not _NOT_LEARNT.search(stored)
        and not may_be_missing(stored)
        and not ((match := _LAYER.search(stored)) and int(match[1]) >= num_layers)
    ]
    # Published with ERNIEs that were trained without task ids, too.
    if of_tasks := [stored for stored in left if stored.endswith("task_type_embeddings.weight")]:
        left = [stored for stored in left if stored not in of_tasks]
        if "use_task_id" not in source.config.values:
            logger.warning(
                say(
                    "{name}: {tensor} is left out, since {path} does not say use_task_id: true",
                    name=source.name,
                    tensor=of_tasks[0],
                    path=source.config.path,
                )
            )
    if family.model_type == "deberta-v2" and source.config.values.get("position_biased_input") is False:
        left = [stored for stored in left if not stored.endswith(".position_embeddings.weight")]
    if left:
        raise UserError(
            say(
                "{files}: {num_left} tensors of its encoder (such as {left}) have no place in the {model_type} "
                "that {path} describes: use the files of one model",
                files=source.weights.files[0],
                num_left=len(left),
                left=shorten(min(left)),
                model_type=family.model_type,
                path=source.config.path,
            )
        )


def _fill(
    source: Source,
    model: paddle.nn.Layer,
    origins: Mapping[str, Origin],
    order: list[int] | None,
    keep_head: bool,
) -> list[str]:
    """Give the model the checkpoint's numbers; return what of the head and the pooler keeps its random ones.

    Args:
        order: position of each of the task's classes among those of the checkpoint; None: the same.
        keep_head: whether the checkpoint's head is wanted.
    """
    output_layer = [name for name, layer in model.named_sublayers() if isinstance(layer, paddle.nn.Linear)][-1]
    prefix = f"{model.base_model_prefix}."
    drawn = []
    for name, parameter in model.named_parameters():
        origin = origins.get(name)
        if name == f"{output_layer}.bias" and _has_no_bias(origins.get(f"{output_layer}.weight")):
            continue  # drawn as 0
        fits = origin is not None and stored_shape(origin, source.weights.shapes) == list(parameter.shape)
        if origin is None or not fits or not (keep_head or name.startswith(prefix)):
            drawn.append(name)
            continue
        value = source.weights.get(origin.name)
        value = (value.T if origin.transposed else value).reshape(parameter.shape)
        if order is not None and name.rpartition(".")[0] == output_layer:
            value = value[..., order]
        parameter.set_value(np.ascontiguousarray(value))
    return drawn


def _refuse_other_parts(source: Source, model: paddle.nn.Layer, origins: Mapping[str, Origin]) -> None:
    """Refuse a head that has more parts in the checkpoint than in the model, which would be left out silently."""
    head = [name for name, layer in model.named_sublayers() if isinstance(layer, paddle.nn.Linear)][-1]
    used = {origin.name for origin in origins.values()}
    left = [
        stored
        for name, stored in unwrapped(source.weights.shapes).items()
        if name.startswith(f"{head.partition('.')[0]}.") and stored not in used
    ]
    if left:
        raise UserError(
            say(
                "{name}: its head has {left}, for which a {model_type} has no place here: fine-tune it again with "
                "--do_train",
                name=source.name,
                left=shorten(min(left)),
                model_type=model.config.model_type,
            )
        )


def _has_no_bias(origin: Origin | None) -> bool:
    """Whether a head is one of Hugging Face's decoders."""
    return origin is not None and origin.name.endswith("score.weight")


def _is_head_of(task: Task, source: Source) -> bool:
    """Whether the head can be the task's: the classes in config.json are not those of another kind of task.

    Their names and shapes are alike: of two classes, and of beginning and end; of classes of texts, and of tokens.
    """
    said = source.config.architectures()
    known = {*(head.class_name for head in HEADS.values()), "ForTokenClassification"}
    kinds = {kind for kind in known if any(name.endswith(kind) for name in said)}
    if _beside_encoder(source.weights.shapes):
        return False  # over the decoder's states
    return not kinds or HEADS[task.kind].class_name in kinds


def _class_order(source: Source, task: Task, training: bool) -> tuple[list[int] | None, bool]:
    """Where the task's classes are among those that the checkpoint's head was trained on, and whether they are at all.

    A checkpoint fine-tuned elsewhere names its classes in config.json, in an order of its own.

    Returns:
        Position of each class of the task in the checkpoint, None for the same order; whether to keep the head.
    """
    names = source.config.labels()
    if names is None or len(names) != len(task.labels):
        return None, True
    folded = [name.strip().lower() for name in names]
    for known in (task.labels, task.names):
        wanted = [label.lower() for label in known]
        if sorted(folded) != sorted(wanted):
            continue
        order = [folded.index(label) for label in wanted]
        if order == sorted(order):
            return None, True
        logger.info("%s: its classes are put in the order of %s: %s", source.name, task.name, ", ".join(task.labels))
        return order, True
    said = say(
        "{model}: its classes are {names}, those of {name} {labels}",
        model=source.name,
        names=show(names),
        name=task.name,
        labels=show(task.labels),
    )
    if training:
        logger.warning(say("{said}: the head is drawn at random", said=said))
        return None, False
    raise UserError(
        say("{said}: where they mean the same, name them so in id2label of {path}", said=said, path=source.config.path)
    )


def _refuse_shifted_positions(source: Source, family: Family) -> None:
    """Refuse a head that was trained on PaddleNLP's RobertaModel, which shifts the positions of Chinese RoBERTa."""
    is_roberta = any(name.startswith("roberta.") for name in unwrapped(source.weights.shapes))
    if family.model_type == "bert" and is_roberta and Path(source.config.path).name == "config.json":
        raise UserError(
            say(
                "{name}: fine-tuned with positions that begin at 1 (PaddleNLP's RobertaModel), which this encoder "
                "was not pretrained with: fine-tune the pretrained checkpoint again",
                name=source.name,
            )
        )


def _set_epsilon(source: Source, family: Family, model: paddle.nn.Layer, is_torch: bool) -> None:
    """Give every layer normalisation the epsilon that a checkpoint from PyTorch was made with."""
    values = source.config.values
    by_default = family.assumed.get("layer_norm_eps", 1e-12)  # BERT's
    epsilon = values.get("layer_norm_eps", by_default) if is_torch else values.get(_EPSILON)
    if family.own_class and hasattr(model.config, "layer_norm_eps"):
        epsilon = model.config.layer_norm_eps  # what it says counts, whoever wrote it
    if epsilon is None:
        return
    if type(epsilon) is not float or not 0 < epsilon <= 1e-3:  # Paddle computes with no larger one
        raise source.config.error(
            say("{name} cannot be {epsilon}", name="layer_norm_eps" if is_torch else _EPSILON, epsilon=show(epsilon))
        )
    norms = [layer for layer in model.sublayers() if isinstance(layer, paddle.nn.LayerNorm)]
    if any(layer._epsilon != epsilon for layer in norms):
        setattr(model.config, _EPSILON, epsilon)
        for layer in norms:
            layer._epsilon = epsilon


# --- adapters beside it -------------------------------------------------------------------------------------------


def _find_base(config: Config, adapters: Lora) -> Source:
    """The model that a checkpoint's adapters stand on."""
    try:
        base = sources.find(adapters.base)
    except UserError as error:
        raise config.error(
            say(
                "the model that its adapters were trained on is not to be had ({error}); put it there, or name its "
                'folder as "base" in {key}',
                error=error,
                key=lora.KEY,
            )
        ) from error
    if lora.of_config(base.config):
        raise config.error(say("{key} names {base}, which has adapters itself", key=lora.KEY, base=adapters.base))
    return base


def _fill_adapters(
    source: Source,
    base: Source,
    family: Family,
    model: paddle.nn.Layer,
    adapters: Lora,
    dropout: float,
    order: list[int] | None,
    keep_head: bool,
) -> list[str]:
    """Put a checkpoint's adapters and its head on its base; return what of the head keeps its random numbers."""
    if lora.digest(model, family, base.config) != adapters.sha256:
        raise source.config.error(
            say(
                "its adapters were trained on other weights than those in {base} now, or with other settings of "
                "their config.json: put back the former",
                base=adapters.base,
            )
        )
    lora.adapt(model, family, adapters, dropout, f'{source.config.path}: "rank" in {lora.KEY}')
    own = lora.own_state(model)
    origins = {name: Origin(name, False) for name in own if name in source.weights.shapes}
    drawn = [name for name in _fill(source, model, origins, order, keep_head) if name in own]
    if missing := [name for name in drawn if name.startswith(f"{model.base_model_prefix}.")]:
        raise UserError(
            say(
                "{files}: {missing} is missing or of another shape: incomplete; copy the folder anew",
                files=source.weights.files[0],
                missing=missing[0],
            )
        )
    return drawn


def _choose_what_is_trained(
    source: Source, family: Family, model: paddle.nn.Layer, adapters: Lora | None, rank: int, dropout: float
) -> None:
    """Have a model trained as ``--lora_rank`` says: as a whole, or adapters that it has or gets."""
    if adapters and rank not in (0, adapters.rank):
        raise UserError(
            say(
                "--lora_rank {rank}: {name} has adapters of rank {adapters_rank}; pass that to train them on, 0 to "
                "train the whole model, or name {base} to begin anew",
                rank=rank,
                name=source.name,
                adapters_rank=adapters.rank,
                base=adapters.base,
            )
        )
    if adapters and not rank:
        lora.merge(model)
    elif rank and not adapters:
        with sources.unshadowed(source.name) as base:
            if not (os.path.isabs(base) or sources.is_known_name(base)):  # downloaded by a name of its own
                base = str(source.weights.files[0].parent.resolve())
            lora.adapt(model, family, Lora(rank, base, lora.digest(model, family, source.config)), dropout)
    if rank:
        own = sum(parameter.size for parameter in model.parameters() if not parameter.stop_gradient)
        logger.info("LoRA: %s of %s parameters are trained", f"{own:,}", f"{sum(p.size for p in model.parameters()):,}")


# --- whether it computes what it should ---------------------------------------------------------------------------


@contextlib.contextmanager
def _without_states_after_the_first(model: paddle.nn.Layer) -> Iterator[list[paddle.nn.Layer]]:
    """Let encoders of Paddle's give no numbers for all states but each row's first; yield those that have done so."""
    found = []

    def replace(layer: paddle.nn.Layer, inputs: Any, output: Any) -> Any:
        if not isinstance(output, paddle.Tensor):
            return output
        found.append(layer)
        return paddle.concat([output[:, :1], paddle.full_like(output[:, 1:], np.nan)], 1)

    encoders = [layer for layer in model.sublayers() if isinstance(layer, paddle.nn.TransformerEncoder)]
    hooks = [layer.register_forward_post_hook(replace) for layer in encoders]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _check_rows(source: Source, family: Family, model: paddle.nn.Layer, task: Task) -> None:
    """See that a row's logits depend on that row alone: not on padding, nor on the other rows of its batch.

    Encoders of Paddle's are told whether the head reads the state of the first token alone (``is_read_first_only``).

    Raises:
        UserError: they do, by a wrong mask or a fault of the architecture's implementation; or none can be computed.
    """
    if family.sees_padding:
        logger.warning(
            say(
                "{name}: a {model_type}'s scores depend on the padding of a batch, and so a little on "
                "--eval_batch_size",
                name=source.name,
                model_type=family.model_type,
            )
        )
    head = HEADS[task.kind]
    num_rows = model.config.num_choices if head is CHOICES else 2
    length = min(11, _num_positions(model, family))
    short = length if family.sees_padding else (length + 1) // 2
    pad, vocab_size = model.config.pad_token_id or 0, model.config.vocab_size
    ids = (pad + 1 + np.arange(num_rows * length) % (vocab_size - 1)).reshape(num_rows, length) % vocab_size

    def row_logits(rows: np.ndarray, lengths: list[int]) -> np.ndarray:
        """Of each row, float32 [rows, values]; what lies beyond its length is padding."""
        mask = (np.arange(rows.shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
        arrays = {"input_ids": np.where(mask, rows, pad), "token_type_ids": mask * 0, "attention_mask": mask}
        batch = to_tensors({name: array[None] if head is CHOICES else array for name, array in arrays.items()})
        output: np.ndarray = head.forward(model, batch).numpy()
        return output.reshape(num_rows, -1)

    if length < 1:
        raise source.config.error(say("max_position_embeddings leaves no position for a token"))
    was_training = model.training
    model.eval()
    try:
        with paddle.no_grad():
            together = row_logits(ids, [short] + [length] * (num_rows - 1))
            alone = [
                row_logits(np.repeat(ids[:1, :short], num_rows, 0), [short] * num_rows)[0],
                row_logits(np.repeat(ids[1:2], num_rows, 0), [length] * num_rows)[0],
            ]
        # What is no number shows in whatever is computed with it.
        with _without_states_after_the_first(model) as encoders, paddle.no_grad():
            first_only = bool(np.isfinite(row_logits(ids, [length] * num_rows)).all())
    except Exception as error:  # whatever PaddleNLP makes of settings that do not go together
        if is_out_of_memory(error):
            raise
        raise _impossible(source, family, error) from error
    for encoder in encoders if length > 1 else ():
        encoder.is_read_first_only = first_only
    if was_training:
        model.train()
    largest = max(float(np.abs(values).max()) for values in alone)
    off = max(float(np.abs(values - row[: len(values)]).max()) for values, row in zip(alone, together, strict=False))
    if not np.isfinite([largest, off]).all():
        raise UserError(
            say("{name}: its scores are no finite numbers: damaged weights, or of another model", name=source.name)
        )
    if off > _TOLERANCE * max(largest, 1e-3):
        raise UserError(
            say(
                "{name}: refused, a text's scores depend on the other texts of its batch (by {off:.1g} of "
                "{largest:.1g}): PaddleNLP's {model_type} computes something else than this architecture",
                name=source.name,
                off=off,
                largest=largest,
                model_type=family.model_type,
            )
        )
