"""Which row of a drawing each node of a graph stands in, and what passes by.

Nodes are numbers, rows are counted from the top, every edge goes down. An edge that
passes rows gets a *pass* in each, which has room there like a node: so no edge runs
through a node. Edges that leave one node, or that enter one, share their passes: a sum
of two hundred parts is drawn as a bus and not as two hundred lines.

Nothing here knows what the nodes mean.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

_NARROW = 32  # nodes that any row may have
_FEW = 2  # edges that need no bus


class Edge(NamedTuple):
    """From one node to another; edges of another kind do not share its passes."""

    source: int
    target: int
    kind: Hashable = None


class Rows(NamedTuple):
    """Nodes and passes in rows, joined by links from one row to the next."""

    nodes: int  # how many
    row_of: list[int]  # by node, and then by pass
    links: dict[tuple[int, int], Hashable]  # in the order in which they were made


def neighbours(count: int, edges: Sequence[Edge]) -> tuple[list[list[int]], ...]:
    """Of each node: those before it, and those after it."""
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for edge in edges:
        before[edge.target].append(edge.source)
        after[edge.source].append(edge.target)
    return before, after


def in_order(count: int, edges: Sequence[Edge]) -> list[int]:
    """All nodes, each after those before it, else as they are numbered.

    Raises:
        ValueError: the edges close a circle.
    """
    before, after = neighbours(count, edges)
    left = [len(nodes) for nodes in before]
    ready = [node for node in range(count) if not left[node]]
    ready.reverse()
    order = []
    while ready:
        node = ready.pop()
        order.append(node)
        for follower in reversed(after[node]):
            left[follower] -= 1
            if not left[follower]:
                ready.append(follower)
    if len(order) < count:
        raise ValueError("the edges close a circle")
    return order


def rows_of(count: int, edges: Sequence[Edge]) -> Rows:
    """Put the nodes in rows and the passes between them.

    Raises:
        ValueError: the edges close a circle.
    """
    order = in_order(count, edges)
    before, after = neighbours(count, edges)
    row_of = _by_depth(order, before, after)
    widest = max(Counter(row_of).values(), default=0)
    limit = max(_NARROW, math.ceil(2 * math.sqrt(count)))
    if widest > limit:
        row_of = _at_most(limit, order, before, after)
    return _with_passes(row_of, edges)


def _by_depth(
    order: list[int], before: list[list[int]], after: list[list[int]]
) -> list[int]:
    """As high as it can be, or just above what needs it, where that is shorter."""
    row_of = [0] * len(order)
    for node in order:
        row_of[node] = max((row_of[b] + 1 for b in before[node]), default=0)
    for node in reversed(order):
        if len(after[node]) > len(before[node]):
            row_of[node] = min(row_of[a] - 1 for a in after[node])
    return row_of


def _at_most(
    limit: int, order: list[int], before: list[list[int]], after: list[list[int]]
) -> list[int]:
    """No row with more than so many nodes; first those with the longest way to go."""
    height = [0] * len(order)
    for node in reversed(order):
        height[node] = max((height[a] + 1 for a in after[node]), default=0)
    row_of = [0] * len(order)
    taken: Counter[int] = Counter()
    full = 0  # all rows above it are
    place = {node: index for index, node in enumerate(order)}
    # By height is in order too: what is before a node is higher than it.
    for node in sorted(order, key=lambda node: (-height[node], place[node])):
        row = max((row_of[b] + 1 for b in before[node]), default=0)
        row = max(row, full)
        while taken[row] >= limit:
            row += 1
        taken[row] += 1
        row_of[node] = row
        while taken[full] >= limit:
            full += 1
    return row_of


def _with_passes(nodes: list[int], edges: Sequence[Edge]) -> Rows:
    row_of = list(nodes)
    links: dict[tuple[int, int], Hashable] = {}
    long = [e for e in edges if row_of[e.target] - row_of[e.source] > 1]
    leaving = Counter((e.source, e.kind) for e in long)
    entering = Counter((e.target, e.kind) for e in long)
    # Of those that share: the passes by row.
    from_source: dict[Hashable, dict[int, int]] = defaultdict(dict)
    to_target: dict[Hashable, dict[int, int]] = defaultdict(dict)

    def passes(shared: dict[int, int], rows: range, kind: Hashable) -> None:
        """A pass in each of the rows, joined from the first to the last."""
        for row in rows:
            if row not in shared:
                shared[row] = len(row_of)
                row_of.append(row)
            if row - 1 in shared and row > rows.start:
                links.setdefault((shared[row - 1], shared[row]), kind)

    for edge in edges:
        source, target, kind = edge
        rows = range(nodes[source] + 1, nodes[target])
        if not rows:
            links.setdefault((source, target), kind)
        elif entering[target, kind] > max(leaving[source, kind], _FEW):
            shared = to_target[target, kind]
            passes(shared, rows, kind)
            links.setdefault((source, shared[rows[0]]), kind)
            links.setdefault((shared[rows[-1]], target), kind)
        else:
            shared = from_source[source, kind]
            passes(shared, rows, kind)
            links.setdefault((source, shared[rows[0]]), kind)
            links.setdefault((shared[rows[-1]], target), kind)
    return Rows(len(nodes), row_of, links)
