"""Looking inside a model: the tree, the drawing, attention, expert choices, neighbours, and the command."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from arch import Attention, MoE
from arch.contracts import Block, SequenceMixer
from arch.mixer import MLA, CrossAttention, Memory
from arch.mixer.heads import Heads
from arch.model import Stack
from arch.routing import load, pop_routings
from runs.build.errors import ConfigError
from runs.command import guarded
from runs.inspection.drawing import draw_layer, drawing
from runs.inspection.figures import attention_figure, experts_figure, save
from runs.inspection.folding import Repeat, fold
from runs.inspection.maps import attention_weights, capture, gates
from runs.inspection.neighbours import neighbours
from runs.inspection.tokens import ReadableTokens
from runs.inspection.tree import WIDTH, module_tree, tree
from runs.inspection.wiring import Merge, wiring
from runs.job.execute import execute
from runs.look import main
from runs.tokenizer import Bytes
from tests.lab import TINY, config, options, tiny_model, tokens

Trained = Callable[..., Path]
RECURRENT = ("gru", "lstm", "mamba", "mamba2", "gla", "gated_deltanet", "nsa")  # nsa: gated sums over summaries of tokens
RESIDUAL: list[object] = []


def unfolded(repeats: list[Repeat], items: str) -> str:
    found = ""
    for repeat in repeats:
        one = unfolded(list(repeat.parts), items) if repeat.parts else items[repeat.first]
        found += repeat.times * one
    return found


@pytest.mark.parametrize("items", ["", "a", "aaaa", "mmmgmmmgmm", "daaaaaaa", "ababab", "abcabcab", "aabbaabb", "abcd", "aab"])
def test_folding_loses_nothing(items: str) -> None:
    assert unfolded(fold(items), items) == items


def test_a_stack_folds_into_its_pattern() -> None:
    first, rest = fold("mmmgmmmgmm")
    assert (first.times, first.items, first.label) == (2, 4, "0-7")
    assert [(part.times, part.label) for part in first.parts] == [(3, "0-2"), (1, "3")]
    assert (rest.times, rest.label) == (2, "8-9")


@pytest.mark.parametrize("mixer", options("mixer"))
def test_the_tree_holds_every_parameter_once(mixer: str) -> None:
    model = tiny_model(f"mixer={mixer}", "position=none")
    assert module_tree(model).params == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("words", [("model=encoder_decoder",), ("ffn=moe_deepseek",), ("model=bert_base", "size=micro")])
def test_the_trees_first_line_is_the_whole_model(words: tuple[str, ...]) -> None:
    model = tiny_model(*words)
    total = sum(parameter.numel() for parameter in model.parameters())
    table = tree(model).splitlines()
    assert table[1].split() == [type(model).__name__, f"{total:,}", "100.0", "%"]
    assert max(map(len, table)) <= WIDTH


def test_equal_layers_are_told_once_and_counted() -> None:
    table = tree(tiny_model("size.n_layers=5"))
    (line,) = re.findall(r"^ +0-4: 5 x .*$", table, flags=re.M)
    each, everything = (int(number.replace(",", "")) for number in line.split()[4:6])
    assert everything == 5 * each
    assert table.count("q_proj") == 1


def test_layers_that_differ_are_not_folded() -> None:
    model = tiny_model("size.n_layers=4")
    table = tree(model)
    with torch.no_grad():
        model.layers[2].mixer.o_proj = nn.Linear(24, 24, bias=True)  # type: ignore[index, union-attr]
    assert "0-3: 4 x" in table
    assert all(row in tree(model) for row in ("0-1: 2 x", "    2 ", "    3 "))


def test_a_shared_table_is_counted_where_it_is_met_first() -> None:
    assert re.search(r"\(that of\s+encoder.embedding.weight\)", tree(tiny_model("model=encoder_decoder")))


@pytest.mark.parametrize("block", options("block"))
def test_the_wiring_computes_what_the_layer_computes(block: str) -> None:
    module = layer_of(tiny_model(f"block={block}"))
    x = torch.randn(2, 7, 24, dtype=torch.double)
    module.double()
    torch.testing.assert_close(followed(wiring(module), module, x), module(x))


def followed(steps: list[object], block: Block, x: Tensor) -> Tensor:
    """x along the steps of a wiring."""
    for step in steps:
        if isinstance(step, Merge):
            assert step.symbol == "+"
            x = sum((followed(path, block, x) for path in step.paths), torch.zeros_like(x))  # type: ignore[arg-type]
        else:
            x = block.get_submodule(str(step))(x)
    return x


def layer_of(model: nn.Module) -> Block:
    return next(module for module in model.modules() if isinstance(module, Block))


def test_the_wiring_of_a_pre_norm_layer() -> None:
    assert wiring(layer_of(tiny_model())) == [
        Merge("+", [RESIDUAL, ["mixer_norm", "mixer"]]),  # type: ignore[list-item]
        Merge("+", [RESIDUAL, ["ffn_norm", "ffn"]]),  # type: ignore[list-item]
    ]


def test_a_factor_is_drawn_with_its_value() -> None:
    added, _ = wiring(layer_of(tiny_model("block.residual_scale=0.25")))
    assert added == Merge("+", [RESIDUAL, ["mixer_norm", "mixer", "times 0.25"]])  # type: ignore[list-item]
    assert "times 0.25" in drawing(tiny_model("model.logit_scale=0.25"))


def test_side_by_side_what_shares_a_norm() -> None:
    inner = Merge("+", [["mixer"], ["ffn"]])
    assert wiring(layer_of(tiny_model("block=parallel"))) == [Merge("+", [RESIDUAL, ["norm", inner]])]  # type: ignore[list-item]


class Own(Block):
    """A user's block: a gate of its own on what the mixer adds."""

    def __init__(self, mixer: SequenceMixer, *, wild: bool = False) -> None:
        super().__init__()
        self.mixer, self.wild = mixer, wild
        self.gate_proj = nn.Linear(24, 24)
        self.scale = nn.Parameter(torch.ones(24))

    def forward(self, x: Tensor, *, positions: object = None, cache: object = None) -> Tensor:
        if self.wild and x.sum() > 0:
            return x
        return x + self.mixer(x) * self.gate_proj(x).sigmoid() * self.scale


