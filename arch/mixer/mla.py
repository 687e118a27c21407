"""Multi-head latent attention: keys and values unfolded from a few numbers per token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..contracts import Cache, Cost, SequenceMixer, parameters_only
from ..limits import at_least_one
from ..norm import RMSNorm
from ..ops.blocked import full_mask
from ..ops.linear import Linear
from ..pattern import Full
from ..position import Rotary
from ..score import DotProduct
from .cache import KVCache


class MLA(SequenceMixer):
    """Every head unfolds its keys and values from one latent vector per token; one more, shared key carries the position.

    c_j, r_j = W_dkv x_j;  c_j = norm(c_j);  k_jh, v_jh = W_ukv,h c_j;  q_ih, p_ih = W_q,h x_i
    y_i = W_o concat_h sum_j softmax_j((q_ih . k_jh + rotated(p_ih) . rotated(r_j)) / sqrt(d_nope + d_rope)) v_jh

    Paper: DeepSeek-V2 2024, arXiv:2405.04434 (section 2.1). Differs: rotary channel j is paired with j + d_rope / 2.
    Cost per token: d_model * (d_latent + d_rope + n_heads * d_v) + n_heads * d_latent * (d_nope + d_v) parameters and
    n_heads * (d_nope + d_rope) * d_model for the queries, or * d_q_latent beside d_model * d_q_latent; as many multiply-adds,
    plus n_heads * (d_nope + d_rope + d_v) per pair seen; the norms have d_latent and d_q_latent parameters; d_latent + d_rope
    numbers of state for each cached token. Decoding multiplies queries and outputs by W_ukv instead of unfolding the cache.
    Args:   d_model: channels of each token. n_heads: heads. d_latent: channels that a token's keys and values come from.
            d_nope, d_rope: channels of a head's query and key without and with rotation, d_rope even. d_v: of its value.
            d_q_latent: channels that the queries come from; None = from the token itself. position: rotates d_rope channels and
            has the temperature of the others; None = with the base 10000. eps: of the norms, added to the mean square.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    Raises: ValueError: an odd d_rope; a size below 1.
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
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        at_least_one(d_model=d_model, n_heads=n_heads, d_latent=d_latent, d_nope=d_nope, d_rope=d_rope, d_v=d_v)
        self.n_heads, self.d_latent, self.d_nope, self.d_rope, self.d_v = n_heads, d_latent, d_nope, d_rope, d_v
        self.d_q_latent = d_q_latent
        d_queries = n_heads * (d_nope + d_rope)
        if d_q_latent is None:
            self.q_proj = Linear(d_model, d_queries, bias=False)
        else:
            at_least_one(d_q_latent=d_q_latent)
            self.q_down_proj = Linear(d_model, d_q_latent, bias=False)
            self.q_norm = RMSNorm(d_model=d_q_latent, eps=eps)
            self.q_up_proj = Linear(d_q_latent, d_queries, bias=False)
        self.kv_down_proj = Linear(d_model, d_latent + d_rope, bias=False)
        self.kv_norm = RMSNorm(d_model=d_latent, eps=eps)
        self.kv_up_proj = Linear(d_latent, n_heads * (d_nope + d_v), bias=False)
        self.o_proj = Linear(n_heads * d_v, d_model, bias=False)
        self.position = Rotary(d_head=d_rope) if position is None else position
        self.pattern = Full()
        self.score = DotProduct(scale=(d_nope + d_rope) ** -0.5)

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        assert cache is None or isinstance(cache, KVCache)
        start = 0 if cache is None else cache.length
        q_positions = torch.arange(start, start + x.shape[1], device=x.device)[None] if positions is None else positions
        q = rearrange(self._queries(x), "b s (h d) -> b h s d", h=self.n_heads)
        q, q_rotated = q.split((self.d_nope, self.d_rope), dim=-1)  # (b, h, s, d_nope), (b, h, s, d_rope)
        if self.position.unrotated_temperature != 1.0:
            q = q * self.position.unrotated_temperature**2  # for the keys as well
        latent, k_rotated = self.kv_down_proj(x)[:, None].split((self.d_latent, self.d_rope), dim=-1)
        q_rotated, k_rotated = self.position.rotate(q_rotated, k_rotated, q_positions, q_positions)
        latents = torch.cat((self.kv_norm(latent), k_rotated), dim=-1)  # (b, 1, s, d_latent + d_rope)

        k_positions, packed = q_positions, positions is not None
        if cache is not None:
            latents, _, k_positions = cache.append(latents, latents[..., :0], positions)
            packed = cache.positions is not None
        n_queries, n_keys = q_positions.shape[1], k_positions.shape[1]
        mask = None
        if packed or n_queries not in (1, n_keys):  # else the kernel knows what is seen: all, or all up to the diagonal
            mask = full_mask(self.pattern, q_positions, k_positions, packed=packed).allowed[:, None]
        # The absorbed form reads the weights of kv_up_proj, which are not all there is once an adapter stands in its place.
        whole = n_queries == n_keys or not isinstance(self.kv_up_proj, nn.Linear)
        attend = self._unfolded if whole else self._absorbed
        return self.o_proj(rearrange(attend(q, q_rotated, latents, mask), "b h s d -> b s (h d)"))

    def _queries(self, x: Tensor) -> Tensor:
        return self.q_proj(x) if self.d_q_latent is None else self.q_up_proj(self.q_norm(self.q_down_proj(x)))

    def _unfolded(self, q: Tensor, q_rotated: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """Writes out every head's keys and values: the fewest products where all tokens are new. -> (b, h, s, d_v)."""
        latent, k_rotated = latents.split((self.d_latent, self.d_rope), dim=-1)
        unfolded = rearrange(self.kv_up_proj(latent[:, 0]), "b s (h d) -> b h s d", h=self.n_heads)
        k, v = unfolded.split((self.d_nope, self.d_v), dim=-1)  # (b, h, s, d_nope), (b, h, s, d_v)
        q = torch.cat((q, q_rotated), dim=-1)
        k = torch.cat((k, k_rotated.expand(-1, self.n_heads, -1, -1)), dim=-1)  # (b, h, s, d_nope + d_rope)
        v = F.pad(v, (0, max(0, k.shape[-1] - self.d_v)))  # most fused kernels want values as wide as keys
        causal = mask is None if q.shape[2] > 1 else False  # a branch: compiled, a comparison of lengths is no bool
        return self.score.attend(q, k, v, mask=mask, causal=causal)[..., : self.d_v]

    def _absorbed(self, q: Tensor, q_rotated: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """Attends among the latents: q . (W_uk c) = (W_uk^T q) . c, and the mean of W_uv c is W_uv times the mean of c."""
        by_head = rearrange(self.kv_up_proj.weight, "(h d) l -> h d l", h=self.n_heads)
        up_k, up_v = by_head.split((self.d_nope, self.d_v), dim=1)  # (h, d_nope, d_latent), (h, d_v, d_latent)
        q = torch.cat((q @ up_k, q_rotated), dim=-1)  # (b, h, s, d_latent + d_rope)
        # All heads share one key and value, which are one tensor: they count as further queries, and nothing is copied.
        mask = mask if mask is None else repeat(mask, "b 1 s k -> b 1 (h s) k", h=self.n_heads)
        y = self.score.attend(rearrange(q, "b h s l -> b 1 (h s) l"), latents, latents, mask=mask)
        return rearrange(y[..., : self.d_latent], "b 1 (h s) l -> b h s l", h=self.n_heads) @ up_v.mT

    def init_cache(self, batch: int, max_seq: int) -> Cache:
        latents = self.kv_down_proj.weight.new_zeros(batch, 1, max_seq, self.d_latent + self.d_rope)
        return KVCache(k=latents, v=latents[..., :0], max_seq=max_seq)  # the values are channels of the keys: none of their own

    def cost(self, seq: int) -> Cost:
        weights = [module.weight for module in self.children() if isinstance(module, nn.Linear)]
        per_pair = self.n_heads * (self.d_nope + self.d_rope + self.d_v)
        flops = 2 * sum(w.numel() for w in weights) + 2 * per_pair * self.pattern.pairs(seq) / seq
        state = (self.d_latent + self.d_rope) * seq * weights[0].element_size()
        return parameters_only(self) + Cost(flops=flops, state_bytes=state)
