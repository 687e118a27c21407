"""BERT, with the heads of its two tasks and that of a classifier: Devlin 2018."""

from __future__ import annotations

from collections.abc import Collection

from .mapping import NameMap, renames, rule

LEAVES = ("weight", "bias")
HEADS = {"mlm": "cls.predictions", "nsp": "cls.seq_relationship", "classifier": "classifier"}


def names(*, n_layers: int, heads: Collection[str] = ("mlm", "nsp")) -> NameMap:
    """BertForPreTraining. Args: heads: those that there are, of HEADS; none = the encoder and its pooler alone."""
    rules = [
        rule("bert.embeddings.word_embeddings.weight", "embedding.weight"),
        rule("bert.embeddings.position_embeddings.weight", "embedding.position.table.weight"),
        rule("bert.embeddings.token_type_embeddings.weight", "embedding.types.weight"),
        *renames("bert.", "", {"embeddings.LayerNorm": "embedding.norm", "pooler.dense": "pooler.proj"}, LEAVES),
    ]
    for i in range(n_layers):
        table = {
            "attention.self.query": "mixer.q_proj",
            "attention.self.key": "mixer.k_proj",
            "attention.self.value": "mixer.v_proj",
            "attention.output.dense": "mixer.o_proj",
            "attention.output.LayerNorm": "mixer_norm",
            "intermediate.dense": "ffn.up_proj",
            "output.dense": "ffn.down_proj",
            "output.LayerNorm": "ffn_norm",
        }
        rules += renames(f"bert.encoder.layer.{i}.", f"layers.{i}.", table, LEAVES)
    if "mlm" in heads:
        table = {"transform.dense": "proj", "transform.LayerNorm": "norm"}
        rules += [*renames("cls.predictions.", "heads.mlm.", table, LEAVES), rule("cls.predictions.bias", "heads.mlm.bias")]
    rules += renames("", "heads.", {HEADS[head]: head for head in ("nsp", "classifier") if head in heads}, LEAVES)
    copies = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    return NameMap(
        rules,
        their_copies=copies if "mlm" in heads else {},
        spellings=[
            (r"embeddings\.position_ids$", None),  # 0, 1, 2 ...
            (r"LayerNorm\.gamma$", "LayerNorm.weight"),
            (r"LayerNorm\.beta$", "LayerNorm.bias"),
            (r"^(embeddings|encoder|pooler)\.", r"bert.\1."),  # as saved without the heads
        ],
    )
