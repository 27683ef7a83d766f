"""Graphs as values, as DOT and as SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

import mosaic_like as mosaic
from mosaic_like.core.task import TaskState
from mosaic_like.tasks.graph import Edge, Graph, Node
from mosaic_like.tasks.svg import shortened, text_width


def repaired() -> Graph:
    return Graph(
        [
            Node("1", "read", TaskState.FAILED, "error"),
            Node("2", "tidy", TaskState.FAILED, "upstream"),
            Node("3", "report"),
        ],
        [Edge("1", "2"), Edge("2", "3", orders_only=True)],
    )


def test_tasks_as_dot_are_coloured_by_state() -> None:
    assert repaired().dot("repair") == (
        'digraph "repair" {\n'
        "  rankdir=TB;\n"
        "  node [shape=box, style=filled];\n"
        '  t1 [label="read", fillcolor=red, fontcolor=black, '
        'tooltip="failed (error)"];\n'
        '  t2 [label="tidy", fillcolor=red, fontcolor=black, '
        'tooltip="failed (upstream)"];\n'
        '  t3 [label="report", fillcolor=white, fontcolor=black, tooltip="prepare"];\n'
        "  t1 -> t2;\n"
        "  t2 -> t3 [style=dashed];\n"
        "}\n"
    )


def test_tasks_as_dot_are_stable() -> None:
    """The keys, which differ from run to run, and the order given do not matter."""
    again = Graph(
        [
            Node("c", "report"),
            Node("a", "read", TaskState.FAILED, "error"),
            Node("b", "tidy", TaskState.FAILED, "upstream"),
        ],
        [Edge("b", "c", orders_only=True), Edge("a", "b")],
    )
    assert again.dot() == repaired().dot()


def test_tasks_as_dot_have_escaped_names() -> None:
    graph = Graph([Node("1", 'read("C:\\new")\n}; t9 [label=x')])
    (line,) = [line for line in graph.dot().splitlines() if "t1" in line]
    assert r'label="read(\"C:\\new\")?}; t9 [label=x"' in line
    assert graph.dot('a"b').startswith('digraph "a\\"b" {')


@pytest.mark.parametrize("state", TaskState)
def test_every_state_has_a_look(state: TaskState) -> None:
    graph = Graph([Node("1", "f", state)])
    assert f'tooltip="{state}"' in graph.dot()
    assert f"{state} 1" in graph.svg()


def test_tasks_as_svg_are_well_formed_whatever_their_names_are() -> None:
    names = ["<script>alert(1)</script>", 'a & "b"', "\x1b[31mred", "漢字", "é" * 80]
    svg = Graph([Node(str(i), name) for i, name in enumerate(names)]).svg()
    root = ElementTree.fromstring(svg)
    assert not [e for e in root.iter() if "script" in e.tag]
    assert "\x1b" not in svg
    assert Graph([]).svg().startswith("<svg")


def test_tasks_as_svg_have_every_name_and_what_became_of_it() -> None:
    svg = repaired().svg()
    for text in ("read · failed (error)", "tidy · failed (upstream)", ">report<"):
        assert text in svg
    assert svg.count("<rect") == 3 + 2  # and those of the legend
    assert "stroke-dasharray" in svg


def test_a_label_fits_into_its_box() -> None:
    name = "a_rather_long_name_of_a_task_that_somebody_gave"
    assert len(shortened(name)) == 26
    svg = Graph([Node("1", name)]).svg()
    width = float(re.findall(r'<rect[^>]* width="([\d.]+)"', svg)[0])
    assert text_width(shortened(name)) < width


def test_a_notebook_shows_a_graph_as_svg() -> None:
    assert repaired()._repr_svg_() == repaired().svg()


def test_edges_between_the_same_two_are_one_and_data_wins() -> None:
    nodes = [Node("a", "a"), Node("b", "b")]
    both = Graph(nodes, [Edge("a", "b", True), Edge("a", "b"), Edge("a", "b", True)])
    assert both.edges == (Edge("a", "b"),)


def test_a_graph_that_cannot_be_is_refused() -> None:
    a, b = Node("a", "a"), Node("b", "b")
    with pytest.raises(ValueError, match="circle"):
        Graph([a, b], [Edge("a", "b"), Edge("b", "a")])
    with pytest.raises(ValueError, match="'c'"):
        Graph([a], [Edge("a", "c")])
    with pytest.raises(ValueError, match="same key"):
        Graph([a, a])


def test_only_a_function_can_be_drawn() -> None:
    with pytest.raises(TypeError, match="takes a function to draw, not 3"):
        mosaic.visualize(3)  # type: ignore[arg-type]  # which is what is wrong
