"""A graph of tasks in the language of Graphviz.

The same graph gives the same text: tasks have numbers in the order in which they depend
on each other, and none of what differs from run to run is in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.task import TaskState
from ..text import printable

if TYPE_CHECKING:
    from .graph import Graph

# Fill and text, by their names in X11. Running to aborted are those of cs.taskqueue.
_COLOURS = {
    TaskState.PREPARE: ("white", "black"),
    TaskState.PENDING: ("aliceblue", "black"),
    TaskState.QUEUED: ("lightblue", "black"),
    TaskState.RUNNING: ("yellow", "black"),
    TaskState.DONE: ("green", "black"),
    TaskState.FAILED: ("red", "black"),
    TaskState.CANCELLED: ("gray", "black"),
    TaskState.ABORTED: ("darkred", "white"),
}


def dot_of(graph: Graph, name: str) -> str:
    """The graph as a text of DOT."""
    number = {node.key: f"t{index}" for index, node in enumerate(graph.nodes, 1)}
    lines = [
        f"digraph {quoted(name)} {{",
        "  rankdir=TB;",
        "  node [shape=box, style=filled];",
    ]
    for node in graph.nodes:
        fill, ink = _COLOURS[node.state]
        lines.append(
            f"  {number[node.key]} [label={quoted(node.label)}, fillcolor={fill}, "
            f"fontcolor={ink}, tooltip={quoted(node.standing)}];"
        )
    for edge in graph.edges:
        style = " [style=dashed]" if edge.orders_only else ""
        lines.append(f"  {number[edge.source]} -> {number[edge.target]}{style};")
    return "\n".join([*lines, "}"]) + "\n"


def quoted(text: str) -> str:
    r"""A string of DOT. There a backslash may begin an escape such as ``\n``.

    >>> print(quoted('read "a\\b"'))
    "read \"a\\b\""
    """
    text = printable(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