def test_a_block_of_ones_own_is_drawn_as_it_runs() -> None:
    block = Own(Attention(d_model=24, n_heads=4))
    (added,) = wiring(block)
    assert isinstance(added, Merge)
    product, factor = added.paths[1]
    assert (product, factor) == (Merge("*", [["mixer"], ["gate_proj", "sigmoid"]]), "mul")
    assert "(*)" in "\n".join(draw_layer(block).lines)
    assert wiring(Own(Attention(d_model=24, n_heads=4), wild=True)) == ["mixer", "gate_proj"]


@pytest.mark.parametrize("block", options("block"))
def test_a_drawing_shows_every_part_of_the_layer(block: str) -> None:
    model = tiny_model(f"block={block}")
    picture = drawing(model)
    assert f"2 x {type(layer_of(model)).__name__}, layers 0-1" in picture
    norms = sum("norm" in name for name, _ in layer_of(model).named_children())
    assert picture.count("LayerNorm") == norms + (model.final_norm is not None)
    assert picture.count("(+)") == (0 if block == "plain" else 2)
    assert_upright(picture)


@pytest.mark.parametrize(
    "words",
    [
        ("stack='3*mamba2, gqa'", "position=none", "size.n_layers=9"),
        ("model=encoder_decoder", "ffn=moe"),
        ("model=bert_base", "size=micro"),
        ("model=llama2_7b", "size=micro"),
    ],
)
def test_stacks_of_every_shape_are_drawn(words: tuple[str, ...]) -> None:
    model = tiny_model(*words)
    picture = drawing(model)
    assert_upright(picture)
    for module in model.modules():
        if isinstance(module, SequenceMixer):
            assert f"{type(module).__name__}, {sum(p.numel() for p in module.parameters()):,} parameters" in picture
    stacks = sum(isinstance(module, Stack) for module in model.modules())
    assert picture.count("tokens") == stacks
    if isinstance(model, Stack) and len(model.blocks) == 9:
        assert "2 x 4 layers, layers 0-7" in picture
        assert "3 x PreNorm" in picture
        assert "PreNorm, layer 8" in picture


def assert_upright(picture: str) -> None:
    """Every arrow has something to point at and something to come from; no line leaves the terminal."""
    lines = picture.splitlines()
    assert max(map(len, lines)) <= WIDTH
    for row, line in enumerate(lines):
        for column in (i for i, letter in enumerate(line) if letter == "^"):
            for other in (lines[row - 1], lines[row + 1]):
                assert other[max(0, column - 1) : column + 2].strip(), (row, column)


