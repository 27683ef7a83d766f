"""A graph of tasks that there are: ``Graph.of``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.call import rare
from ..core.task import STATES
from ..ids import task_name
from ..proxies.array import TaskArrayProxy
from ..proxies.records import About, parents_of
from ..proxies.task import TaskProxy
from .graph import Edge, Graph, Node

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..core.call import Call
    from .connections import Connections


def note_parents(call: Call, payload: Any) -> None:
    """Remember which tasks a call takes, which was submitted by itself."""
    item = rare(call)
    if item.about is None:
        item.about = About(parents=parents_of(payload))


def picture_of(proxies: Iterable[Any], follow: bool) -> Graph:
    """See ``Graph.of``."""
    tasks: dict[TaskProxy[Any], None] = {}
    for proxy in proxies:
        if isinstance(proxy, TaskArrayProxy):
            tasks.update(dict.fromkeys(proxy))
        elif isinstance(proxy, TaskProxy):
            tasks[proxy] = None
        else:
            raise TypeError(f"Graph.of() takes tasks, not {proxy!r}")
    if not tasks:
        return Graph([])
    runtime = next(iter(tasks))._runtime
    connections: Connections = runtime.connections
    graph: Graph = runtime.at_once(_picture, connections, list(tasks), follow)
    return graph


def _picture(
    connections: Connections, tasks: list[TaskProxy[Any]], follow: bool
) -> Graph:
    """On the runtime's thread, where the states stand still meanwhile."""
    members = connections.state.members
    given = {task._call.first_uid: task for task in tasks}
    uids = dict.fromkeys(given)
    if follow:
        queue = [uid for uid in uids if uid in members]
        for uid in queue:  # which grows
            for other in (*members[uid].needs, *members[uid].blocks):
                if other not in uids:
                    uids[other] = None
                    queue.append(other)
    nodes = []
    for uid in sorted(uids):  # as they were made
        if uid in given:
            task = given[uid]
            node = Node(task_name(uid), task.name, task.state, task.reason)
        else:
            member = members[uid]
            state = STATES[member.state]
            node = Node(task_name(uid), member.label, state, member.reason)
        nodes.append(node)
    edges = []
    keys = {node.key for node in nodes}
    for uid in uids:
        key = task_name(uid)
        known = members.get(uid)
        if known is not None:
            edges += [
                Edge(task_name(need), key, need in known.orders) for need in known.needs
            ]
        item = given[uid]._call.rare if uid in given else None
        if item is not None and item.about is not None:  # it was submitted by itself
            edges += [Edge(parent, key) for parent in item.about.parents]
    return Graph(nodes, [edge for edge in edges if edge.source in keys])
