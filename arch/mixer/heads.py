"""What attention within a text and attention across two texts share: the four projections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from ..contracts import SequenceMixer
from ..limits import at_least_one
from ..ops.linear import Linear

Bias = bool | Literal["qkv"]


class Heads(SequenceMixer):
    """Projections to query heads, to the key and value heads that groups of them share, and back.

    Args:   d_model: channels of each token. n_heads: query heads. n_kv_heads: key and value heads; None = n_heads.
            d_head: channels of one head; None = d_model / n_heads. bias: on all four projections (true), on none (false), or
            on all but the output's (qkv).
    Raises: ValueError: n_heads does not divide d_model; n_kv_heads does not divide n_heads; an unknown bias.
    """

    outputs = ("o_proj.weight",)
    implied: ClassVar[Mapping[str, str]] = {"n_kv_heads": "n_heads"}  # None stands for the value of the other

    def __init__(
        self, *, d_model: int, n_heads: int, n_kv_heads: int | None = None, d_head: int | None = None, bias: Bias = False
    ) -> None:
        super().__init__()
        if bias not in (True, False, "qkv"):
            raise ValueError(f"bias={bias!r}: true (all four projections), false (none) or qkv (all but the output's) is right")
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        at_least_one(d_model=d_model, n_heads=n_heads)
        if d_head is None:
            _must_divide("n_heads", n_heads, "d_model", d_model, " (or pass d_head)")
            d_head = d_model // n_heads
        _must_divide("n_kv_heads", n_kv_heads, "n_heads", n_heads)
        at_least_one(d_head=d_head)
        self.n_heads, self.n_kv_heads, self.d_head = n_heads, n_kv_heads, d_head
        self.q_proj = Linear(d_model, n_heads * d_head, bias=bool(bias))
        self.k_proj = Linear(d_model, n_kv_heads * d_head, bias=bool(bias))
        self.v_proj = Linear(d_model, n_kv_heads * d_head, bias=bool(bias))
        self.o_proj = Linear(n_heads * d_head, d_model, bias=bias is True)

    def projection_flops(self) -> int:
        """Of one token, multiply-adds counted as 2."""
        return 2 * sum(proj.weight.numel() for proj in (self.q_proj, self.k_proj, self.v_proj, self.o_proj))

    def state_bytes(self, tokens: int) -> int:
        """Of the keys and values of that many tokens."""
        return 2 * self.n_kv_heads * self.d_head * tokens * self.k_proj.weight.element_size()


def _must_divide(part_name: str, part: int, whole_name: str, whole: int, instead: str = "") -> None:
    if part < 1 or whole % part:
        choices = ", ".join(str(n) for n in range(1, whole + 1) if whole % n == 0)
        raise ValueError(f"{part_name} {part} does not divide {whole_name} {whole}: take one of {choices}{instead}")
