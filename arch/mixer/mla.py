"""Multi-head latent attention: keys and values unfolded from a few numbers per token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contracts import Cache, Cost, SequenceMixer, parameters_only
from ..norm import RMSNorm
from ..ops.blocked import whole_sight
from ..pattern import Full
from ..position import Rotary
from ..score import DotProduct
from .cache import KVCache


class MLA(SequenceMixer):
    """Every head unfolds its keys and values from one latent vector per token; the place is told by one more, shared key.

    c_j, r_j = W_dkv x_j;  c_j = norm(c_j);  k_jh, v_jh = W_ukv,h c_j;  q_ih, p_ih = W_q,h x_i
    y_i = W_o concat_h sum_j softmax_j((q_ih . k_jh + turned(p_ih) . turned(r_j)) / sqrt(d_nope + d_rope)) v_jh

    Paper: DeepSeek-V2 2024, arXiv:2405.04434 (section 2.1). Differs: rotary channel j is paired with j + d_rope / 2.
    Cost per token: d_model * (d_latent + d_rope + n_heads * d_v) + n_heads * d_latent * (d_nope + d_v) parameters and
    n_heads * (d_nope + d_rope) * d_model for the queries, or * d_q_latent beside d_model * d_q_latent; as many multiply-adds,
    plus n_heads * (d_nope + d_rope + d_v) per pair seen; the norms have d_latent and d_q_latent parameters; d_latent + d_rope
    numbers of state for each token kept. Decoding multiplies queries and outputs by W_ukv instead of unfolding what is kept.
    Args:   d_model: channels of each token. n_heads: heads. d_latent: channels that a token's keys and values come from.
            d_nope, d_rope: channels of a head's query and key without and with rotation, d_rope even. d_v: of its value.
            d_q_latent: channels that the queries come from; None = from the token itself. position: turns d_rope channels, and
            tells the temperature of the others; None = with the base 10000.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: an odd d_rope.
    """

    outputs = ("o_proj.weight",)

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        d_latent: int,
        d_nope: int,
        d_rope: int,
        d_v: int,
        d_q_latent: int | None = None,
        position: Rotary | None = None,
    ) -> None:
        super().__init__()
        self.n_heads, self.d_latent, self.d_nope, self.d_rope, self.d_v = n_heads, d_latent, d_nope, d_rope, d_v
        self.d_q_latent = d_q_latent
        d_queries = n_heads * (d_nope + d_rope)
        if d_q_latent is None:
            self.q_proj = nn.Linear(d_model, d_queries, bias=False)
        else:
            self.q_down_proj = nn.Linear(d_model, d_q_latent, bias=False)
            self.q_norm = RMSNorm(d_model=d_q_latent)
            self.q_up_proj = nn.Linear(d_q_latent, d_queries, bias=False)
        self.kv_down_proj = nn.Linear(d_model, d_latent + d_rope, bias=False)
        self.kv_norm = RMSNorm(d_model=d_latent)
        self.kv_up_proj = nn.Linear(d_latent, n_heads * (d_nope + d_v), bias=False)
        self.o_proj = nn.Linear(n_heads * d_v, d_model, bias=False)
        self.position = Rotary(d_head=d_rope) if position is None else position
        self.pattern = Full()
        self.score = DotProduct(scale=(d_nope + d_rope) ** -0.5)

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        assert cache is None or isinstance(cache, KVCache)
        start = 0 if cache is None else cache.length
        places = torch.arange(start, start + x.shape[1], device=x.device)[None] if positions is None else positions
        q = self._queries(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        q, q_turned = q.split((self.d_nope, self.d_rope), dim=-1)  # (b, h, s, d_nope), (b, h, s, d_rope)
        if self.position.still_temperature != 1.0:
            q = q * self.position.still_temperature**2  # for the keys as well
        latent, k_turned = self.kv_down_proj(x)[:, None].split((self.d_latent, self.d_rope), dim=-1)
        q_turned, k_turned = self.position.rotate(q_turned, k_turned, places, places)
        kept = torch.cat((self.kv_norm(latent), k_turned), dim=-1)  # (b, 1, s, d_latent + d_rope)

        seen, packed = places, positions is not None
        if cache is not None:
            kept, _, seen = cache.append(kept, kept[..., :0], positions)
            packed = cache.positions is not None
        n_queries, n_keys = places.shape[1], seen.shape[1]
        mask = None
        if packed or n_queries not in (1, n_keys):  # else the kernel knows what is seen: all, or all up to the diagonal
            mask = whole_sight(self.pattern, places, seen, packed=packed).allowed[:, None]
        # The absorbed form reads the weights of kv_up_proj, which are not all there is once an adapter stands in its place.
        whole = n_queries == n_keys or not isinstance(self.kv_up_proj, nn.Linear)
        attend = self._unfolded if whole else self._absorbed
        return self.o_proj(attend(q, q_turned, kept, mask).transpose(1, 2).flatten(2))

    def _queries(self, x: Tensor) -> Tensor:
        return self.q_proj(x) if self.d_q_latent is None else self.q_up_proj(self.q_norm(self.q_down_proj(x)))

    def _unfolded(self, q: Tensor, q_turned: Tensor, kept: Tensor, mask: Tensor | None) -> Tensor:
        """Writes out every head's keys and values: the fewest products where all tokens are new. -> (b, h, s, d_v)."""
        latent, k_turned = kept.split((self.d_latent, self.d_rope), dim=-1)
        unfolded = self.kv_up_proj(latent[:, 0]).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        k, v = unfolded.split((self.d_nope, self.d_v), dim=-1)  # (b, h, s, d_nope), (b, h, s, d_v)
        q = torch.cat((q, q_turned), dim=-1)
        k = torch.cat((k, k_turned.expand(-1, self.n_heads, -1, -1)), dim=-1)  # (b, h, s, d_nope + d_rope)
        v = F.pad(v, (0, max(0, k.shape[-1] - self.d_v)))  # most fused kernels want values as wide as keys
        return self.score.attend(q, k, v, mask=mask, causal=mask is None and q.shape[2] > 1)[..., : self.d_v]

    def _absorbed(self, q: Tensor, q_turned: Tensor, kept: Tensor, mask: Tensor | None) -> Tensor:
        """Attends among the latents: q . (W_uk c) = (W_uk^T q) . c, and the mean of W_uv c is W_uv times the mean of c."""
        by_head = self.kv_up_proj.weight.unflatten(0, (self.n_heads, -1))
        up_k, up_v = by_head.split((self.d_nope, self.d_v), dim=1)  # (h, d_nope, d_latent), (h, d_v, d_latent)
        q = torch.cat((q @ up_k, q_turned), dim=-1)  # (b, h, s, d_latent + d_rope)
        # All heads share one key and value, which are one tensor: they count as further queries, and nothing is copied.
        mask = mask if mask is None else mask.repeat(1, 1, self.n_heads, 1)
        y = self.score.attend(q.flatten(1, 2)[:, None], kept, kept, mask=mask)  # (b, 1, h * s, d_latent + d_rope)
        return y[..., : self.d_latent].unflatten(2, (self.n_heads, -1))[:, 0] @ up_v.mT

    def init_cache(self, batch: int, max_seq: int) -> Cache:
        kept = self.kv_down_proj.weight.new_zeros(batch, 1, max_seq, self.d_latent + self.d_rope)
        return KVCache(k=kept, v=kept[..., :0], max_seq=max_seq)  # the values are channels of the keys: none of their own

    def cost(self, seq: int) -> Cost:
        weights = [module.weight for module in self.children() if isinstance(module, nn.Linear)]
        per_pair = self.n_heads * (self.d_nope + self.d_rope + self.d_v)
        flops = 2 * sum(w.numel() for w in weights) + 2 * per_pair * self.pattern.pairs(seq) / seq
        state = (self.d_latent + self.d_rope) * seq * weights[0].element_size()
        return parameters_only(self) + Cost(flops=flops, state_bytes=state)
