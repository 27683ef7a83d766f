"""A graph of tasks as SVG: boxes coloured by state, edges, and what the colours mean.

The picture stands alone: no script, no font of its own, no names that could clash with
those of a second one on the same page; readable on light and on dark.
"""

from __future__ import annotations

import html
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from ..core.task import TaskState
from ..text import printable
from .layers import Edge
from .layout import HEIGHT, MARGIN, lay_out

if TYPE_CHECKING:
    from .graph import Graph, Node
    from .layout import Box, Layout, Way

_FONT = "DejaVu Sans,Verdana,Helvetica,Arial,sans-serif"
_SIZE = 12.0  # of the font
_LABEL = 26  # columns of a label; longer ones lose their middle
_LEAST = 56.0  # width of a box
_BESIDE_LABEL = 12.0
_LINE = "#8b929c"
_QUIET = "#7a818c"
# Fill, outline and text; the hues are those of cs.taskqueue, light enough to read on.
_LOOKS = {
    TaskState.PREPARE: ("#ffffff", "#9aa1ab", "#2b2f36"),
    TaskState.PENDING: ("#eaf0f8", "#86a2c6", "#22344d"),
    TaskState.QUEUED: ("#cfe0f8", "#5c8cc8", "#1b3354"),
    TaskState.RUNNING: ("#ffe68c", "#caa012", "#4a3a00"),
    TaskState.DONE: ("#bfe5b8", "#57a24f", "#173f13"),
    TaskState.FAILED: ("#f7b0ac", "#cc3a32", "#5c0f0b"),
    TaskState.CANCELLED: ("#d9dbdf", "#868c95", "#3b3f46"),
    TaskState.ABORTED: ("#8b1f1f", "#5c1010", "#ffffff"),
}
# Widths of DejaVu Sans, in sizes of the font; most others are narrower.
_NARROW = dict.fromkeys("ijlI|'!.,:;", 0.36) | dict.fromkeys('ft()[]{}-/\\r" ', 0.45)
_WIDE = dict.fromkeys("mM@%wW", 0.98) | dict.fromkeys("_", 0.5)
_CAPITAL, _OTHER, _FULL = 0.75, 0.635, 1.05


def svg_of(graph: Graph) -> str:
    """The graph as a text of SVG."""
    nodes = graph.nodes
    number = {node.key: index for index, node in enumerate(nodes)}
    edges = [
        Edge(number[edge.source], number[edge.target], edge.orders_only)
        for edge in graph.edges
    ]
    labels = [shortened(node.label) for node in nodes]
    widths = [max(_LEAST, text_width(text) + 2 * _BESIDE_LABEL) for text in labels]
    layout = lay_out(widths, edges)
    legend, legend_width = _legend(graph, layout)
    width = max(layout.width, legend_width)
    height = layout.height + (HEIGHT if legend else 0.0)
    aside = (width - layout.width) / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} '
        f'{_n(height)}" width="{_n(width)}" height="{_n(height)}" '
        f'font-family="{_FONT}" font-size="{_n(_SIZE)}" '
        f'style="max-width:100%;height:auto" role="img">',
        f"<title>{html.escape(_summary(graph))}</title>",
        f'<g transform="translate({_n(aside)} 0)">' if aside else "<g>",
        *_edges(layout),
        *(
            _node(node, text, box)
            for node, text, box in zip(nodes, labels, layout.boxes, strict=True)
        ),
        "</g>",
        *legend,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def text_width(text: str) -> float:
    """Pixels that a text takes at most, in any of the fonts."""
    return _SIZE * sum(map(_em, text))


def _em(char: str) -> float:
    known = _NARROW.get(char) or _WIDE.get(char)
    if known:
        return known
    if unicodedata.combining(char):
        return 0.0
    if ord(char) > 0x24F:  # beyond Latin nothing is known but this
        return _FULL
    return _CAPITAL if char.isupper() else _OTHER


def shortened(label: str) -> str:
    """At most ``_LABEL`` characters, the middle left out."""
    label = printable(label)
    if len(label) <= _LABEL:
        return label
    tail = _LABEL // 2 - 1
    return f"{label[: _LABEL - tail - 1]}…{label[-tail:]}"


def _node(node: Node, text: str, box: Box) -> str:
    fill, line, ink = _LOOKS[node.state]
    # What ended because of another looks lighter than what ended by itself.
    dashes = ' stroke-dasharray="4 3"' if node.reason == "upstream" else ""
    about = html.escape(printable(node.about), quote=False)
    return (
        f"<g><title>{about}</title>"
        f'<rect x="{_n(box.x - box.width / 2)}" y="{_n(box.y)}" '
        f'width="{_n(box.width)}" height="{_n(box.height)}" rx="6" '
        f'fill="{fill}" stroke="{line}" stroke-width="1.3"{dashes}/>'
        f'<text x="{_n(box.x)}" y="{_n(box.y + box.height / 2 + 4.2)}" '
        f'text-anchor="middle" fill="{ink}">{html.escape(text, quote=False)}</text></g>'
    )


def _edges(layout: Layout) -> list[str]:
    lines = []
    for orders_only in (False, True):
        ways = [way for way in layout.ways if way.kind is orders_only]
        if ways:
            dashes = ' stroke-dasharray="5 4"' if orders_only else ""
            curves = "".join(map(_curve, ways))
            lines.append(
                f'<path fill="none" stroke="{_LINE}" stroke-width="1.3" '
                f'stroke-linecap="round"{dashes} d="{curves}"/>'
            )
    tips = "".join(
        f"M{_n(way.x1)} {_n(way.y1 - 0.5)}l-3.4 -7h6.8z"
        for way in layout.ways
        if way.ends
    )
    if tips:
        lines.append(f'<path fill="{_LINE}" d="{tips}"/>')
    return lines


def _curve(way: Way) -> str:
    """Down between two rows, upright at both ends, and straight past the second."""
    y1 = way.y1 - (5.0 if way.ends else 0.0)  # a tip covers the rest
    bend = (y1 - way.y0) * 0.5
    start = f"M{_n(way.x0)} {_n(way.y0)}"
    if abs(way.x1 - way.x0) < 0.5:
        return f"{start}V{_n(y1 + way.through)}"
    curve = (
        f"{start}C{_n(way.x0)} {_n(way.y0 + bend)} {_n(way.x1)} {_n(y1 - bend)} "
        f"{_n(way.x1)} {_n(y1)}"
    )
    return f"{curve}V{_n(y1 + way.through)}" if way.through else curve


def _legend(graph: Graph, layout: Layout) -> tuple[list[str], float]:
    """The states that occur, and how often."""
    counts = Counter(node.state for node in graph.nodes)
    entries = [(state, counts[state]) for state in TaskState if counts[state]]
    lines = []
    x, y = MARGIN, layout.height - 2.0
    for state, count in entries:
        fill, line, _ = _LOOKS[state]
        text = f"{state} {count:,}"
        lines.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="11" height="11" rx="3" '
            f'fill="{fill}" stroke="{line}"/><text x="{_n(x + 17)}" y="{_n(y + 9.8)}" '
            f'font-size="11" fill="{_QUIET}">{text}</text>'
        )
        x += 17 + text_width(text) + 16
    return lines, x


def _summary(graph: Graph) -> str:
    return f"{len(graph.nodes):,} tasks, {len(graph.edges):,} edges"


def _n(length: float) -> str:
    """A length as short as it is exact enough."""
    return f"{length:.1f}".removesuffix(".0")
