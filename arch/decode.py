"""Generating text: the transforms of the logits, and the loop that samples token after token."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor, nn

from .contracts import Position, Sublayer
from .ffn import MoE
from .model import Decoder, StackCache
from .model.encoder_decoder import ConditionedDecoder

MASKED = float("-inf")  # the logit of a token that is never sampled


def temperature(logits: Tensor, value: float) -> Tensor:
    """Flattens (value > 1) or sharpens (value < 1) the softmax: logits / value.

    Shape:  logits: (..., vocab_size) -> the same
    Raises: ValueError: value is not positive.
    """
    if not value > 0:
        raise ValueError(
            f"temperature={value}: a positive number is expected here; greedy decoding is generate's temperature=0"
        )
    return logits / value


def top_k(logits: Tensor, k: int) -> Tensor:
    """Masks all but the k likeliest tokens: exactly k remain, ties included.

    Paper: Fan 2018, arXiv:1805.04833 (section 5.1). Differs: nothing.
    Shape:  logits: (..., vocab_size) -> the same
    Raises: ValueError: k is less than 1.
    """
    if k < 1:
        raise ValueError(f"top_k={k}: at least 1 token has to remain; None = all of them")
    best = logits.topk(min(k, logits.shape[-1]), dim=-1)
    return torch.full_like(logits, MASKED).scatter(-1, best.indices, best.values)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Masks all but the nucleus, the fewest tokens whose probabilities reach p together.

    Paper: Holtzman 2019, arXiv:1904.09751 (section 3.1). Differs: nothing.
    Shape:  logits: (..., vocab_size) -> the same
    Raises: ValueError: p is not in (0, 1].
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p={p}: a probability above 0 and up to 1 is expected; None or 1 = all tokens")
    if p == 1:  # rounding must not cut the tail
        return logits
    falling, order = logits.float().sort(dim=-1, descending=True, stable=True)
    probability = falling.softmax(-1)
    before = probability.cumsum(-1) - probability  # what the likelier ones reach without this token
    return logits.masked_fill(torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p), MASKED)


def repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Makes tokens that already occurred less likely: a positive logit is divided by the penalty, a negative one multiplied.

    Paper: Keskar 2019, arXiv:1909.05858 (section 4.1). Differs: that divides negative logits too, which favours repetition.
    Args:   seen: which tokens occurred. penalty: 1 = none, above 1 repeats less, below 1 more.
    Shape:  logits: (..., vocab_size), seen: (..., vocab_size) booleans -> (..., vocab_size)
    Raises: ValueError: penalty is not positive.
    """
    if not penalty > 0:
        raise ValueError(f"repetition_penalty={penalty}: a positive number is expected, 1 changes nothing")
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def probabilities(logits: Tensor, heat: float, k: int | None, p: float | None) -> Tensor:
    """What a token is drawn with: softmax(top_p(top_k(logits / heat))).

    Args:   heat: the temperature. k, p: None = all tokens.
    Shape:  logits: (..., vocab_size) -> the same
    Raises: ValueError: a setting out of range.
    """
    logits = temperature(logits, heat)
    if k is not None:
        logits = top_k(logits, k)
    if p is not None:
        logits = top_p(logits, p)
    return logits.softmax(-1)


