"""The order of the nodes in each row of a drawing, with few links that cross.

Each row is sorted by where the neighbours of its nodes stand, downwards and upwards in
turn; then neighbours in a row change places where that saves crossings. Both begin once
with the order that was given and once with what hangs together; the best of all orders
that were seen is kept. Everything is decided by the input alone, so the same
graph gives the same drawing.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .layers import Rows

_SWEEPS = 24
_PATIENCE = 6  # sweeps without a better order
_PASSES = 4  # along a row, for pairs that change places
_LARGE = 1_500  # links: from here on no pairs are tried, and fewer sweeps are made
_SWEEPS_OF_LARGE = 8


def order_rows(rows: Rows) -> list[list[int]]:
    """The nodes and passes of each row, from left to right."""
    count = len(rows.row_of)
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for source, target in rows.links:
        below[source].append(target)
        above[target].append(source)
    best, fewest = _improved(_as_numbered(rows), above, below)
    if fewest and len(rows.links) < _LARGE:
        other, crossed = _improved(_as_met(rows, above, below), above, below)
        if crossed < fewest:
            best = other
    return best


def _improved(
    order: list[list[int]], above: list[list[int]], below: list[list[int]]
) -> tuple[list[list[int]], int]:
    """The best order that sorting finds, and its crossings."""
    best, fewest = [list(row) for row in order], crossings(order, below)
    few = sum(map(len, below)) < _LARGE
    idle = 0
    for sweep in range(_SWEEPS if few else _SWEEPS_OF_LARGE):
        if not fewest or idle == _PATIENCE:
            break
        down = sweep % 2 == 0
        _sort(order, above if down else below, down)
        if few:
            _exchange(order, above, below)
        found = crossings(order, below)
        idle += 1
        if found < fewest:
            best, fewest, idle = [list(row) for row in order], found, 0
    return best, fewest


def crossings(order: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> int:
    """How many pairs of links cross."""
    found = 0
    for row, next_row in itertools.pairwise(order):
        place = {node: index for index, node in enumerate(next_row)}
        seen: list[int] = []
        for node in row:
            ends = sorted(place[other] for other in below[node])
            for end in ends:
                found += len(seen) - bisect_left(seen, end + 1)
            for end in ends:
                insort(seen, end)
    return found


def _as_numbered(rows: Rows) -> list[list[int]]:
    """As they were given; what passes, beside the node where it comes from."""
    order = _empty(rows)
    place = list(range(len(rows.row_of)))
    first = {target: source for source, target in reversed(rows.links)}
    for node in sorted(place, key=rows.row_of.__getitem__):
        source = first.get(node, node)
        # Passes are numbered after all nodes, and those of a row come after their
        # sources, so that the place of a source is known.
        if node >= rows.nodes:
            place[node] = place[source]
        order[rows.row_of[node]].append(node)
    for row in order:
        row.sort(key=lambda node: (place[node], node))
    return order


def _as_met(
    rows: Rows, above: list[list[int]], below: list[list[int]]
) -> list[list[int]]:
    """As a walk meets them that goes on with what hangs together."""
    order = _empty(rows)
    seen = [False] * len(rows.row_of)
    for start in sorted(range(len(seen)), key=rows.row_of.__getitem__):
        stack = [start]
        while stack:
            node = stack.pop()
            if seen[node]:
                continue
            seen[node] = True
            order[rows.row_of[node]].append(node)
            stack += [n for n in reversed(above[node]) if not seen[n]]
            stack += [n for n in reversed(below[node]) if not seen[n]]
    return order


def _empty(rows: Rows) -> list[list[int]]:
    return [[] for _ in range(max(rows.row_of, default=-1) + 1)]


def _sort(order: list[list[int]], neighbours: list[list[int]], down: bool) -> None:
    """Sort each row by the mean place of its neighbours in the row before it."""
    rows = range(1, len(order)) if down else range(len(order) - 2, -1, -1)
    for row in rows:
        fixed = order[row - 1 if down else row + 1]
        place = {node: index for index, node in enumerate(fixed)}
        mean: dict[int, float] = {}
        for index, node in enumerate(order[row]):
            places = [place[other] for other in neighbours[node]]
            # One without neighbours stays where it is.
            own = index * len(fixed) / len(order[row])
            mean[node] = sum(places) / len(places) if places else own
        order[row].sort(key=mean.__getitem__)


def _exchange(
    order: list[list[int]], above: list[list[int]], below: list[list[int]]
) -> None:
    """Let neighbours in a row change places while that saves crossings."""
    place = {node: index for row in order for index, node in enumerate(row)}
    for row in order:
        for _ in range(_PASSES):
            better = False
            for index in range(len(row) - 1):
                left, right = row[index], row[index + 1]
                saved = 0
                for links in (above, below):
                    a = [place[n] for n in links[left]]
                    b = [place[n] for n in links[right]]
                    saved += sum(x > y for x in a for y in b)
                    saved -= sum(y > x for x in a for y in b)
                if saved > 0:
                    row[index], row[index + 1] = right, left
                    place[left], place[right] = index + 1, index
                    better = True
            if not better:
                break
