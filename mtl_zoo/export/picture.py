"""`draw_model(model, path)` draws a model's graph as a picture."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from mtl_zoo.export._picture_graph import Block, read_blocks
from mtl_zoo.export._picture_layout import Layout, arrange

_GAP, _ROW, _MARGIN, _SIGN = 22, 88, 18, 26
_FILL = {
    "embedding": "#dfe5ec",
    "experts": "#fde3c4",
    "expert": "#fde3c4",
    "network": "#d5e6f7",
    "gate": "#d6efd5",
    "tower": "#e6dcf3",
    "sign": "#ffffff",
}
_FONT = "Helvetica, Arial, sans-serif"


def draw_model(model: Any, path: str | Path) -> Path:
    """Draws a model's architecture as an SVG file, from the graph itself.

    Blocks are layers: embeddings, experts (a stack of cards stands for a bank of several), networks, gates, and towers
    with their logits. Circles are sums and products. Arrows go from a block to those that read it, and are dashed where
    no gradient flows back. The same model always gives the same file, byte by byte.

    Args:
        model: A model of the zoo.
        path: The file to write; its name must end in `.svg`.

    Raises:
        ValueError: If `path` ends in something else.

    Example:

    >>> import mtl_zoo
    >>> from mtl_zoo.export import draw_model
    >>> features, tasks = [mtl_zoo.Categorical("user_id", size=9)], [mtl_zoo.BinaryTask("click")]
    >>> draw_model(mtl_zoo.create_model("mmoe", features, tasks), "mmoe.svg").name
    'mmoe.svg'
    """
    path = Path(path)
    if path.suffix != ".svg":
        raise ValueError(f"`path` must end in .svg. Received: path={str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(model_svg(model), encoding="utf-8")
    return path


def model_svg(model: Any) -> str:
    """The picture of `draw_model` as text."""
    blocks = {block.name: block for block in read_blocks(model)}
    sizes = {name: _size(block) for name, block in blocks.items()}
    layout = arrange(
        {name: list(block.sources) for name, block in blocks.items()}, {n: w for n, (w, _) in sizes.items()}, _GAP
    )
    return _Picture(blocks, sizes, layout).svg()


def _size(block: Block) -> tuple[float, float]:
    if block.kind == "sign":
        return _SIGN, _SIGN
    # Fonts differ between readers, so widths are estimated from an average letter.
    width = max(7.3 * len(block.title), 5.7 * len(block.subtitle)) + 20
    if block.kind == "output":
        return 7.2 * len(block.title) + 8, 20
    return max(width, 64), 40 if block.subtitle else 28


def _curve(points: list[tuple[int, int]]) -> str:
    """A smooth path that leaves its first point and enters its last one upright."""
    ends = [(0.0, 1.4 * (points[k][1] - points[k - 1][1])) for k in (1, -1)]
    inner = [((c[0] - a[0]) / 2, (c[1] - a[1]) / 2) for a, c in zip(points, points[2:], strict=False)]
    slopes = [ends[0], *inner, ends[1]]
    d = f"M{points[0][0]} {points[0][1]}"
    for (p, q), (s, t) in zip(itertools.pairwise(points), itertools.pairwise(slopes), strict=True):
        first = f"{round(p[0] + s[0] / 3)} {round(p[1] + s[1] / 3)}"
        d += f" C{first} {round(q[0] - t[0] / 3)} {round(q[1] - t[1] / 3)} {q[0]} {q[1]}"
    return d


class _Picture:
    def __init__(self, blocks: dict[str, Block], sizes: dict[str, tuple[float, float]], layout: Layout) -> None:
        self.blocks, self.sizes, self.layout = blocks, sizes, layout
        half = {name: sizes.get(name, (2, 0))[0] / 2 for name in layout.x}
        left = min(x - half[name] for name, x in layout.x.items()) - _MARGIN
        self.x = {name: round(x - left) for name, x in layout.x.items()}
        self.width = round(max(x + half[name] for name, x in self.x.items()) + _MARGIN)
        self.height = (len(layout.rows) - 1) * _ROW + 40 + 2 * _MARGIN
        rows = {name: i for i, row in enumerate(layout.rows) for name in row}
        self.y = {name: round(self.height - _MARGIN - 20 - i * _ROW) for name, i in rows.items()}

    def svg(self) -> str:
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" '
            f'viewBox="0 0 {self.width} {self.height}" font-family="{_FONT}" text-anchor="middle">',
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 1 L7 4 L0 7 z" fill="#5b6570"/></marker></defs>',
            f'<rect width="{self.width}" height="{self.height}" rx="6" fill="#ffffff"/>',
            *self._arrows(),
            *(self._drawn(block) for block in self.blocks.values()),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def _arrows(self) -> list[str]:
        ports = self._ports()
        drawn = []
        for (source, target), path in self.layout.paths.items():
            points = [(self.x[name], self.y[name]) for name in path]
            start = (points[0][0] + ports["out", source, target], points[0][1] - self._half(source))
            end = (points[-1][0] + ports["in", source, target], points[-1][1] + self._half(target))
            points = [start, *points[1:-1], end]
            d = _curve(points)
            dashes = "" if self.blocks[target].sources[source] else ' stroke-dasharray="5 4"'
            drawn.append(
                f'<path d="{d}" fill="none" stroke="#5b6570" stroke-width="1.2"{dashes} marker-end="url(#arrow)"/>'
            )
        return drawn

    def _half(self, name: str) -> int:
        return round(self.sizes[name][1] / 2)

    def _ports(self) -> dict[tuple[str, str, str], int]:
        """Where each arrow leaves and enters its blocks, from the middle, in the order of the arrows' other ends."""
        ports = {}
        for name in self.blocks:
            room = 0 if self.blocks[name].kind in ("sign", "output") else self.sizes[name][0] - 20
            leaving = [(pair, path[1]) for pair, path in self.layout.paths.items() if pair[0] == name]
            entering = [(pair, path[-2]) for pair, path in self.layout.paths.items() if pair[1] == name]
            for way, ends in (("out", leaving), ("in", entering)):
                ends = sorted(ends, key=lambda end: self.x[end[1]])
                step = min(14, room / max(len(ends) - 1, 1))
                for i, (pair, _) in enumerate(ends):
                    ports[way, *pair] = round((i - (len(ends) - 1) / 2) * step)
        return ports

    def _drawn(self, block: Block) -> str:
        x, y = self.x[block.name], self.y[block.name]
        width, height = self.sizes[block.name]
        hint = f"<title>{escape(block.hint)}</title>"
        title = escape(block.title)
        if block.kind == "output":
            return f'<g>{hint}<text x="{x}" y="{y + 4}" font-size="12" font-style="italic">{title}</text></g>'
        if block.kind == "sign":
            circle = f'<circle cx="{x}" cy="{y}" r="{_SIGN // 2}" fill="{_FILL["sign"]}" stroke="#39424c"/>'
            return f'<g>{hint}{circle}<text x="{x}" y="{y + 5}" font-size="15">{title}</text></g>'
        corner = (round(x - width / 2), round(y - height / 2))
        cards = (6, 3, 0) if block.kind == "experts" else (0,)
        box = "".join(
            f'<rect x="{corner[0] + d}" y="{corner[1] - d}" width="{round(width)}" height="{height}" rx="5" '
            f'fill="{_FILL[block.kind]}" stroke="#39424c"/>'
            for d in cards
        )
        up = 3 if block.subtitle else -4
        text = f'<text x="{x}" y="{y - up}" font-size="12" font-weight="bold">{title}</text>'
        if block.subtitle:
            text += f'<text x="{x}" y="{y + 13}" font-size="10" fill="#39424c">{escape(block.subtitle)}</text>'
        return f"<g>{hint}{box}{text}</g>"
