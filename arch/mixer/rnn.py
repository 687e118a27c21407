"""Gated recurrent networks: the mixers that attention replaced."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..contracts import Cache, Cost, SequenceMixer, parameters_only
from ..limits import at_least_one
from ..ops.gru import gru
from ..ops.linear import linear
from .state import without_autocast

State = tuple[Tensor, ...]  # each (b, m)


class RNNCache(Cache):
    """The state after the last token: one tensor (b, m) or more, the same size at every length."""

    def __init__(self, state: State) -> None:
        self.state = state


class GatedRNN(SequenceMixer):
    """What GRU and LSTM share: a state that is carried from token to token and set to zero where a document starts.

    Without positions torch's fused kernel runs the whole text, where it is fast; with them a loop over time, since that kernel
    cannot reset.

    Args:   rnn: torch's layer, whose first state is what comes out. n_states: tensors that it carries.
    """

    candidate: int  # which chunk of the stacked rows makes the candidate, in whose tanh range the state stays

    def __init__(self, *, rnn: nn.RNNBase, n_states: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.n_states = n_states

    @torch.no_grad()
    def scale_output(self, factor: float) -> None:
        """The state is the output, without a projection: what the token and the biases bring to the candidate is scaled.

        In the linear range of tanh that scales the state by the factor; what the state brings is then scaled already.
        """
        w, _, w_bias, u_bias = self.rnn.all_weights[0]
        for rows in (w, w_bias, u_bias):
            rows.unflatten(0, (-1, self.rnn.hidden_size))[self.candidate].mul_(factor)

    def run(self, x: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        """x: (b, s, m), starts: (b, s), whether a document starts, None = none does -> outputs (b, s, m) and the last state."""
        raise NotImplementedError

    def forward(self, x: Tensor, *, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        assert cache is None or isinstance(cache, RNNCache)
        state = self._zeros(x.shape[0]) if cache is None else cache.state
        x = x.to(state[0].dtype)
        # Compiled, a loop would be unrolled: a text of a thousand tokens would take hours.
        run = torch.compiler.disable(self.run) if torch.compiler.is_compiling() else self.run
        with without_autocast(x):  # which would make the kernel of a GPU compute in fp16, without a scaler for its gradients
            y, state = run(x, state, None if positions is None else positions == 0)
        if cache is not None:
            cache.state = state
        return y

    def init_cache(self, batch: int, max_seq: int) -> Cache:
        return RNNCache(self._zeros(batch))

    def _zeros(self, batch: int) -> State:
        zeros = self.rnn.all_weights[0][0].new_zeros(batch, self.rnn.hidden_size)
        return (zeros,) * self.n_states

    def cost(self, seq: int) -> Cost:
        weights = self.rnn.all_weights[0][:2]
        state = self.n_states * self.rnn.hidden_size * weights[0].element_size()
        return parameters_only(self) + Cost(flops=2 * sum(w.numel() for w in weights), state_bytes=state)


class GRU(GatedRNN):
    """Each channel of the state moves towards a candidate as far as its update gate lets it.

    r, z = sigmoid(W_r x + U_r h + b), sigmoid(W_z x + U_z h + b);  n = tanh(W_n x + c + r * (U_n h + d))
    h = (1 - z) * n + z * h,  y = h

    Paper: Cho 2014, arXiv:1406.1078 (section 2.3). Differs: r scales U_n h after the product, where the fused kernels have
    it; two biases per gate. Names and order are nn.GRU's: rnn.weight_ih_l0 is W_r, W_z, W_n stacked, rnn.weight_hh_l0 U.
    Cost per token: 6 * d_model^2 + 6 * d_model parameters, 6 * d_model^2 multiply-adds, d_model numbers of state at any length.
    Args:   d_model: channels of each token and of the state; the state itself is the output, without a projection.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    """

    candidate = 2  # of r, z, n

    def __init__(self, *, d_model: int) -> None:
        at_least_one(d_model=d_model)
        super().__init__(rnn=nn.GRU(d_model, d_model, batch_first=True), n_states=1)

    def run(self, x: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        if starts is None and not x.is_cpu:  # on a CPU nn.GRU makes two products more per token
            y, h = self.rnn(x, state[0][None])
            return y, (h[0],)
        w, u, w_bias, u_bias = self.rnn.all_weights[0]
        y = gru(x, w, u, w_bias, u_bias, state[0], starts)
        return y, (y[:, -1].clone(),)  # a view would keep the whole text alive


class LSTM(GatedRNN):
    """Each channel has a cell that gates fill, empty and show: what it holds fades by the forget gate alone.

    i, f, o = sigmoid(W x + U h + b) each;  g = tanh(W_g x + U_g h + b)
    c = f * c + i * g;  h = o * tanh(c),  y = h

    Paper: Hochreiter 1997, doi:10.1162/neco.1997.9.8.1735. Differs: the forget gate of Gers 2000, one cell per block, two
    biases per gate. Names and order are nn.LSTM's: rnn.weight_ih_l0 is W_i, W_f, W_g, W_o stacked, rnn.weight_hh_l0 U.
    Cost per token: 8 * d_model^2 + 8 * d_model parameters, 8 * d_model^2 multiply-adds, 2 * d_model numbers of state.
    Args:   d_model: channels of each token and of both states; the state h is the output, without a projection.
    Shape:  x: (batch, seq, d_model) -> (batch, seq, d_model)
    """

    candidate = 2  # of i, f, g, o

    def __init__(self, *, d_model: int) -> None:
        at_least_one(d_model=d_model)
        super().__init__(rnn=nn.LSTM(d_model, d_model, batch_first=True), n_states=2)

    def run(self, x: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        h, c = state
        if starts is None:
            y, (h, c) = self.rnn(x, (h[None], c[None]))
            return y, (h[0], c[0])
        w, u, w_bias, u_bias = self.rnn.all_weights[0]
        from_x, outputs = linear(x, w, w_bias), []  # (b, s, 4 * m): the half that needs no state
        for gates, start in zip(from_x.unbind(1), starts[..., None].unbind(1), strict=True):
            h, c = h.masked_fill(start, 0), c.masked_fill(start, 0)
            i, f, g, o = (gates + linear(h, u, u_bias)).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs, dim=1), (h, c)
