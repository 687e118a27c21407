"""The routed ffn, written once for every router."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..contracts import ChannelMixer, Cost, Router, Routing, real
from ..routing import load
from .experts import Experts


class MoE(ChannelMixer):
    """Each token is worked on by the experts that the router chooses for it, and by the shared ffn if there is one.

    y_t = shared(x_t) + sum over the assignments a of token t:  gate_a * expert_a(x_t);   padding has no assignments

    Paper: Shazeer 2017, arXiv:1701.06538 (eq. 1); shared: Dai 2024, arXiv:2401.06066 (eq. 9), several as one wider ffn.
    Differs: nothing; the routing stays on ``self.routing`` for the losses and the statistics (``pop_routings``).
    Cost per token: the router, the shared ffn and router.top_k experts; parameters of all n_experts; no state.
    Args:   d_model: channels of each token. router: chooses the experts. experts: the bank. shared: dense, for every token.
    Shape:  x: (..., d_model), positions: (...) -> (..., d_model)
    Raises: ValueError: router and experts differ in n_experts; experts are built for another d_model.
    """

    outputs = ("experts.down_proj",)

    def __init__(self, *, d_model: int, router: Router, experts: Experts, shared: ChannelMixer | None = None) -> None:
        super().__init__()
        if router.n_experts != experts.n_experts:
            raise ValueError(
                f"the router chooses among {router.n_experts} experts but the bank has {experts.n_experts}: make them equal"
            )
        if experts.d_model != d_model:
            raise ValueError(
                f"the experts are built for d_model={experts.d_model}, the MoE for d_model={d_model}: make them equal"
            )
        self.router, self.experts, self.shared = router, experts, shared
        self.causal = router.causal and (shared is None or shared.causal)
        self.routing: Routing | None = None

    def scale_output(self, factor: float) -> None:
        super().scale_output(factor)
        if self.shared is not None:
            self.shared.scale_output(factor)

    def forward(self, x: Tensor, *, positions: Tensor | None = None) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])  # (t, m)
        of_text = None if positions is None else real(positions).expand(x.shape[:-1]).reshape(-1)  # (t,)
        self.routing = routing = self.router(tokens, of_text)
        order = routing.expert.argsort(stable=True)  # by expert; what was dropped comes last
        token, gate = routing.token.index_select(0, order), routing.gate.index_select(0, order)
        y = self.experts(tokens, token, gate, load(routing)).view(x.shape)
        return y if self.shared is None else y + self.shared(x, positions=positions)

    def cost(self, seq: int) -> Cost:
        one = self.experts.cost(seq)  # expert on one token
        k = self.router.top_k
        routed = Cost(params=one.params, active_params=round(k * one.active_params), flops=k * one.flops)
        total = self.router.cost(seq) + routed
        return total if self.shared is None else total + self.shared.cost(seq)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "routing": None}  # tensors inside a graph can be neither copied nor pickled
