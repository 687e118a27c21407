"""Query-key norm."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from ..norm import RMSNorm
from .dot_product import DotProduct


class QKNorm(DotProduct):
    """Normalises each head's queries and keys before the rotation, so that the scores stay bounded.

    y_i = sum_j softmax_j(scale * norm(q_i) . norm(k_j)) v_j

    Paper: Henry 2020, arXiv:2010.04245 (section 3). Differs: RMSNorm with learned weights and a fixed scale instead of an
    l2 norm and a learned one, as in Qwen 3 and Gemma 3; one weight vector serves all heads.
    Cost per token: 2 * d_head parameters, 2 * n_heads * d_head multiply-adds per pair.
    Args:   d_head: channels of one head. eps: added to the mean square. scale: None = 1 / sqrt(d_head).
    Shape:  q: (b, h, q, d), k, v: (b, g, k, d) -> (b, h, q, d)
    """

    def __init__(self, *, d_head: int, eps: float = 1e-6, scale: float | None = None) -> None:
        super().__init__(scale=scale)
        self.q_norm = RMSNorm(d_model=d_head, eps=eps)
        self.k_norm = RMSNorm(d_model=d_head, eps=eps)

    def normalise(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.q_norm(q), self.k_norm(k)


class FullWidthQKNorm(DotProduct):
    """Normalises queries and keys over all heads at once, before the rotation.

    y_i = sum_j softmax_j(scale * norm(q)_i . norm(k)_j) v_j,  norm over n_heads * d_head channels

    Paper: Muennighoff 2024, arXiv:2409.02060 (OLMoE, section 4.2). Differs: nothing.
    Cost per token: (n_heads + n_kv_heads) * d_head parameters, 2 * n_heads * d_head multiply-adds per pair.
    Args:   d_head: channels of one head. n_heads: query heads. n_kv_heads: key heads. eps: added to the mean square.
            scale: None = 1 / sqrt(d_head).
    Shape:  q: (b, h, q, d), k, v: (b, g, k, d) -> (b, h, q, d)
    """

    def __init__(self, *, d_head: int, n_heads: int, n_kv_heads: int, eps: float = 1e-5, scale: float | None = None) -> None:
        super().__init__(scale=scale)
        self.n_heads = n_heads
        self.q_norm = RMSNorm(d_model=n_heads * d_head, eps=eps)
        self.k_norm = RMSNorm(d_model=n_kv_heads * d_head, eps=eps)

    def normalise(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return _over_all_heads(self.q_norm, q), _over_all_heads(self.k_norm, k)


def _over_all_heads(norm: RMSNorm, x: Tensor) -> Tensor:
    return rearrange(norm(rearrange(x, "b s h d -> b s (h d)")), "b s (h d) -> b s h d", d=x.shape[-1])
