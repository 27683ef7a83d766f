"""Graphs of tasks as values: which tasks, in which states, and who waits for whom.

A ``Graph`` is a picture of one moment and holds no tasks. How it is drawn is in ``dot``
and ``svg``; where its nodes come from, in ``picture`` and ``tracing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.task import TaskState
from . import layers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..proxies.array import TaskArrayProxy
    from ..proxies.task import TaskProxy


class Node(NamedTuple):
    """One task of a graph."""

    key: str  # unique in the graph
    label: str
    state: TaskState = TaskState.PREPARE
    reason: str | None = None

    @property
    def standing(self) -> str:
        """Its state, and why."""
        return f"{self.state} ({self.reason})" if self.reason else str(self.state)

    @property
    def about(self) -> str:
        """All that there is to say."""
        return f"{self.label} · {self.standing}"


class Edge(NamedTuple):
    """The target needs the source, by key; or only comes after it."""

    source: str
    target: str
    orders_only: bool = False


class Graph:
    """Tasks and who waits for whom: ``dot()`` and ``svg()`` draw it.

    In a notebook it shows itself. Dashed edges only order, and a dashed box is a task
    that ended because of another.

    Args:
        nodes: each with a key of its own.
        edges: between them. Several between the same two are one.

    Raises:
        ValueError: two nodes have one key, an edge ends at a key that no node has, or
            the edges close a circle.

    >>> from mosaic_like.tasks.graph import Edge, Node
    >>> graph = Graph([Node("a", "load"), Node("b", "fit")], [Edge("a", "b")])
    >>> print(graph.dot())
    digraph "tasks" {
      rankdir=TB;
      node [shape=box, style=filled];
      t1 [label="load", fillcolor=white, fontcolor=black, tooltip="prepare"];
      t2 [label="fit", fillcolor=white, fontcolor=black, tooltip="prepare"];
      t1 -> t2;
    }
    <BLANKLINE>
    """

    __slots__ = ("edges", "nodes")

    def __init__(self, nodes: Iterable[Node], edges: Iterable[Edge] = ()) -> None:
        given = list(nodes)
        number = {node.key: index for index, node in enumerate(given)}
        if len(number) < len(given):
            raise ValueError("two nodes of a graph have the same key")
        pairs: dict[tuple[int, int], bool] = {}
        for edge in edges:
            ends = []
            for key in (edge.source, edge.target):
                if key not in number:
                    raise ValueError(f"an edge ends at {key!r}, which is no node")
                ends.append(number[key])
            pair = (ends[0], ends[1])
            # Who needs the value of a task also comes after it.
            pairs[pair] = pairs.get(pair, True) and edge.orders_only
        order = layers.in_order(len(given), [layers.Edge(*pair) for pair in pairs])
        place = {index: at for at, index in enumerate(order)}
        self.nodes: tuple[Node, ...] = tuple(given[index] for index in order)
        """Each after those it waits for."""
        self.edges: tuple[Edge, ...] = tuple(
            Edge(given[a].key, given[b].key, pairs[a, b])
            for a, b in sorted(pairs, key=lambda p: (place[p[0]], place[p[1]]))
        )
        """In the order of the nodes."""

    @classmethod
    def of(
        cls, *proxies: TaskProxy[Any] | TaskArrayProxy[Any], follow: bool = False
    ) -> Graph:
        """A picture of tasks as they stand now, and of who waits for whom among them.

        Args:
            proxies: tasks, or arrays of tasks.
            follow: all tasks that these wait for, and all that wait for one of them,
                at any distance, as far as they were put together in this runtime.

        Raises:
            TypeError: not a task.

        >>> import mosaic_like as mosaic
        >>> @mosaic.task
        ... def double(x): return 2 * x
        >>> async def main():
        ...     last = double.task(1).then(double)
        ...     return mosaic.Graph.of(last, follow=True)
        >>> mosaic.run(main, num_workers=1)
        <Graph of 2 tasks, 1 edge>
        """
        from .picture import picture_of

        return picture_of(proxies, follow)

    def dot(self, name: str = "tasks") -> str:
        """The graph in the language of Graphviz; the same graph, the same text.

        Args:
            name: of the graph.
        """
        from .dot import dot_of

        return dot_of(self, name)

    def svg(self) -> str:
        """The graph as a picture, coloured by state; it needs no other program."""
        from .svg import svg_of

        return svg_of(self)

    def _repr_svg_(self) -> str:
        return self.svg()

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        nodes, edges = len(self.nodes), len(self.edges)
        return (
            f"<Graph of {nodes:,} task{'' if nodes == 1 else 's'}, "
            f"{edges:,} edge{'' if edges == 1 else 's'}>"
        )
