"""What a person would write for one model alone: no parts to swap, one file, the same mathematics and the same weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arch.model import Decoder


class ByHand(nn.Module):
    """A decoder with rotary positions, grouped queries, RMSNorm before each part and SwiGLU.

    Args:   model: whose weights it copies.
    """

    def __init__(self, model: Decoder, *, n_heads: int, n_kv_heads: int, theta: float, eps: float) -> None:
        super().__init__()
        state = {name.replace(".", "_"): nn.Parameter(tensor.detach().clone()) for name, tensor in model.state_dict().items()}
        self.weights = nn.ParameterDict(state)
        self.n_layers, self.n_heads, self.n_kv_heads, self.theta, self.eps = len(model.blocks), n_heads, n_kv_heads, theta, eps

    def forward(self, tokens: Tensor) -> Tensor:
        w, seq = self.weights, tokens.shape[1]
        x = F.embedding(tokens, w["embedding_weight"])
        d_head = x.shape[-1] // self.n_heads
        rates = self.theta ** (-torch.arange(0, d_head, 2, device=x.device) / d_head)
        angles = torch.outer(torch.arange(seq, device=x.device), rates)
        cos, sin = angles.cos(), angles.sin()

        def heads(t: Tensor) -> Tensor:
            return t.unflatten(-1, (-1, d_head)).transpose(1, 2)

        def rotated(t: Tensor) -> Tensor:
            one, other = t.chunk(2, dim=-1)
            return torch.cat((one * cos - other * sin, other * cos + one * sin), dim=-1)

        for i in range(self.n_layers):
            at = f"layers_{i}_"
            y = F.rms_norm(x, x.shape[-1:], w[f"{at}mixer_norm_weight"], self.eps)
            q, k, v = (heads(F.linear(y, w[f"{at}mixer_{name}_proj_weight"])) for name in "qkv")
            y = F.scaled_dot_product_attention(rotated(q), rotated(k), v, is_causal=True, enable_gqa=True)
            x = x + F.linear(y.transpose(1, 2).flatten(2), w[f"{at}mixer_o_proj_weight"])
            y = F.rms_norm(x, x.shape[-1:], w[f"{at}ffn_norm_weight"], self.eps)
            y = F.silu(F.linear(y, w[f"{at}ffn_gate_proj_weight"])) * F.linear(y, w[f"{at}ffn_up_proj_weight"])
            x = x + F.linear(y, w[f"{at}ffn_down_proj_weight"])
        return F.linear(F.rms_norm(x, x.shape[-1:], w["final_norm_weight"], self.eps), w["embedding_weight"])
