"""How scales and rates follow the size: nothing changes where nothing is asked for, and under muP a wide model learns as a
narrow one does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from arch import MLP, Attention, Decoder, Embedding, Experts, LayerNorm, Learned, MoE, PreNorm, TopK
from arch.contracts import ChannelMixer, Router, SequenceMixer
from arch.init import initialise
from runs.build.errors import ConfigError
from runs.export import refuse_another
from runs.job.check import check
from runs.job.execute import execute
from runs.job.run import Run
from runs.job.start import build_optimiser, build_task, load_data
from runs.published.family import config_of, family_named
from runs.training.optim import Optimiser, adamw, muon
from runs.training.param import MuP, Param, Standard
from tests.door import assert_same
from tests.lab import config, model_of, tiny_model, tokens

MACHINE = ("train.device=cpu", "train.precision=fp32")
SHORT = (*MACHINE, "data=mqar", "train.steps=3", "train.batch_size=2", "train.seq_len=32", "train.eval_batches=1")
WIDE = (
    "param=mup",
    "size=micro",
    "size.d_model=96",
    "size.n_heads=8",
    "size.n_layers=8",
    *SHORT,
)  # twice as wide, four times as deep

# What runs were called before there was a choice.
IDENTITIES = {
    ("size=nano", "data=mqar"): "d7a343af0151a1a5",
    ("size=micro", "ffn=moe_deepseek", "mixer=mla", "position=rotary", "data=mqar"): "dd83d85e2c5126ce",
    ("block=sandwich", "optim=muon", "data=mqar"): "c7f0673b2de1f04c",
    ("model=llama2_7b", "size=nano", "seed=3", "data=mqar"): "309f4b092af0519d",
    ("model=encoder_decoder", "size=micro"): "bad8cbd29c2f51ed",
    ("model=bert_base", "size=micro"): "0ef8e098680dc07d",
    ("block=parallel", "data=mqar"): "fb0bae194286d855",
    ("block=output_norm", "data=mqar"): "a1cd5ac17c5c7bae",
}


@pytest.mark.parametrize("words", IDENTITIES)
def test_a_run_that_asks_for_nothing_is_called_as_before(words: tuple[str, ...]) -> None:
    assert config(*words, *MACHINE).identity.startswith(IDENTITIES[words])


def test_a_record_from_before_is_read_as_the_same_run() -> None:
    run = config(*SHORT)
    content = run.to_json()
    del content["param"]
    assert replace(Run.from_json(content, Path("there")), identity="").identity == run.identity
    assert config(*SHORT, "param=mup").identity != run.identity


@pytest.mark.parametrize("words", [("ffn=dense",), ("ffn=moe", "model.tied=false", "optim=muon")], ids=["dense", "moe"])
def test_at_the_base_size_nothing_changes(words: tuple[str, ...], tmp_path: Path) -> None:
    folders = []
    for param in ("standard", "mup"):
        run = config(*words, *SHORT, "size=micro", f"param={param}", f"out={tmp_path}")
        assert execute(run, peak=(1.0, "given"))["status"] == "done"
        folders.append(run.folder)
    assert_same(*folders)


# the coordinate check ----------------------------------------------------------------------------------------------------

BASE = {"base_d_model": 48, "base_n_layers": 2, "base_d_head": 12}
WIDTHS, DEPTHS = (48, 96, 192, 384), (2, 4, 8, 16)


def network(d: int, n_layers: int, *, mup: bool, moe: bool = False, tied: bool = True) -> Decoder:
    def ffn() -> ChannelMixer:
        if not moe:
            return MLP(d_model=d, d_ff=4 * d)
        bank = Experts(d_model=d, d_ff=2 * d, n_experts=4)
        return MoE(d_model=d, router=TopK(d_model=d, n_experts=4, top_k=2), experts=bank)

    scale = 2 / n_layers if mup else 1.0
    layers = [
        PreNorm(
            mixer=Attention(d_model=d, n_heads=d // 12),
            ffn=ffn(),
            mixer_norm=LayerNorm(d_model=d),
            ffn_norm=LayerNorm(d_model=d),
            residual_scale=scale,
        )
        for _ in range(n_layers)
    ]
    embedding = Embedding(d_model=d, vocab_size=61, position=Learned(d_model=d, max_seq=32))
    return Decoder(
        embedding=embedding,
        layers=layers,
        final_norm=LayerNorm(d_model=d),
        tied=tied,
        logit_scale=48 / d if mup else 1.0,
    )


def learnt(d: int, n_layers: int, *, mup: bool, optim: str = "adamw", **kinds: bool) -> dict[str, float]:
    """The mean size of what five steps change in each kind of output; of the right answer, how far its logit stands out."""
    model = network(d, n_layers, mup=mup, **kinds)
    initialise(model, seed=0)
    param: Param = MuP(d_model=d, n_layers=n_layers, **BASE) if mup else Standard()
    param.scale_weights(model)
    how = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}
    optimiser: Optimiser = adamw(model, **how) if optim == "adamw" else muon(model, momentum=0.95, **how)
    param.scale_rates(optimiser, model)
    text = tokens(4, 33)
    before = outputs(model, text[:, :-1])
    for _ in range(5):
        F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten()).backward()
        optimiser.step()
        optimiser.zero_grad()
    after = outputs(model, text[:, :-1])
    sizes = {
        kind: sum((a - b).abs().mean().item() for a, b in zip(after[kind], before[kind], strict=True)) / len(after[kind])
        for kind in after
    }
    logits = after["logits"][0]
    right = logits.gather(-1, text[:, 1:, None])[..., 0] - logits.mean(-1)
    return sizes | {"answer": right.mean().item()}


def outputs(model: Decoder, text: Tensor) -> dict[str, list[Tensor]]:
    found: dict[str, list[Tensor]] = defaultdict(list)
    kinds = {Embedding: "embedding", SequenceMixer: "mixer", ChannelMixer: "ffn", Router: "router"}
    hooks = []
    for module in model.modules():
        kind = "stream" if module is model.layers[-1] else next((k for c, k in kinds.items() if isinstance(module, c)), None)
        if kind is not None:
            put = found[kind].append
            hooks.append(module.register_forward_hook(lambda _, __, y, put=put: put(getattr(y, "logits", y))))
    with torch.no_grad():
        found["logits"].append(model(text))
    for hook in hooks:
        hook.remove()
    return found


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of log y against log x, by least squares."""
    a, b = (torch.tensor(v, dtype=torch.float64).log() for v in (x, y))
    return float(((a - a.mean()) * (b - b.mean())).sum() / (a - a.mean()).square().sum())


