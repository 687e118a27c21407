"""A drawing of the stack, from the tokens at the bottom to the logits at the top, read off the built model."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from torch import nn

from arch.contracts import Block, Norm
from arch.mixer import CrossAttention
from arch.model import Decoder, Embedding, Encoder, Stack

from .folding import Repeat, fold
from .module_settings import settings, shape, sub_blocks
from .pictures import Picture, aligned, beside, box, caption, framed, merged, stacked
from .tree import WIDTH, module_tree, unnamed
from .wiring import Merge, Step, wiring

TEXT = 36  # characters in a line of a box


def drawing(model: nn.Module) -> str:
    """Every stack of the model: one, or an encoder and a decoder side by side where there is room.

    Raises: ValueError: a model without a stack of layers.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, Stack)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no stack of layers to draw: a Decoder, an Encoder or both are expected")
    if len(found) == 1:
        return "\n".join(line.rstrip() for line in draw_stack(found[0][1]).lines)
    first, *others = [draw_stack(module, name.rpartition(".")[2], several=True) for name, module in found]
    lines = first
    for other in others:
        joined = beside(lines, other)
        if max(map(len, joined)) > WIDTH:
            joined = [line.rstrip() for line in (*other.lines, "", *lines.lines)]
        width = max(map(len, joined))
        lines = Picture([line.ljust(width) for line in joined], lines.axis)
    return "\n".join(line.rstrip() for line in lines.lines)


def draw_stack(model: Stack, name: str = "", *, several: bool = False) -> Picture:
    """From the tokens to the outputs."""
    pictures = [caption(f"{name} tokens".strip()), draw_embedding(model.embedding)]
    pictures += draw_layers(model.blocks)
    if model.final_norm is not None:
        pictures.append(draw_part(model.final_norm))
    if isinstance(model, Decoder):
        head = ["the embedding's table"] if model.lm_head is None else [f"lm_head {shape(model.lm_head.weight)}"]
        head += [] if model.logit_scale == 1 else [f"times {model.logit_scale:g}"]
        head += [] if model.logit_bias is None else [f"+ logit_bias {shape(model.logit_bias)}"]
        pictures += [box(head), caption("logits of the next token")]
    elif several:
        pictures.append(caption("memory"))
    else:
        pictures.append(caption("outputs"))
    if isinstance(model, Encoder) and model.pooler is not None:
        pictures += [caption("the first token's alone"), draw_part(model.pooler), caption("one vector for the text")]
    return stacked(pictures)


def draw_embedding(module: Embedding) -> Picture:
    lines = [f"{type(module).__name__} {shape(module.weight)}"]
    lines += [] if module.scale == 1 else [f"times {module.scale:g}"]
    if module.position is not None:
        lines.append(" ".join([f"+ {type(module.position).__name__}", *map(shape, module.position.parameters())]))
    if module.types is not None:
        lines.append(f"+ segments {shape(module.types.weight)}")
    pictures = [box(lines)] if module.norm is None else [box(lines), draw_part(module.norm)]
    return stacked(pictures)


def draw_layers(blocks: Sequence[Block]) -> list[Picture]:
    """Each kind of layer once, in a frame with the number of copies; all frames as wide as the widest."""
    return _repeats(blocks, fold(unnamed(tuple(module_tree(block) for block in blocks))), outermost=True)


def _repeats(blocks: Sequence[Block], repeats: Sequence[Repeat], *, outermost: bool) -> list[Picture]:
    inner = [
        stacked(_repeats(blocks, repeat.parts, outermost=False)) if repeat.parts else draw_layer(blocks[repeat.first])
        for repeat in repeats
    ]
    titles = []
    for repeat in repeats:
        kind = f"{repeat.items} layers" if repeat.parts else type(blocks[repeat.first]).__name__
        count = f"{repeat.times} x {kind}" if repeat.times > 1 else kind
        numbers = f", layer{'s' if '-' in repeat.label else ''} {repeat.label}" if outermost else ""
        titles.append(count + numbers)
    return aligned([framed(picture, title) for picture, title in zip(aligned(inner), titles, strict=True)])


def draw_layer(block: Block) -> Picture:
    """Its parts along the paths that its own forward takes."""
    return _path(wiring(block), block)


def _path(steps: Sequence[Step], block: Block) -> Picture:
    pictures = []
    for step in steps:
        if isinstance(step, Merge):
            paths = [_path(path, block) for path in step.paths if path]
            pictures.append(merged(step.symbol, paths, residual=not all(step.paths)))
        else:
            module = dict(block.named_modules()).get(step)
            pictures.append(caption(step) if module is None else draw_part(module))
    return stacked(pictures)


def draw_part(module: nn.Module) -> Picture:
    """A norm as its name; anything else as a box with its parameters, settings and parts."""
    kind = type(module).__name__
    if isinstance(module, Norm):
        return caption(kind)
    params = sum(parameter.numel() for parameter in module.parameters())
    parts = [" ".join([type(inner).__name__, *settings(inner)]) for inner in sub_blocks(module)]
    lines = [f"{kind}, {params:,} parameters", *_wrapped(" ".join(settings(module)))]
    lines += [line for text in parts for line in _wrapped(text)]
    if isinstance(module, CrossAttention):
        lines.append("reads the memory")
    return box(lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, TEXT, break_long_words=False)
