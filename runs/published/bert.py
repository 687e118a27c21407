"""BERT, with the heads of its two objectives or that of a classifier."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from arch.pretrained import NameMap, bert

from .family import Family
from .nodes import Node, Size, at, layers, norm_eps, vocab_size
from .settings import Config, dividing, only, shared, sizes, wholes


def overrides(config: Config) -> list[str]:
    only(config, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False, tie_word_embeddings=True)
    only(config, hidden_act="gelu")  # that of objective=masked_lm, whose head has one too
    return [
        "model=bert_base",
        *wholes("model.embedding", n_types=config["type_vocab_size"]),
        *shared(norm_eps=config.get("layer_norm_eps", 1e-12)),
        *sizes(
            d_model=config["hidden_size"],
            n_layers=config["num_hidden_layers"],
            n_heads=dividing("n_heads", config["num_attention_heads"], config["hidden_size"]),
            d_ff=config["intermediate_size"],
            vocab_size=config["vocab_size"],
            max_seq=config["max_position_embeddings"],
        ),
    ]


def names(config: Config, tensors: Collection[str]) -> NameMap:
    present = [o for o, t in bert.HEADS.items() if any(name.startswith((f"heads.{o}.", f"{t}.")) for name in tensors)]
    return bert.names(n_layers=config["num_hidden_layers"], heads=present)


def config(model: Node, size: Size) -> Config:
    layer = layers(model)[0]
    return {
        "hidden_size": size["d_model"],
        "num_hidden_layers": len(layers(model)),
        "num_attention_heads": at(layer, "mixer.n_heads", size["n_heads"]),
        "intermediate_size": at(layer, "ffn.d_ff", size["d_ff"]),
        "max_position_embeddings": size["max_seq"],
        "vocab_size": vocab_size(model),
        "type_vocab_size": at(model, "embedding.n_types") or 1,
        "layer_norm_eps": norm_eps(layer),
        "hidden_act": "gelu",
    }


def heads(objective: Node) -> list[str]:
    """The layout's classifier reads the first token, so one that reads another has no room in it."""
    reads_first = objective.get("pool") in (None, "first")
    return [head for head in bert.HEADS if reads_first or head != "classifier"]


def head_config(tensors: Mapping[str, Tensor]) -> Config:
    present = {name.split(".")[1] for name in tensors}
    if "classifier" in present:
        labels = [f"LABEL_{i}" for i in range(len(tensors["heads.classifier.bias"]))]
        numbers = {label: i for i, label in enumerate(labels)}
        return {"architectures": ["BertForSequenceClassification"], "id2label": dict(enumerate(labels)), "label2id": numbers}
    return {"architectures": ["BertForPreTraining" if "nsp" in present else "BertForMaskedLM"]} if present else {}


FAMILY = Family(
    model_type="bert",
    architecture="BertModel",
    overrides=overrides,
    names=names,
    config=config,
    heads=heads,
    head_config=head_config,
)
