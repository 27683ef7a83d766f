"""Where everything of a drawing stands: boxes of nodes, and the ways of the edges.

Rows come from ``layers``, their order from ``ordering``; here they get coordinates.
Each node wants to be where its neighbours are, and keeps its distance from those beside
it; what passes by wants so the most, which makes long edges straight. Lengths are
pixels, y grows downwards.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from .layers import Edge, rows_of
from .ordering import order_rows

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

HEIGHT = 28.0  # of a node
BESIDE = 18.0  # between nodes of a row
PASS_WIDTH = 4.0  # of an edge that passes a row
BELOW = 34.0  # between rows, at least
STEEP = 0.06  # more between rows, for each pixel that an edge goes to the side
BELOW_MOST = 110.0
PORT = 9.0  # between the ends of edges at one node
PORT_MARGIN = 12.0  # between those and the corners
MARGIN = 14.0
_ROUNDS = 100  # in which nodes move; fewer for more than so many links
_MOVES = 200_000
# How much a link wants to be straight, by how many of its ends are passes. Those that
# share an end share its strength: else a row of many would bend the bus beside it.
_PULL = (1.0, 2.0, 30.0)


class Box(NamedTuple):
    """Of a node: its middle, its upper side and its size."""

    x: float
    y: float
    width: float
    height: float


class Way(NamedTuple):
    """Of a link: from the lower side of one row to the upper side of the next.

    An edge is one of them, or several joined; the rows between are crossed straight
    down, from the end of one to the start of the next.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    through: float  # so far on straight down, past the row that it comes to
    ends: bool  # at a node
    kind: Hashable


class Layout(NamedTuple):
    boxes: list[Box]
    ways: list[Way]
    width: float
    height: float


def lay_out(widths: Sequence[float], edges: Sequence[Edge]) -> Layout:
    """Place nodes of these widths.

    Raises:
        ValueError: the edges close a circle.
    """
    count = len(widths)
    rows = rows_of(count, edges)
    order = order_rows(rows)
    passes = len(rows.row_of) - count
    wide = [*widths, *[PASS_WIDTH] * passes]
    x = _across(order, wide, count, list(rows.links))
    left = min((x[n] - wide[n] / 2 for n in range(len(wide))), default=0.0)
    x = [at - left + MARGIN for at in x]
    right = max((x[n] + wide[n] / 2 for n in range(len(wide))), default=MARGIN)
    ports = _ports(x, wide, count, list(rows.links))
    y = _down(order, rows.row_of, ports)
    ways = []
    for (source, target), kind in rows.links.items():
        x0, x1 = ports[source, target]
        top = y[rows.row_of[target]]
        ends = target < count
        through = 0.0 if ends else HEIGHT
        bottom = y[rows.row_of[source]] + HEIGHT
        ways.append(Way(x0, bottom, x1, top, through, ends, kind))
    boxes = [Box(x[n], y[rows.row_of[n]], widths[n], HEIGHT) for n in range(count)]
    height = y[-1] + HEIGHT + MARGIN if y else 2 * MARGIN
    return Layout(boxes, ways, right + MARGIN, height)


def _across(
    order: list[list[int]],
    wide: list[float],
    count: int,
    links: list[tuple[int, int]],
) -> list[float]:
    pulls: list[list[tuple[int, float]]] = [[] for _ in wide]
    leaving = Counter(source for source, _ in links)
    entering = Counter(target for _, target in links)
    for source, target in links:
        pull = _PULL[(source >= count) + (target >= count)]
        if not (source >= count and target >= count):
            pull /= leaving[source] * entering[target]
        pulls[source].append((target, pull))
        pulls[target].append((source, pull))
    x = [0.0] * len(wide)
    for row in order:
        at = 0.0
        for node in row:
            x[node] = at + wide[node] / 2
            at += wide[node] + BESIDE
        middle = (at - BESIDE) / 2
        for node in row:
            x[node] -= middle
    for turn in range(max(6, min(_ROUNDS, _MOVES // (len(links) + 1)))):
        for row in order if turn % 2 == 0 else reversed(order):
            wanted = []
            weights = []
            for node in row:
                weight = sum(pull for _, pull in pulls[node])
                at = sum(x[other] * pull for other, pull in pulls[node])
                wanted.append(at / weight if weight else x[node])
                weights.append(weight or 0.1)
            _spread(row, wanted, weights, wide, x)
    return x


def _spread(
    row: list[int],
    wanted: list[float],
    weights: list[float],
    wide: list[float],
    x: list[float],
) -> None:
    """The places nearest to those wanted, in least squares, with room between them.

    Less the room that each needs, the places must only not fall: that is the isotonic
    regression, found by pooling neighbours that violate the order.
    """
    room = [0.0]
    for left, right in itertools.pairwise(row):
        room.append(room[-1] + (wide[left] + wide[right]) / 2 + BESIDE)
    blocks: list[tuple[float, float, int]] = []  # place, weight, how many
    for at, weight, offset in zip(wanted, weights, room, strict=True):
        place, members = at - offset, 1
        while blocks and blocks[-1][0] > place:
            before, heavy, more = blocks.pop()
            place = (place * weight + before * heavy) / (weight + heavy)
            weight += heavy
            members += more
        blocks.append((place, weight, members))
    index = 0
    for place, _, members in blocks:
        for _ in range(members):
            x[row[index]] = place + room[index]
            index += 1


def _ports(
    x: list[float], wide: list[float], count: int, links: list[tuple[int, int]]
) -> dict[tuple[int, int], tuple[float, float]]:
    """Where each link begins and ends: side by side, in the order of the others."""
    starts: dict[tuple[int, int], float] = {}
    ends: dict[tuple[int, int], float] = {}
    leaving: list[list[tuple[int, int]]] = [[] for _ in x]
    entering: list[list[tuple[int, int]]] = [[] for _ in x]
    for link in links:
        leaving[link[0]].append(link)
        entering[link[1]].append(link)
    for node in range(len(x)):
        for side, found, other in ((leaving, starts, 1), (entering, ends, 0)):
            mine = side[node]
            mine.sort(key=lambda link: x[link[other]])
            apart = 0.0
            if node < count and len(mine) > 1:
                apart = max(0.0, wide[node] - 2 * PORT_MARGIN) / (len(mine) - 1)
                apart = min(PORT, apart)
            for index, link in enumerate(mine):
                found[link] = x[node] + apart * (index - (len(mine) - 1) / 2)
    return {link: (starts[link], ends[link]) for link in links}


def _down(
    order: list[list[int]],
    row_of: list[int],
    ports: dict[tuple[int, int], tuple[float, float]],
) -> list[float]:
    """The upper side of each row: the further its links go aside, the more below."""
    aside = [0.0] * len(order)
    for (_, target), (x0, x1) in ports.items():
        row = row_of[target]
        aside[row] = max(aside[row], abs(x1 - x0))
    y: list[float] = []
    for row in range(len(order)):
        gap = min(BELOW_MOST, BELOW + STEEP * aside[row])
        y.append(y[-1] + HEIGHT + gap if y else MARGIN)
    return y
