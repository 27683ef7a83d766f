"""Drawings of graphs: rows, orders and places, with nothing of tasks in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.tasks.layers import Edge, in_order, rows_of
from mosaic_like.tasks.layout import HEIGHT, lay_out
from mosaic_like.tasks.ordering import crossings, order_rows

if TYPE_CHECKING:
    from mosaic_like.tasks.layout import Layout, Way


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[Edge]]:
    """Up to 40 nodes; every edge goes to a higher number, some only order."""
    count = draw(st.integers(1, 40))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    found = draw(st.dictionaries(pairs.filter(lambda p: p[0] < p[1]), st.booleans()))
    return count, [Edge(a, b, kind) for (a, b), kind in found.items()]


def at(way: Way, part: float) -> tuple[float, float]:
    """A point of the curve that is drawn for a way: see ``svg._curve``."""
    bend = (way.y1 - way.y0) * 0.5
    x = (way.x0, way.x0, way.x1, way.x1)
    y = (way.y0, way.y0 + bend, way.y1 - bend, way.y1)
    rest = 1 - part
    factors = (rest**3, 3 * rest**2 * part, 3 * rest * part**2, part**3)
    return (
        sum(f * v for f, v in zip(factors, x, strict=True)),
        sum(f * v for f, v in zip(factors, y, strict=True)),
    )


def points(layout: Layout) -> list[tuple[float, float]]:
    found = []
    for way in layout.ways:
        found += [at(way, part / 16) for part in range(1, 16)]
        if way.through:
            found += [(way.x1, way.y1 + way.through * part) for part in (0, 0.5, 1)]
    return found


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_every_edge_goes_down_link_by_link(graph: tuple[int, list[Edge]]) -> None:
    count, edges = graph
    rows = rows_of(count, edges)
    assert rows.nodes == count
    assert all(
        rows.row_of[target] == rows.row_of[source] + 1 for source, target in rows.links
    )
    after: dict[int, list[int]] = {}
    for source, target in rows.links:
        after.setdefault(source, []).append(target)

    def reached(source: int) -> set[int]:
        """The nodes that links lead to, through passes alone."""
        found: set[int] = set()
        for target in after.get(source, ()):
            found |= {target} if target < count else reached(target)
        return found

    for node in range(count):
        assert reached(node) >= {e.target for e in edges if e.source == node}
        # And passes that are shared lead nowhere else.
        assert reached(node) <= {e.target for e in edges if e.source == node}


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_each_row_has_all_its_nodes_once(graph: tuple[int, list[Edge]]) -> None:
    rows = rows_of(*graph)
    order = order_rows(rows)
    assert sorted(node for row in order for node in row) == list(
        range(len(rows.row_of))
    )
    assert all(rows.row_of[n] == index for index, row in enumerate(order) for n in row)


@settings(max_examples=40, deadline=None)
@given(graphs(), st.data())
def test_no_boxes_overlap_and_no_edge_runs_through_one(
    graph: tuple[int, list[Edge]], data: st.DataObject
) -> None:
    count, edges = graph
    widths = [data.draw(st.floats(20, 200)) for _ in range(count)]
    layout = lay_out(widths, edges)
    boxes = layout.boxes
    for index, a in enumerate(boxes):
        assert a.x - a.width / 2 >= 0
        assert a.x + a.width / 2 <= layout.width
        assert a.y + a.height <= layout.height
        for b in boxes[:index]:
            if a.y == b.y:
                assert abs(a.x - b.x) >= (a.width + b.width) / 2
            else:
                assert abs(a.y - b.y) > HEIGHT
    for x, y in points(layout):
        for box in boxes:
            inside = abs(x - box.x) < box.width / 2 and box.y < y < box.y + box.height
            assert not inside


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        in_order(3, [Edge(0, 1), Edge(1, 2), Edge(2, 0)])


def test_nodes_keep_the_order_in_which_they_were_given_where_they_may() -> None:
    assert in_order(4, []) == [0, 1, 2, 3]
    assert in_order(4, [Edge(3, 0)]) == [1, 2, 3, 0]


def test_two_edges_that_need_not_cross_do_not() -> None:
    rows = rows_of(4, [Edge(0, 3), Edge(1, 2)])
    order = order_rows(rows)
    assert crossings(order, [[3], [2], [], []]) == 0


def test_crossings_are_counted() -> None:
    assert crossings([[0, 1], [2, 3]], [[3], [2], [], []]) == 1
    assert crossings([[0, 1], [2, 3]], [[2, 3], [2, 3], [], []]) == 1
    assert crossings([[0, 1], [2, 3]], [[2], [3], [], []]) == 0


def test_a_wide_map_is_broken_into_rows() -> None:
    edges = [Edge(0, i) for i in range(1, 201)] + [Edge(i, 201) for i in range(1, 201)]
    layout = lay_out([60.0] * 202, edges)
    assert layout.width < 60 * 100
    # The ways to one sum, and from one source, are shared where they are long.
    assert len(layout.ways) < 2 * len(edges)


def test_a_long_edge_is_straight_where_nothing_is_in_its_way() -> None:
    chain = [Edge(i, i + 1) for i in range(5)]
    layout = lay_out([60.0] * 6, [*chain, Edge(0, 5)])
    passing = {round(way.x1) for way in layout.ways if way.through}
    assert max(passing) - min(passing) <= 4


def test_an_empty_graph_has_a_drawing() -> None:
    assert lay_out([], []).boxes == []