def slopes(over: Sequence[int], rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {kind: slope(over, [row[kind] for row in rows]) for kind in rows[0]}


# Bounds: over three seeds the slopes were from -0.15 to 0.20 under muP and from 1.2 to 1.4 without it. A map to a few numbers
# begins with noise that falls as 1/sqrt(width), by design, and what this adds to the changes was from -0.32 to -0.21.
FLAT, FALLING, GROWING = 0.25, -0.5, 0.8


@pytest.mark.parametrize("kinds", [{}, {"tied": False}, {"moe": True}], ids=["dense", "untied", "moe"])
def test_activations_change_as_much_at_every_width(kinds: dict[str, bool]) -> None:
    found = slopes(WIDTHS, [learnt(d, 2, mup=True, **kinds) for d in WIDTHS])
    for kind in ("embedding", "mixer", "ffn", "stream", "answer"):
        assert abs(found[kind]) < FLAT, (kind, found)
    for kind in {"logits", "router"} & found.keys():
        assert FALLING < found[kind] < FLAT, (kind, found)


@pytest.mark.parametrize("moe", [False, True], ids=["dense", "moe"])
def test_without_it_they_grow_with_the_width(moe: bool) -> None:
    found = slopes(WIDTHS, [learnt(d, 2, mup=False, moe=moe) for d in WIDTHS])
    for kind in ("mixer", "ffn", "stream", *(["router"] if moe else [])):
        assert found[kind] > GROWING, (kind, found)
    assert found["logits"] > 0.2, found


def test_muon_needs_half_the_correction() -> None:
    widths = WIDTHS[:3]
    standard, mup = (slopes(widths, [learnt(d, 2, mup=mup, optim="muon") for d in widths]) for mup in (False, True))
    for kind in ("mixer", "ffn", "stream"):
        assert abs(mup[kind]) < 0.15 and standard[kind] > 0.25, (kind, standard, mup)


@pytest.mark.parametrize("moe", [False, True], ids=["dense", "moe"])
def test_activations_change_as_much_at_every_depth(moe: bool) -> None:
    standard, mup = (slopes(DEPTHS, [learnt(48, n, mup=mup, moe=moe) for n in DEPTHS]) for mup in (False, True))
    for kind in mup:
        assert abs(mup[kind]) < FLAT, (kind, mup)
    assert standard["stream"] > 1 and standard["answer"] < -0.8, standard  # what is added up drowns what is said


# tensor by tensor --------------------------------------------------------------------------------------------------------


def test_each_tensor_has_its_scale_and_its_rate() -> None:
    words = ("ffn=moe", "router=noisy", "model.tied=false", "mixer=gla")
    run = config(*WIDE, *words)
    task, plain = (build_task(r, load_data(r)) for r in (run, config(*WIDE, *words, "param=standard")))
    optimiser = build_optimiser(run, task)
    of = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    wanted = {  # how much larger it starts than without, by how much less it learns
        "model.embedding.weight": (2**0.5, 1),
        "model.embedding.position.table.weight": (2**0.5, 1),
        "model.lm_head.weight": (2**0.5, 1),
        "model.layers.3.mixer.q_proj.weight": (1, 2),
        "model.layers.3.mixer.o_proj.weight": (2, 2),  # sqrt(4): it is not divided by the depth but by the base's
        "model.layers.3.mixer.decay_proj.weight": (1, 1),  # reads 16 channels at every width
        "model.layers.3.mixer.decay_proj.bias": (1, 1),
        "model.layers.3.mixer_norm.weight": (1, 1),
        "model.layers.3.ffn.router.weight": (2**-0.5, 2),
        "model.layers.3.ffn.router.noise_weight": (2**-0.5, 2),
        "model.layers.3.ffn.experts.up_proj": (1, 2),
        "model.layers.3.ffn.experts.down_proj": (2, 2),
    }
    before, now = dict(plain.named_parameters()), dict(task.named_parameters())
    for name, (scale, slower) in wanted.items():
        torch.testing.assert_close(now[name], before[name] * scale, msg=name)
        group = of[id(now[name])]
        assert group["lr"] == pytest.approx(3e-3 / slower), name
        decay = 0.0 if name.split(".")[-1] == "bias" or "norm" in name or "embedding" in name or "lm_head" in name else 0.1
        assert group["lr"] * group["weight_decay"] == pytest.approx(3e-3 * decay), name
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(now)
    assert run.model["logit_scale"] == 1 / 2 and {layer["residual_scale"] for layer in run.model["layers"]} == {1 / 4}


@pytest.mark.parametrize(
    "words",
    [
        ("stack='gru, lstm, mla'", "position=rotary"),
        ("mixer=nsa", "block=parallel"),
        ("stack='mamba, mamba2, gated_deltanet'", "optim=muon"),
    ],
)
def test_other_mixers_can_be_scaled(words: tuple[str, ...], tmp_path: Path) -> None:
    run = config(*WIDE, *words, "size.n_layers=3", f"out={tmp_path}")
    check(run)
    assert execute(run, peak=(1.0, "given"))["status"] == "done"


def test_one_table_for_two_texts_is_scaled_once_and_heads_as_routers() -> None:
    sizes = ("param=mup", "size=micro", "size.d_model=96", "size.n_heads=8")
    for words, name, scale in (
        (("model=encoder_decoder",), "model.encoder.embedding.weight", 2**0.5),
        (("model=bert_base", "train.seq_len=32"), "heads.nsp.weight", 2**-0.5),
    ):
        run, plain = config(*sizes, *words), config(*sizes, *words, "param=standard")
        one, other = (dict(build_task(r, load_data(r)).named_parameters())[name] for r in (run, plain))
        torch.testing.assert_close(one, other * scale)
    assert run.objective["logit_scale"] == 1 / 2


# what is refused ---------------------------------------------------------------------------------------------------------


def test_heads_of_another_width_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"param.base_d_head=12: Attention has heads of 24 channels; keep their width .*size.n_heads"
    ):
        check(config("param=mup", "size=nano", *SHORT))
    check(config("param=mup", "size=nano", "size.n_heads=8", *SHORT))
    check(config("param=mup", "size=nano", "mixer=gru", "position=none", *SHORT))