def test_what_has_no_layers_is_not_drawn() -> None:
    with pytest.raises(ValueError, match="Linear has no stack of layers to draw"):
        drawing(nn.Linear(3, 3))


def carried(mixer: SequenceMixer, weights: Tensor, x: Tensor) -> Tensor:
    """What a mixer gives out if these are its weights."""
    if isinstance(mixer, MLA):
        latent = mixer.kv_norm(mixer.kv_down_proj(x)[..., : mixer.d_latent])
        v = mixer.kv_up_proj(latent).unflatten(-1, (mixer.n_heads, -1))[..., mixer.d_nope :].transpose(1, 2)
    else:
        assert isinstance(mixer, Heads)
        v = mixer.v_proj(x).unflatten(-1, (mixer.n_kv_heads, -1)).transpose(1, 2)
        v = v.repeat_interleave(mixer.n_heads // mixer.n_kv_heads, dim=1)
    return mixer.o_proj((weights @ v).transpose(1, 2).flatten(2))


WEIGHING = [
    *((f"mixer={mixer}", "position=none") for mixer in options("mixer") if mixer not in RECURRENT),
    *((f"pattern={pattern}",) for pattern in options("pattern")),
    *((f"score={score}",) for score in options("score")),
    *((f"position={position}",) for position in options("position")),
    ("pattern=sliding_window", "size.window=5", "mixer=gqa", "position=rotary"),
    ("causal=false",),
]


@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("words", WEIGHING, ids=",".join)
@pytest.mark.parametrize("seq", [1, 63])
def test_the_weights_are_those_of_the_mixer(words: tuple[str, ...], seq: int, packed: bool) -> None:
    """Values weighed by them give the mixer's own output; rows sum to 1, but for what a sink takes; the unseen weighs 0."""
    mixer = layer_of(tiny_model(*words)).mixer.double()
    x = torch.randn(2, seq, 24, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    place = torch.arange(seq)
    positions = torch.stack([place, torch.where(place < 20, place, place - 20)]) if packed else None
    weights = attention_weights(mixer, x, positions=positions)
    assert weights is not None
    torch.testing.assert_close(carried(mixer, weights, x), mixer(x, positions=positions))
    sums = weights.sum(-1)
    if "score=sink" in words:
        assert bool((sums < 1).all())
    else:
        torch.testing.assert_close(sums, torch.ones_like(sums))
    if packed and seq > 20:
        assert bool((weights[1, :, 20:, :20] == 0).all())
    pattern, places = mixer.pattern, place[None] if positions is None else positions
    hidden = ~pattern.allows(places, places)[:, None]
    assert bool((weights[hidden.expand_as(weights)] == 0).all())


def test_looking_across_is_seen_too() -> None:
    mixer = CrossAttention(d_model=24, n_heads=4, n_kv_heads=2).double()
    x, memory = torch.randn(1, 5, 24, dtype=torch.double), torch.randn(1, 33, 24, dtype=torch.double)
    place = torch.cat((torch.arange(30), torch.full((3,), -1)))[None]
    read = Memory(x=memory, positions=place)
    weights = attention_weights(mixer, x, memory=read)
    assert weights is not None
    assert weights.shape == (1, 4, 5, 33)
    torch.testing.assert_close(carried(mixer, weights, memory), mixer(x, memory=read))
    assert bool((weights[..., 30:] == 0).all())


@pytest.mark.parametrize("mixer", RECURRENT)
def test_mixers_without_weights_are_named(mixer: str) -> None:
    model = tiny_model(f"mixer={mixer}", "position=none")
    captured = capture(model, tokens(1, 9))
    assert captured.attention == {}
    assert captured.without_weights == {f"layers.{i}.mixer": type(layer_of(model).mixer).__name__ for i in range(2)}


def test_looking_leaves_the_model_as_it_was() -> None:
    model = tiny_model("ffn=moe").train()
    before = model(tokens(2, 9))
    capture(model, tokens(1, 9))
    assert model.training
    assert pop_routings(model) == {}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    torch.testing.assert_close(model(tokens(2, 9)), before, rtol=0, atol=0)


def test_a_text_is_looked_at_in_every_layer() -> None:
    model = tiny_model("model=encoder_decoder", "ffn=moe")
    captured = capture(model, tokens(1, 9), tokens(1, 5))
    assert {name: tuple(weights.shape) for name, weights in captured.attention.items()} == {
        "encoder.layers.0.mixer": (4, 9, 9),
        "encoder.layers.1.mixer": (4, 9, 9),
        "decoder.layers.0.mixer": (4, 5, 5),
        "decoder.layers.1.mixer": (4, 5, 9),
        "decoder.layers.2.mixer": (4, 5, 5),
        "decoder.layers.3.mixer": (4, 5, 9),
    }
    assert captured.cross == {"decoder.layers.1.mixer", "decoder.layers.3.mixer"}
    assert set(captured.routings) == {
        f"{stack}.layers.{i}.ffn" for stack, i in [("encoder", 0), ("encoder", 1), ("decoder", 1)]
    } | {"decoder.layers.3.ffn"}


@pytest.mark.parametrize("router", options("router"))
def test_expert_choices_are_the_routers(router: str) -> None:
    model = tiny_model("ffn=moe", f"router={router}")
    text = tokens(1, 20)
    table = gates(capture(model, text).routings["layers.0.ffn"])
    with torch.no_grad():
        model(text)
    routing = pop_routings(model)["layers.0.ffn"]
    assert table.shape == (20, 4)
    assert torch.equal((~table.isnan()).sum(0), load(routing))
    for token, expert, gate in zip(routing.token, routing.expert, routing.gate, strict=True):
        if expert < 4:
            assert table[token, expert] == gate


def test_the_gates_say_what_the_experts_add() -> None:
    model = tiny_model("ffn=moe")
    moe = next(module for module in model.modules() if isinstance(module, MoE))
    x = torch.randn(6, 24)
    with torch.no_grad():
        y = moe(x)
        assert moe.routing is not None
        table = gates(moe.routing).nan_to_num()
        alone = [torch.tensor([6 if e == expert else 0 for e in range(4)]) for expert in range(4)]
        each = [moe.experts(x, torch.arange(6), torch.ones(6), counts) for counts in alone]
    torch.testing.assert_close(sum((table[:, e, None] * each[e] for e in range(4)), torch.zeros(6, 24)), y)


def test_a_token_is_its_own_nearest_neighbour_and_a_copy_the_next() -> None:
    table = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    table[7] = 3 * table[31]
    found = neighbours(table, 31, k=4)
    assert [token for token, _ in found[:2]] == [31, 7]
    assert [similarity for _, similarity in found[:2]] == pytest.approx([1, 1])
    cosine = torch.cosine_similarity(table.double(), table[31].double(), dim=-1)
    assert [similarity for _, similarity in found] == pytest.approx(cosine.sort(descending=True).values[:4].tolist())
    assert neighbours(table, 7, k=2)[0].token == 7
    assert len(neighbours(table, 0, k=99)) == 50
    with pytest.raises(ValueError, match="token 50: the table has rows 0 to 49"):
        neighbours(table, 50)
    with pytest.raises(ValueError, match="k=0"):
        neighbours(table, 1, k=0)


def test_tokens_are_readable() -> None:
    readable = ReadableTokens(Bytes(), {"bos": 256, "eos": 257})
    assert [readable.label(token) for token in [*"a\n é".encode(), 256, 300]] == [
        "a",
        "\\n",
        " ",
        "\\xc3",
        "\\xa9",
        "[bos]",
        "<300>",
    ]
    assert readable.with_specials([1, 2], around=False, before=True) == [256, 1, 2]
    assert (
        readable.with_specials([1, 2], around=False, before=False)
        == readable.with_specials([1, 2], around=True, before=False)
        == [1, 2]
    )
    assert ReadableTokens(None, {}).encode("3 1 4") == [3, 1, 4]
    with pytest.raises(ConfigError, match="give their numbers"):
        ReadableTokens(None, {}).encode("def")


def test_figures_are_drawn_for_any_letters_and_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = {"layer 0": rng.random((4, 3, 5)), "layer 1": rng.random((2, 3, 5))}
    few = attention_figure(maps, ["$", "北", "\\n"], list("a$b c"))
    many = attention_figure({"layer 3": rng.random((1, 90, 90))}, ["a"] * 90, ["a"] * 90)
    chosen = {f"layer {i}": np.where(rng.random((6, 8)) < 0.3, 0.5, np.nan) for i in range(9)}
    files = save(
        {"few": lambda: few, "many": lambda: many, "experts": lambda: experts_figure(chosen, list("abcdef"))}, tmp_path
    )
    assert [file.name for file in files] == ["few.png", "many.png", "experts.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert few.axes[4].get_ylabel() == "layer 1"
    assert [label.get_text() for label in few.axes[4].get_yticklabels()] == [r"\$", r"\u5317", "\\n"]
    assert not few.axes[6].get_visible()


SMALL = (
    TINY[0],
    "size=exported",
    "size.d_model=24",
    "size.d_ff=48",
    "train.steps=2",
    "train.batch_size=2",
    "train.seq_len=32",
    "train.eval_batches=1",
    "train.device=cpu",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trains a run of two steps and gives its folder."""
    out = tmp_path_factory.mktemp("out")
    text = out / "story.txt"
    text.write_text("".join(f"The {n}th line tells of {n * n} sheep.\n" for n in range(300)))

    def train(*words: str) -> Path:
        data = () if any(word.startswith("data=") for word in words) else ("data=text", f"data.path={text}")
        point = config(*SMALL, f"out={out}", *data, *words)
        assert execute(point, peak=(1.0, "given"))["status"] == "done", point.folder
        return point.folder

    return train


def test_the_command_looks_into_a_run(trained: Trained, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = trained("ffn=moe", "position=rotary")
    assert main([f"run={run}", "text=The sheep", "token=é", "k=3"]) == 0
    out = capsys.readouterr().out
    assert "2 x PreNorm, layers 0-1" in out
    assert re.search(r"nearest to '\\xc3' \(token 195\).*\n   1.000  '\\xc3'.*  195\n", out)
    assert out.count("nearest to") == 2
    assert [file.name for file in sorted((run / "inspect").iterdir())] == ["attention.png", "experts.png"]
    assert main([f"run={run}", "text=The sheep", f"out={tmp_path / 'here'}"]) == 0
    assert (tmp_path / "here" / "attention.png").is_file()


def test_the_command_names_what_has_no_weights(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained("mixer=gru", "position=none")
    assert main([f"run={run}", "text=sheep"]) == 0
    assert "GRU (2 of 2 mixers) has no weight for each pair of tokens" in capsys.readouterr().out
    assert list((run / "inspect").iterdir()) == []


def test_the_command_looks_into_an_encoder_and_an_encoder_decoder(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    masked = trained("model=encoder", "objective=masked_lm")
    assert main([f"run={masked}", "text=The sheep"]) == 0
    assert "the objective's heads" in capsys.readouterr().out
    assert (masked / "inspect" / "attention.png").is_file()
    both = trained("model=encoder_decoder", "objective=seq2seq", "data=docstrings")
    assert main([f"run={both}", "source=def f(x)", "text=Return x"]) == 0
    names = [file.stem for file in sorted((both / "inspect").iterdir())]
    assert names == ["attention_across", "attention_decoder", "attention_encoder"]
    assert guarded(lambda: main([f"run={both}", "text=Return x"])) == 2
    assert "source=None: an EncoderDecoder needs one" in capsys.readouterr().err


def test_the_command_shows_a_published_model(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["inspect", "model=llama2_7b", "train.device=cpu"])
    assert main() == 0
    out = capsys.readouterr().out
    assert "6,738,415,616 parameters, 6,738,415,616 of them active" in out
    assert "32 x PreNorm, layers 0-31" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run=/nowhere"], "run=/nowhere: there is no run"),
        (["text=a"], "text=a: this needs a trained model; give its folder, run=..."),
        (["run=x", "text=a", "text=b"], "text: given twice"),
        (["run=x", "txt=a"], "txt: unknown key; did you mean text?"),
    ],
)
def test_a_wrong_word_is_told_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: main(words)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_what_a_text_must_be(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained()
    for words, message in [
        (["text="], "text: 0 tokens; from 1 to 512 are expected"),
        ([f"text={'a' * 600}"], "text: 600 tokens; from 1 to 512 are expected"),
        (["text=a", "source=b"], "source='b': an EncoderDecoder needs one, other models read none; this one is a Decoder"),
        (["source=b"], "source='b': text= is missing"),
        ([f"text={'a' * 65}"], "max_seq is 64"),
    ]:
        assert guarded(lambda words=words: main([f"run={run}", *words])) == 2
        assert message in capsys.readouterr().err
