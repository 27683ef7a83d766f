"""An error that says of another, which came as bytes, that it was the cause.

What came is put in as it is: who routes errors does not unpickle them. How an error
stands in bytes is in ``exceptions``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ..errors import TaskCancelledError, UpstreamError
from .exceptions import MOST_NODES, Node, dump_error

if TYPE_CHECKING:
    from .serialization import Serializer


# As runtimes.failures notes where something was raised.
_TASK = re.compile(r" · task (\d+-\d+) · ")


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


_UPSTREAM = _name_of(UpstreamError)
_CANCELLED = _name_of(TaskCancelledError)


class Cause:
    """The first cause that a report tells of: what lies between is left out.

    A chain that kept all between would end in quadratic time.

    Args:
        data: an error as bytes, of ``dump_error``.
    """

    def __init__(self, data: bytes) -> None:
        nodes = _nodes(data)
        if len(nodes) > 1 and nodes[0].cause > 0:
            first = nodes[min(nodes[0].cause, len(nodes) - 1)].type_name
            kind = nodes[0].type_name
            if kind == _UPSTREAM or kind == first == _CANCELLED:
                nodes = _moved(nodes, nodes[0].cause, 0)
        self._nodes = nodes

    @property
    def kind(self) -> str:
        """The name of its class."""
        return self._nodes[0].type_name.rpartition(".")[2]

    @property
    def message(self) -> str:
        return self._nodes[0].message

    def under(self, error: BaseException, serializer: Serializer) -> bytes:
        """The bytes of an error that was raised from this one."""
        nodes = _nodes(dump_error(error, serializer))
        start = len(nodes)
        nodes[0].cause = start
        nodes[0].suppress = True
        nodes += _moved(self._nodes, 0, start)
        return msgspec.msgpack.encode(_cut(nodes[:MOST_NODES]))


def fault_of(data: bytes) -> str:
    """The name of the task at fault, of an UpstreamError; empty: it is not known.

    Args:
        data: the error as bytes.
    """
    nodes = _nodes(data)
    if nodes[0].type_name != _UPSTREAM or nodes[0].cause < 1:
        return ""
    found = _TASK.search("\n".join(nodes[nodes[0].cause].notes))
    return "" if found is None else found[1]


def _nodes(data: bytes) -> list[Node]:
    try:
        nodes = msgspec.msgpack.decode(data, type=list[Node])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        nodes = []
    return _cut(nodes) or [Node("error", "its report cannot be read", "", [], [])]


def _moved(nodes: list[Node], first: int, start: int) -> list[Node]:
    """Those from ``first`` on, that are to stand from ``start`` on."""
    by = start - first

    def at(index: int) -> int:
        return index + by if index >= first else -1

    return [
        msgspec.structs.replace(
            node,
            cause=at(node.cause),
            context=at(node.context),
            members=[at(m) for m in node.members if m >= first],
        )
        for node in nodes[first:]
    ]


def _cut(nodes: list[Node]) -> list[Node]:
    """Each may name only those behind it that are there."""
    count = len(nodes)
    for index, node in enumerate(nodes):
        node.cause = node.cause if index < node.cause < count else -1
        node.context = node.context if index < node.context < count else -1
        node.members = [m for m in node.members if index < m < count]
    return nodes
