"""Calls that wait for each other in a circle: how it is found, and who is told.

A call waits where its method blocks or awaits, where it is queued behind another, and
where it lacks an argument. Whoever has waited for a while sends a ``Waiting`` after
what it waits for (Chandy, Misra and Haas call it a probe), which is passed on along
everything that this waits for in turn, with the way that it has come. If it comes back
to where it began, that way is a circle:

    certain    all of it must end before the rest can: nobody in it ever will. When it
               is seen once more, unchanged and some time later, it was whole in
               between, and the wait in it that is chosen raises CycleError.
    by thread  somewhere in it a call waits only for a main thread that is blocked, and
               whose own wait depends on that call: the thread is told to run it.
    other      a wait in it may end by itself: it has a time limit, or one of several
               calls is enough. Nothing is done.

No clock and no threads are here; what a call waits for at this moment is asked of the
runtime.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..comms.messages import Circle, Hop, Waiting
from ..ids import maker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .outbox import Outbox

FIRST_S = 0.03  # since a wait was first seen, until it is looked at
AGAIN_S = 0.3  # until it is looked at again; longer and longer, since what comes to
SELDOM_S = 5.0  # close a circle later is a wait itself, which is looked at in turn
_LONGER = 1.5
_HOPS = 250  # of a longer chain nothing is found
_ORIGINS = 2000  # of which it is remembered what was visited

# Why a call waits for the next one in a chain.
BLOCKED = 0  # its plain method waits for it
AWAITS = 1  # its coroutine does
BELOW = 2  # its plain method does, and the thread runs others meanwhile
UNDER = 3  # these others: it goes on when they have ended
QUEUED = 4  # that one runs or stands before it, on the same tessera
ARGUMENT = 5  # it takes its value
THREAD = 6  # that one blocks the main thread that is to run it

_MAY_RAISE = (BLOCKED, AWAITS)
_WORDS = (
    "waits for {}",
    "waits for {}",
    "waits for {}",
    "goes on after {}, which its thread runs meanwhile",
    "is queued behind {}",
    "takes the value of {}",
    "is to run where {} blocks",
)


class Edge(NamedTuple):
    """A call waits for another."""

    to: int  # uid
    owner: int  # incarnation of the runtime where that is
    kind: int
    stamp: int = 0  # of a wait: no two of a runtime have the same
    certain: bool = True  # it lasts until the other call has ended


class Vertex(NamedTuple):
    """A call that has not ended, and all that must end before it can."""

    name: str  # of tessera and method
    tessera: int
    edges: Sequence[Edge]
    depth: int = 0  # inside how many calls it was made
    certain: bool = True  # nothing but its method ends it: no time limit, no cancel


class Port(Protocol):
    """What the runtime does for CycleState."""

    @property
    def incarnation(self) -> int: ...

    def outbox(self, incarnation: int) -> Outbox | None: ...

    def vertex(self, uid: int, strict: bool) -> Vertex | None:
        """A call that lives here; None: it has ended, or is not known.

        Args:
            uid: of the call.
            strict: look closer at whether its wait is certain, though it takes long.
        """

    def run_under(self, uid: int, top: int) -> None:
        """The main thread is to run this call while that one blocks it."""

    def refuse(self, uid: int, stamp: int, text: str) -> None:
        """This wait is to raise CycleError."""


class _Watch:
    """A wait of this runtime."""

    __slots__ = ("due_s", "every_s", "found", "number", "stamp", "suspected")

    def __init__(self, stamp: int, due_s: float) -> None:
        self.stamp = stamp
        self.due_s = due_s
        self.every_s = AGAIN_S
        self.number = 0  # of the round
        self.found: set[tuple[tuple[int, int, int], ...]] = set()  # in this round
        self.suspected = self.found  # in the one before


class CycleState:
    """Both sides of the looking, of one runtime."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._watches: dict[int, _Watch] = {}
        self._rounds = 0
        self._now_s = 0.0  # when it looked last
        # By origin: the round, and for each call that was visited whether all was
        # certain up to there.
        self._visited: dict[int, tuple[int, dict[int, bool]]] = {}

    def look(self, waits: Iterable[tuple[int, int]], now_s: float) -> None:
        """Look for circles through these waits of calls that run here.

        Args:
            waits: uid of the call and stamp of the wait; all that could be told to
                raise.
            now_s: seconds, of a clock that only grows.
        """
        self._now_s = now_s
        watches = {}
        due = []
        for uid, stamp in waits:
            watch = self._watches.get(uid)
            if watch is None or watch.stamp != stamp:
                watch = _Watch(stamp, now_s + FIRST_S)
            watches[uid] = watch
            if watch.due_s <= now_s:
                due.append((uid, watch))
        self._watches = watches
        for uid, watch in due:
            self._begin(uid, watch, now_s)

    def _begin(self, uid: int, watch: _Watch, now_s: float) -> None:
        watch.suspected, watch.found = watch.found, set()
        strict = bool(watch.suspected)
        watch.due_s = now_s + watch.every_s
        watch.every_s = min(watch.every_s * _LONGER, SELDOM_S)
        self._rounds += 1
        watch.number = self._rounds
        me = self._port.incarnation
        self._walk(Waiting(uid, me, watch.number, strict, []))

    def waiting(self, message: Waiting) -> None:
        """What somebody waits for depends on a call that is here."""
        self._walk(message)

    def _walk(self, message: Waiting) -> None:
        """Visit a call and all that it waits for here; pass on what is elsewhere."""
        port = self._port
        todo = deque([(message.uid, message.hops)])
        origin = message.hops[0].uid if message.hops else message.uid
        number, visited = self._visited.get(origin, (0, {}))
        if message.number < number:
            return  # there has been another round since, which must not begin anew
        if message.number > number:
            visited = {}
        self._visited.pop(origin, None)
        self._visited[origin] = message.number, visited  # the last of them now
        while len(self._visited) > _ORIGINS:
            del self._visited[next(iter(self._visited))]
        while todo:
            uid, hops = todo.popleft()
            if hops and uid == origin:
                self._closed(message.number, hops)
                continue
            certain = all(hop.certain for hop in hops)
            if uid in visited and (visited[uid] or not certain):
                continue
            if len(hops) >= _HOPS or any(hop.uid == uid for hop in hops):
                continue  # the latter if it was forgotten what had been visited
            vertex = port.vertex(uid, message.strict)
            if vertex is None:
                continue
            visited[uid] = certain
            for edge in vertex.edges:
                hop = Hop(
                    uid,
                    port.incarnation,
                    edge.kind,
                    edge.stamp,
                    vertex.tessera,
                    edge.certain and vertex.certain,
                    vertex.depth,
                    vertex.name,
                )
                if edge.owner == port.incarnation:
                    todo.append((edge.to, [*hops, hop]))
                    continue
                outbox = port.outbox(edge.owner)
                if outbox is not None:
                    asker, strict = message.asker, message.strict
                    outbox.send(
                        Waiting(edge.to, asker, message.number, strict, [*hops, hop])
                    )

    # -- circles -----------------------------------------------------------------------

    def _closed(self, number: int, hops: list[Hop]) -> None:
        """A wait of this runtime depends on itself."""
        by_thread = [i for i, hop in enumerate(hops) if hop.kind == THREAD]
        if by_thread:
            # One is enough to break it, and each that runs takes the thread from the
            # call below it, which it may come to need. Mostly objects are made before
            # those that call them: the first made needs the fewest others.
            first = min(by_thread, key=lambda i: _oldest(hops[i]))
            top = hops[(first + 1) % len(hops)].uid
            self._tell(hops[first].at, Circle(hops[first].uid, top=top))
            return
        watch = self._watches.get(hops[0].uid)
        if (
            watch is None
            or watch.number != number
            or watch.stamp != hops[0].stamp
            or not all(hop.certain for hop in hops)
        ):
            return
        key = tuple((hop.uid, hop.kind, hop.stamp) for hop in hops)
        watch.found.add(key)
        watch.due_s = min(watch.due_s, self._now_s + AGAIN_S)
        if key in watch.suspected:
            # The same one, whoever has found it: the innermost, whose call closes it.
            able = [i for i, hop in enumerate(hops) if hop.kind in _MAY_RAISE]
            last = max(able, key=lambda i: (hops[i].depth, hops[i].uid))
            chosen = hops[last]
            text = in_words([*hops[last:], *hops[:last]])
            self._tell(chosen.at, Circle(chosen.uid, stamp=chosen.stamp, text=text))

    def _tell(self, to: int, message: Circle) -> None:
        if to == self._port.incarnation:
            self.circle(message)
            return
        outbox = self._port.outbox(to)
        if outbox is not None:
            outbox.send(message)

    def circle(self, message: Circle) -> None:
        """Somebody has found a circle, and what to do about it is to be done here."""
        if message.top:
            self._port.run_under(message.uid, message.top)
        else:
            self._port.refuse(message.uid, message.stamp, message.text)


def _oldest(hop: Hop) -> tuple[int, int]:
    # What a worker made is mostly used by what the program made.
    return -maker(hop.tessera), hop.tessera


def in_words(hops: Sequence[Hop]) -> str:
    """A circle for people, from the call that is told of it, and what to do."""
    parts = []
    for index, hop in enumerate(hops):
        following = hops[(index + 1) % len(hops)].name
        parts.append(_WORDS[hop.kind].format(following))
    kinds = {hop.kind for hop in hops}
    advice = "do not wait inside one of them"
    if QUEUED in kinds:
        advice += ", or call the methods of the own object directly"
    if AWAITS in kinds and QUEUED in kinds:
        advice += (
            "; coroutine methods of one tessera run one at a time unless it is made "
            "with is_async=True"
        )
    if UNDER in kinds:
        advice += (
            "; plain methods of all tesserae of a worker share its main thread: with "
            "one of them on another worker, or coroutine methods, they may end"
        )
    chain = ", which ".join(parts)
    return f"calls wait in a circle: {hops[0].name} {chain}: {advice}"