def test_an_optimiser_of_another_kind_is_refused() -> None:
    model = network(48, 2, mup=True)
    with pytest.raises(ValueError, match=r"param=mup knows the rates of AdamW, Muon, not those of SGD: take param=standard"):
        MuP(d_model=48, n_layers=2, **BASE).scale_rates(torch.optim.SGD(model.parameters(), lr=0.1), model)


def test_a_run_keeps_the_rule_of_the_run_that_it_starts_from(tmp_path: Path) -> None:
    run = config(*WIDE, "size.n_layers=2", f"out={tmp_path}")
    execute(run, peak=(1.0, "given"))
    assert config(f"run={run.folder}", *SHORT).param == run.param
    with pytest.raises(ConfigError, match=r"param=standard: the run that this one starts from has param=mup; leave it out"):
        config(f"run={run.folder}", "param=standard", *SHORT)
    with pytest.raises(ConfigError, match=r"weights=there: they were trained without its scales; leave param= out"):
        replace(run, weights="there")


@pytest.mark.parametrize("key", ["logit_scale", "residual_scale"])
def test_a_published_layout_that_has_no_such_factor_does_not_express_it(key: str) -> None:
    run = config("model=gpt2", "size=micro", f"shared.{key}=0.5", *MACHINE).of_vocabulary(61)
    with pytest.raises(ConfigError, match=rf"family=gpt2 does not express it: .*{key} is 0.5 here and 1.0 there"):
        refuse_another(run.model, config_of(family_named("gpt2", ""), run.model, run.size))


