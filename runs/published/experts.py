"""The sizes of routed experts, both ways; families differ in what they call them."""

from __future__ import annotations

from typing import Any

from .nodes import Size, at
from .settings import Config, sizes, whole


def overrides(*, n_experts: Any, top_k: Any, d_ff: Any, n_shared: int = 0) -> list[str]:
    """d_ff: width of one expert. n_shared: experts that every token visits. size.d_gated is the width of all it visits."""
    chosen = sizes(n_experts=n_experts, top_k=top_k)
    return [*chosen, *sizes(d_gated=(top_k + n_shared) * whole("the width of an expert", d_ff))]


def config(ffn: Any, size: Size, *, n_experts: str, d_ff: str, n_shared: int = 0) -> Config:
    """ffn: a routed one; where the model has none, its sizes are those of size. n_experts, d_ff: what the family calls them."""
    top_k = at(ffn, "router.top_k", size["top_k"])
    return {
        n_experts: at(ffn, "experts.n_experts", size["n_experts"]),
        "num_experts_per_tok": top_k,
        d_ff: at(ffn, "experts.d_ff", size["d_gated"] // (top_k + n_shared)),
    }
