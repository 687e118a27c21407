"""What is done to logits, held against numbers worked out by hand; and decoding, cached against plain."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from arch.decode import generate, repetition_penalty, temperature, top_k, top_p
from runs.training.decoding import decode_ms
from tests.lab import VOCAB, options, tiny_model, tokens

TABLES = ("learned",)  # positions with a longest text
PROMPTS = [[5, 17, 3, 42, 8, 8, 60], [11], [9, 2, 33]]


def kept(logits: Tensor) -> list[int]:
    return logits.isfinite().nonzero()[:, 0].tolist()


def of(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log().float()


def model_of(*words: str) -> nn.Module:
    """In double precision, so that no two logits lie within rounding of each other; untied, so that its texts are lively."""
    return tiny_model("model.tied=false", *words).double()


def together(model: nn.Module, prompts: list[list[int]], max_tokens: int = 12, **settings: object) -> list[list[int]]:
    return generate(model, prompts, max_tokens=max_tokens, temperature=0, **settings)


def test_a_higher_temperature_raises_the_entropy_and_keeps_the_order() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    entropies = []
    for value in (0.25, 0.5, 1.0, 2.0, 4.0):
        log_p = temperature(logits, value).log_softmax(-1)
        entropies.append(-(log_p.exp() * log_p).sum(-1))
        assert torch.equal(log_p.argsort(-1), logits.argsort(-1))
    for cooler, warmer in pairwise(entropies):
        assert (warmer > cooler + 0.01).all()
    torch.testing.assert_close(temperature(of(0.9, 0.1), 0.5).softmax(-1), torch.tensor([0.81, 0.01]) / 0.82)


def test_top_k_keeps_exactly_k_and_leaves_their_logits_alone() -> None:
    logits = torch.tensor([0.1, 3.0, -2.0, 3.5, 1.0])
    assert [kept(top_k(logits, k)) for k in (1, 2, 3, 5, 9)] == [[3], [1, 3], [1, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert top_k(logits, 2)[[1, 3]].tolist() == [3.0, 3.5]
    assert len(kept(top_k(torch.zeros(7), 3))) == 3
    two_rows = top_k(torch.stack((logits, -logits)), 1)
    assert (kept(two_rows[0]), kept(two_rows[1])) == ([3], [2])


def test_top_p_keeps_the_fewest_tokens_that_reach_p() -> None:
    logits = of(0.1, 0.5, 0.05, 0.3, 0.05)
    for p, nucleus in ((0.01, [1]), (0.49, [1]), (0.51, [1, 3]), (0.79, [1, 3]), (0.81, [0, 1, 3]), (0.91, [0, 1, 2, 3])):
        assert kept(top_p(logits, p)) == nucleus, p
    assert len(kept(top_p(logits, 1.0))) == 5
    assert len(kept(top_p(torch.zeros(4), 0.5))) == 2  # reached exactly: no third
    torch.testing.assert_close(top_p(logits, 0.6)[[1, 3]], logits[[1, 3]])


@pytest.mark.parametrize("p", [0.1, 0.37, 0.72, 0.95])
def test_top_p_is_minimal_on_random_logits(p: float) -> None:
    logits = 2 * torch.randn(20, 40, generator=torch.Generator().manual_seed(1))
    for row, result in zip(logits, top_p(logits, p), strict=True):
        chosen = sorted(row.double().softmax(-1)[kept(result)].tolist(), reverse=True)
        assert sum(chosen) >= p - 1e-6
        assert sum(chosen[:-1]) < p + 1e-6
        assert row[kept(result)].min() > row[~result.isfinite()].max()


def test_repetition_penalty_by_hand() -> None:
    logits = torch.tensor([[2.0, -2.0, 3.0, -1.0], [2.0, -2.0, 0.0, 1.0]])
    seen = torch.tensor([[True, True, False, False], [False, False, True, True]])
    expected = torch.tensor([[1.6, -2.5, 3.0, -1.0], [2.0, -2.0, 0.0, 0.8]])
    torch.testing.assert_close(repetition_penalty(logits, seen, 1.25), expected)


class Table(nn.Module):
    """A model whose logits depend on the last token alone: rows of a table."""

    causal = True

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(logits)
        self.layers = nn.ModuleList()

    def forward(self, tokens: Tensor, *, positions: Tensor | None = None, cache: object = None) -> Tensor:
        return self.embedding(tokens)

    def init_cache(self, batch: int, max_seq: int) -> None:
        return None


def drawn(logits: Tensor, n: int, **settings: object) -> Tensor:
    """How often each token is drawn from these logits, in n draws."""
    model = Table(logits.expand(len(logits), -1))
    rows = generate(model, [[0]] * n, max_tokens=1, generator=torch.Generator().manual_seed(0), **settings)
    return torch.tensor(rows).flatten().bincount(minlength=len(logits)).double()


def chi_square(counts: Tensor, p: Tensor) -> float:
    """The probability of counts as far from n p as these."""
    allowed = p > 0
    assert counts[~allowed].sum() == 0
    expected = (counts.sum() * p)[allowed]
    statistic = ((counts[allowed] - expected) ** 2 / expected).sum().item()
    return float(chi2.sf(statistic, df=int(allowed.sum()) - 1))


def test_sampling_frequencies_match_the_softmax() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, 1.1, -0.4])
    counts = drawn(logits, 20_000)
    assert chi_square(counts, logits.double().softmax(-1)) > 0.01
    assert chi_square(counts, (logits.double() / 1.1).softmax(-1)) < 1e-6  # the test sees a small difference


def test_sampling_frequencies_match_the_softmax_of_what_the_settings_leave() -> None:
    p = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    # squared: 0.16 0.09 0.0225 0.01 0.0025; of the first four 0.9 is reached by the first three
    left = torch.tensor([0.16, 0.09, 0.0225, 0.0, 0.0], dtype=torch.float64)
    assert chi_square(drawn(p.log(), 20_000, temperature=0.5, top_k=4, top_p=0.9), left / left.sum()) > 0.01
    # the prompt holds token 0: its logit log 0.4 becomes 2 log 0.4, and 0.4 becomes 0.16
    penalised = torch.tensor([0.16, 0.3, 0.15, 0.1, 0.05], dtype=torch.float64)
    assert chi_square(drawn(p.log(), 20_000, repetition_penalty=2.0), penalised / penalised.sum()) > 0.01


def test_one_seed_gives_one_text_and_another_seed_another() -> None:
    model = model_of()

    def text(seed: int, **settings: object) -> list[list[int]]:
        return generate(model, PROMPTS, max_tokens=20, generator=torch.Generator().manual_seed(seed), **settings)

    assert text(0) == text(0) == text(0, cache=False)
    assert text(0) != text(1)
    assert text(0, top_k=1) == together(model, PROMPTS, 20)


@pytest.mark.parametrize("mixer", ["mha", "gqa", "sparse"])
@pytest.mark.parametrize("position", [name for name in options("position") if name not in TABLES])
def test_greedy_with_cache_is_greedy_without(mixer: str, position: str) -> None:
    model = model_of(f"mixer={mixer}", f"position={position}")
    equal = [PROMPTS[0], PROMPTS[0][::-1]]
    for prompts in (PROMPTS, equal):
        assert together(model, prompts, 70) == together(model, prompts, 70, cache=False)
        cached, plain = (
            generate(model, prompts, max_tokens=70, generator=torch.Generator().manual_seed(0), cache=cache)
            for cache in (True, False)
        )
        assert cached == plain


@pytest.mark.parametrize("choice", [f"pattern={name}" for name in options("pattern")] + ["position=learned", "ffn=moe"])
def test_prompts_of_unequal_length_go_on_as_each_alone(choice: str) -> None:
    model = model_of(choice)
    batched = together(model, PROMPTS, 40)
    assert batched == [together(model, [prompt], 40)[0] for prompt in PROMPTS]
    assert batched == together(model, PROMPTS, 40, cache=False)
    assert len({tuple(row) for row in batched}) == len(PROMPTS)  # else anything would be equal


def test_the_penalty_meets_what_the_prompt_holds_and_what_was_drawn() -> None:
    same = Table(torch.tensor([3.0, 2.5, 2.0, 0.0]).expand(4, -1))
    for cache in (True, False):
        # 3 2.5 2 -> 0; 1.5 2.5 2 -> 1; 1.5 1.25 2 -> 2; 1.5 1.25 1 -> 0. With 0 in the prompt: the same from the second on.
        rows = together(same, [[3], [0, 3], [1]], 4, repetition_penalty=2.0, cache=cache)
        assert rows == [[0, 1, 2, 0], [1, 2, 0, 0], [0, 2, 0, 0]]


def test_penalised_prompts_go_on_as_each_alone() -> None:
    model = model_of("position=rotary")
    batched = together(model, PROMPTS, 30, repetition_penalty=3.0)
    assert batched == [together(model, [prompt], 30, repetition_penalty=3.0)[0] for prompt in PROMPTS]
    assert batched != together(model, PROMPTS, 30)


def test_greedy_takes_the_likeliest_token_of_the_plain_forward_pass() -> None:
    model = model_of("position=rotary")
    text = PROMPTS[0] + together(model, PROMPTS[:1])[0]
    best = model(torch.tensor([text]))[0].argmax(-1).tolist()
    assert text[len(PROMPTS[0]) :] == best[len(PROMPTS[0]) - 1 : -1]


def cycle(n: int) -> nn.Module:
    """Token i is followed by i + 1."""
    return Table(torch.eye(n).roll(1, dims=1))


def test_a_stop_token_ends_its_row_and_no_other() -> None:
    heard: list[tuple[int, int]] = []
    rows = together(cycle(10), [[0], [3], [5]], 4, stop=[4, 7], on_token=lambda row, token: heard.append((row, token)))
    assert rows == [[1, 2, 3, 4], [4], [6, 7]]
    assert heard == [(0, 1), (1, 4), (2, 6), (0, 2), (2, 7), (0, 3), (0, 4)]


def test_decoding_ends_with_the_last_open_row() -> None:
    model, calls = cycle(10), []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert together(model, [[0], [2]], 9, stop=[4]) == [[1, 2, 3, 4], [3, 4]]
    assert len(calls) == 4


def test_the_model_decodes_in_evaluation_mode_and_gets_its_own_back() -> None:
    model = tiny_model("ffn=moe", "router=switch").train()
    model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    twin = tiny_model("ffn=moe", "router=switch")
    assert together(model, PROMPTS) == together(twin, PROMPTS)
    assert [module.training for module in model.modules()] == modes


def test_a_text_may_fill_the_position_table_and_no_more() -> None:
    model = model_of("size.max_seq=16")
    prompt = list(range(10))
    full = together(model, [prompt], 7)  # the 17th token is drawn, and never read
    assert full == together(model, [prompt], 7, cache=False)
    assert len(full[0]) == 7
    for cache in (True, False):
        with pytest.raises(ValueError, match=r"10 \+ 8 tokens .* max_seq is 16; max_tokens=7 would do"):
            together(model, [prompt, [1]], 8, cache=cache)
    with pytest.raises(ValueError, match="a prompt has 16 tokens at most"):
        together(model, [list(range(18))], 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, r"temperature=-1.0"),
        ({"temperature": math.nan}, r"temperature=nan"),
        ({"top_k": 0}, r"top_k=0: at least 1"),
        ({"top_p": 0.0}, r"top_p=0.0"),
        ({"top_p": 1.5}, r"top_p=1.5"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty=0.0"),
        ({"max_tokens": -1}, r"max_tokens=-1"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(cycle(5), [[0]], **{"max_tokens": 3, **settings})


def test_what_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        together(cycle(5), [[1], []])
    with pytest.raises(ValueError, match=f"prompt 0 holds token {VOCAB}: the vocabulary has 0 to {VOCAB - 1}"):
        together(model_of(), [[VOCAB]])
    with pytest.raises(ValueError, match=r"sees later tokens .*ExpertChoice"):
        together(tiny_model("ffn=moe", "router=expert_choice"), PROMPTS)
    with pytest.raises(ValueError, match=r"sees later tokens .*Attention"):
        together(tiny_model("causal=false"), PROMPTS)
    with pytest.raises(ValueError, match="greedy"):
        temperature(torch.zeros(3), 0.0)


def test_nothing_to_do_gives_nothing() -> None:
    assert together(cycle(5), []) == []
    assert together(cycle(5), [[1], [2]], 0) == [[], []]


def test_the_speed_of_writing_is_that_of_steps_of_one_token_behind_a_whole_context() -> None:
    model, read = tiny_model("mixer=gqa"), []
    model.register_forward_pre_hook(lambda _, given: read.append(tuple(given[0].shape)))
    assert decode_ms(model, tokens(3, 9), 4) > 0
    assert read == [(3, 9), *[(3, 1)] * 4]