# the two factors, alone --------------------------------------------------------------------------------------------------


def test_the_logit_scale_multiplies_the_logits_but_not_their_bias() -> None:
    one, half = (tiny_model("model.logit_bias=true", f"shared.logit_scale={s}") for s in (1, 0.5))
    text = tokens(2, 9)
    with torch.no_grad():
        assert isinstance(one, Decoder) and isinstance(half, Decoder)
        for model in (one, half):
            assert model.logit_bias is not None
            model.logit_bias.fill_(3.0)
        torch.testing.assert_close(half(text) - 3, (one(text) - 3) / 2)
    assert one.cost(9) == half.cost(9)


@pytest.mark.parametrize("block", ["pre_norm", "sandwich", "output_norm", "parallel"])
def test_the_residual_scale_multiplies_what_is_added(block: str) -> None:
    x = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))

    def added(scale: float, part: str) -> Tensor:
        words: tuple[str, ...] = (f"block={block}", f"shared.residual_scale={scale}")
        layer = tiny_model(*words, *(["ffn=none"] if part == "mixer" else [])).layers[0]  # type: ignore[union-attr, index]
        with torch.no_grad():
            y: Tensor = layer(x) - x  # type: ignore[operator]
        return y

    torch.testing.assert_close(added(0.25, "mixer"), added(1, "mixer") / 4)
    assert 0.2 < float(added(0.25, "both").norm() / added(1, "both").norm()) < 0.35


@pytest.mark.parametrize("key", ["model.logit_scale", "block.residual_scale"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_factor_that_is_not_positive_is_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key.split('.')[1]}={value}: more than 0 is needed"):
        model_of(config(f"{key}={value}", "size=micro"))
