"""The helpers of a node: it is told which threads stand still, and acts on it.

What is to be done is decided in ``core.helpers``, and what a helper is stands in
``helper``.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.helpers import Help, Helpers, Start
from ..core.node import Replacements
from ..core.senders import USER, kind_of
from ..errors import ProtocolError
from ..ids import short
from .saying import say

if TYPE_CHECKING:
    from .node import Node


class Helping:
    """Of one node; on its loop."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._replacements = Replacements()
        self._has_warned = False
        node.handlers[wire.Still] = self._on_still

    @functools.cached_property
    def _state(self) -> Helpers:
        """Made when the first member is here: a node may get its configuration late."""
        config = self._node.config
        most = config.num_helpers
        return Helpers(config.num_workers if most is None else most)

    def joined(self, member: wire.Member) -> None:
        """Somebody has joined."""
        if not kind_of(member.uid) & USER:
            return
        self._state.joined(member.incarnation, self._node.loop.time())
        if self._is_of_this_node(member):
            kind, _, index = member.uid.split(":")
            number = int(index) if kind == "helper" else None
            self._state.watch(member.incarnation, number)
            self._go_on()

    def _is_of_this_node(self, member: wire.Member) -> bool:
        """A worker or helper, also one that leaves: it runs what it has to its end."""
        kind, *indices = member.uid.split(":")
        ours = self._node.uid.split(":")[1]
        return kind in ("worker", "helper") and indices[0] == ours

    def gone(self, incarnation: int) -> None:
        """It is lost, or will leave."""
        self._state.gone(incarnation)
        self._go_on()

    def ended(self, uid: str, how: str, *, died: bool) -> None:
        """The process of a helper has ended.

        Args:
            uid: of the helper.
            how: for people.
            died: not in order. What it ran is to run again, if it may, but not as fast
                as can be; and what waits for it needs one.
        """
        number = int(uid.split(":")[2])
        if died:
            now_s = self._node.loop.time()
            delay_s, told = self._replacements.next_s(now_s, short(uid), how)
            if told:
                say(told)
            self._node.loop.call_later(delay_s, self._end, number, True)
        else:
            self._end(number)

    def _end(self, number: int, died: bool = False) -> None:
        self._state.ended(number, died=died)
        self._go_on()

    def _on_still(self, message: wire.Still, buffers: Any, sender: int) -> None:
        for_s = message.for_s
        if for_s is not None and not (for_s >= 0 and math.isfinite(for_s)):
            raise ProtocolError(f"a call that began {for_s} s ago")
        since_s = None if for_s is None else self._node.loop.time() - for_s
        if self._state.told(sender, since_s, message.behind):
            self._go_on()
            return
        member = self._node.members.get(sender)
        if member is None or not self._is_of_this_node(member):
            raise ProtocolError("it is no worker of this node")

    def _go_on(self) -> None:
        node = self._node
        if node.stopping:
            return
        for step in self._state.next():
            if isinstance(step, Start):
                node.start_helper(step.number)
                continue
            outbox = node.outbox(step.submitter)
            if outbox is not None:
                outbox.send(wire.Helped(step.helper, may=isinstance(step, Help)))
        if self._state.are_exhausted and not self._has_warned:
            self._has_warned = True
            say(
                f"all workers of {node.uid}, and all helpers, stand still in "
                "calls that wait for something, while function tasks lie behind them: "
                "if they wait for these, nothing of it will ever end; wait for tasks "
                "by task.get() or the future of an executor, which run them meanwhile, "
                "or allow more helpers by num_helpers="
            )