@torch.no_grad()
def generate(
    model: Decoder | ConditionedDecoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop: Collection[int] = (),
    generator: torch.Generator | None = None,
    on_token: Callable[[int, int], None] | None = None,
    cache: bool = True,
) -> list[list[int]]:
    """Continues each prompt, a token at a time; returns the new tokens of each row.

    token ~ softmax(top_p(top_k(repetition_penalty(logits) / temperature)))

    Cost per token: one step of the model with its cache (without: a forward pass over the whole text, the plain twin).
    Args:   model: a decoder, or EncoderDecoder.condition(source), with a row of source per prompt. prompts: tokens, of any
            lengths. max_tokens: new tokens a row at most. temperature: 0 = greedy, the likeliest each time. top_k, top_p:
            None = all tokens. stop: tokens that end their row; they are its last. generator: on the model's device.
            on_token: called with row and token as soon as it is sampled. cache: whether to use a cache.
    Raises: ValueError: a model that is not causal; an empty prompt, or a token outside the vocabulary; a text longer than the
            position table; a setting out of range.
    """
    _check(model, prompts, max_tokens)
    choose = _sampler(temperature, top_k, top_p, repetition_penalty, generator)
    rows: list[list[int]] = [[] for _ in prompts]
    if not prompts or max_tokens == 0:
        return rows
    device = model.embedding.weight.device
    text, positions = _padded(prompts, device)  # twice (b, s); no positions where no row is padded
    seen = torch.zeros(len(prompts), model.embedding.num_embeddings, dtype=torch.bool, device=device).scatter_(1, text, True)
    watched = bool(stop) or on_token is not None  # else the device never waits for the host
    open_rows, sampled = set(range(len(rows))), []
    with _evaluating(model):
        state: StackCache | None = model.init_cache(len(rows), text.shape[1] + max_tokens - 1) if cache else None
        for _ in range(max_tokens):
            logits = model(text, positions=positions, cache=state)[:, -1]
            token = choose(logits, seen)  # (b, 1)
            seen.scatter_(1, token, True)
            sampled.append(token)
            if watched:
                new = token[:, 0].tolist()
                for row in sorted(open_rows):
                    rows[row].append(new[row])
                    if on_token is not None:
                        on_token(row, new[row])
                    if new[row] in stop:
                        open_rows.remove(row)
                if not open_rows:
                    break
            if positions is not None:
                after = positions[:, -1:] + 1
                positions = after if cache else torch.cat((positions, after), dim=1)
            text = token if cache else torch.cat((text, token), dim=1)
    return rows if watched else torch.cat(sampled, dim=1).tolist()


def _sampler(
    heat: float, k: int | None, p: float | None, penalty: float, generator: torch.Generator | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """The function that chooses the next tokens: logits (b, vocab_size), seen (b, vocab_size) -> (b, 1)."""
    if not heat >= 0:
        raise ValueError(f"temperature={heat}: 0 (greedy) or a positive number is expected")

    def choose(logits: Tensor, seen: Tensor) -> Tensor:
        logits = logits.float()
        if penalty != 1:
            logits = repetition_penalty(logits, seen, penalty)
        if heat == 0:
            return logits.argmax(-1, keepdim=True)
        return torch.multinomial(probabilities(logits, heat, k, p), 1, generator=generator)

    one = torch.zeros(1, 1)  # a setting out of range is refused before the model runs
    repetition_penalty(one, one > 0, penalty)
    probabilities(one, heat or 1.0, k, p)
    return choose


def _check(model: Decoder | ConditionedDecoder, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
    """Everything that can be refused before the model runs."""
    if not model.causal:
        blocks = (model.decoder if isinstance(model, ConditionedDecoder) else model).blocks
        non_causal = {_kind(sublayer) for block in blocks for sublayer in block.sublayers if not sublayer.causal}
        raise ValueError(
            f"this model sees later tokens ({', '.join(sorted(non_causal))}), so it cannot generate text; take a causal one"
        )
    if max_tokens < 0:
        raise ValueError(f"max_tokens={max_tokens}: 0 or more is expected")
    vocab_size = model.embedding.num_embeddings
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {row} is empty: at least 1 token is needed to continue")
        for token in prompt:
            if not 0 <= token < vocab_size:
                raise ValueError(f"prompt {row} holds token {token}: the vocabulary has 0 to {vocab_size - 1}")
    longest = max(map(len, prompts), default=0)
    for module in model.modules():
        most = module.longest if isinstance(module, Position) else None
        if most is not None and longest + max_tokens - 1 > most:
            room = f"max_tokens={most + 1 - longest} would do" if longest <= most else f"a prompt has {most} tokens at most"
            text = f"{longest} + {max_tokens} tokens (prompt and new)"
            raise ValueError(f"{text} do not fit into the position table: max_seq is {most}; {room}")


def _kind(sublayer: Sublayer) -> str:
    """The kind of module that would have to be replaced."""
    kind = type(sublayer).__name__
    by_router = isinstance(sublayer, MoE) and not sublayer.router.causal
    return f"{kind} with {type(sublayer.router).__name__}" if by_router else kind


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Prompts as one tensor, the short ones padded on the left, and their positions.

    The padding repeats the prompt's first token, so that nothing counts as seen that the prompt does not hold.
    """
    width = max(map(len, prompts))
    text = torch.tensor([[prompt[0]] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    if all(len(prompt) == width for prompt in prompts):
        return text, None
    starts = torch.tensor([[width - len(prompt)] for prompt in prompts], device=device)
    return text, torch.arange(width, device=device) - starts


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
