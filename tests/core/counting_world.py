"""A small cluster for the model of counting: real tables and grants, no runtimes.

A ``World`` is a value: for each runtime the number of a snapshot of its real objects,
the messages on each ordered link, and how far each has heard of the losses. What an
event does to a runtime depends on its snapshot alone, so the real code runs once for
each pair of the two, and exploring is looking up.
"""

from __future__ import annotations

import pickle
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from mosaic_like import ids
from mosaic_like.comms.messages import (
    TASK,
    Holding,
    LossSeen,
    Message,
    Reference,
    Release,
    ReleaseGrants,
    Retain,
)
from mosaic_like.core.holders import HolderTable
from mosaic_like.core.references import Grant, Grants

if TYPE_CHECKING:
    from collections.abc import Iterator

Event: TypeAlias = tuple[Any, ...]
Wire: TypeAlias = tuple[Any, ...]  # a message as a value


class Violation(AssertionError):
    """The model has found a run that breaks a property."""


def _never_woken() -> None:
    """The model drains after each event."""


class Freed:
    """Keeps what a table has freed."""

    def __init__(self) -> None:
        self.uids: list[int] = []

    def freed(self, uid: int) -> None:
        self.uids.append(uid)


class Node:
    """One runtime: what it owns, what it holds, and nothing else."""

    def __init__(self, me: int, table: type[HolderTable], grants: type[Grants]) -> None:
        self.me = me
        self.owned = Freed()
        self.table = table(me, self.owned)
        self.grants = grants(me, self.table, _never_woken)
        self.held: list[Grant] = []
        self.made: set[int] = set()

    def step(self, event: Event) -> list[tuple[int, Wire]]:
        """What it sends, and to whom, because of an event."""
        out: list[tuple[int, Wire]] = []
        match event:
            case ("make", uid, owner):
                self.held.append(self.grants.made(uid, owner))
                out.append((owner, ("create", uid)))
                if owner == self.me:
                    self.receive(owner, out.pop()[1])
            case ("send", to, references):
                real = [Reference(TASK, uid, owner) for uid, owner in references]
                out += self._wires(self.grants.sending(real, to))
                out.append((to, ("payload", references)))
            case ("drop", uid, granter):
                names = [(grant.uid, grant.granter) for grant in self.held]
                del self.held[names.index((uid, granter))]
            case ("receive", sender, wire):
                self.receive(sender, wire)
            case ("lost", incarnation, live):
                self.table.lost(incarnation, live)
                out += self._wires(self.grants.lost(incarnation, live))
            case _:
                raise AssertionError(event)
        return out + self._wires(self.grants.drain())

    def receive(self, sender: int, wire: Wire) -> None:
        match wire:
            case ("create", uid):
                self.made.add(uid)
                self.table.add(uid)
            case ("payload", references):
                real = [Reference(TASK, uid, owner) for uid, owner in references]
                self.held += self.grants.delivered(real, sender)
            case ("Retain", uid, holder):
                self.table.retain(sender, uid, holder)
            case ("Release", uids):
                self.table.release(sender, uids)
            case ("ReleaseGrants", pairs):
                self.table.release_grants(sender, pairs)
            case ("Holding", uid, granter, count):
                self.table.holding(sender, uid, granter, count)
            case ("LossSeen", incarnation):
                self.table.loss_seen(sender, incarnation)
            case _:
                raise AssertionError(wire)

    @staticmethod
    def _wires(messages: list[tuple[int, Message]]) -> list[tuple[int, Wire]]:
        return [(to, _wire(message)) for to, message in messages]


def _wire(message: Message) -> Wire:
    match message:
        case Retain(uid=uid, holder=holder):
            return ("Retain", uid, holder)
        case Release(uids=uids):
            return ("Release", tuple(uids))
        case ReleaseGrants(grants=grants):
            return ("ReleaseGrants", tuple(grants))
        case Holding(uid=uid, granter=granter, count=count):
            return ("Holding", uid, granter, count)
        case LossSeen(incarnation=incarnation):
            return ("LossSeen", incarnation)
        case _:
            raise AssertionError(message)


def canonical(thing: Any) -> Any:
    """A value that is equal for two objects in the same state."""
    if isinstance(thing, dict):
        pairs = [(canonical(key), canonical(value)) for key, value in thing.items()]
        return tuple(sorted(pairs))
    if isinstance(thing, set):
        return tuple(sorted(canonical(item) for item in thing))
    if isinstance(thing, (int, str)):
        return thing
    if isinstance(thing, tuple):
        return tuple(canonical(item) for item in thing)
    names = [
        name
        for cls in type(thing).__mro__
        for name in getattr(cls, "__slots__", ())
        # Links to the other objects of the node, and what it does not decide by.
        if name not in ("_freed", "_table", "_wake", "_awake", "_fallen")
    ]
    return tuple(canonical(getattr(thing, name)) for name in names)


class Snapshot(NamedTuple):
    """One runtime at one moment."""

    blob: bytes
    held: tuple[tuple[int, int], ...]  # uid, granter of each grant
    made: frozenset[int]
    counts: dict[int, dict[tuple[int, int], int]]
    left: int  # records of any kind
    announced: bool  # some loss is not settled, or some grant is still accounted for


class World(NamedTuple):
    """The whole cluster at one moment; runtimes are called 0, 1, 2 here."""

    nodes: tuple[int, ...]  # numbers of snapshots
    links: tuple[tuple[int, ...], ...]  # from a to b at a * n + b; numbers of wires
    lost: tuple[int, ...]  # in the order of the monitor
    heard: tuple[int, ...]  # how many losses each has heard of
    sends: int  # how many payloads may still be sent


class Cluster:
    """The rules by which worlds follow each other.

    Args:
        size: how many runtimes.
        objects: (maker, owner) of each object.
        sends: how many payloads are sent at most.
        crashes: how many runtimes are lost at most.
        mortal: which of them; none given: all.
        stay: a lost runtime goes on, as one does that was only cut off.
        table: the class for the owner's side.
        grants: the class for the holder's side.
    """

    def __init__(
        self,
        size: int,
        objects: list[tuple[int, int]],
        *,
        sends: int,
        crashes: int,
        mortal: frozenset[int] | None = None,
        stay: bool = False,
        table: type[HolderTable] = HolderTable,
        grants: type[Grants] = Grants,
    ) -> None:
        self.size = size
        self.crashes = crashes
        self.mortal = frozenset(range(size)) if mortal is None else mortal
        self.stay = stay
        self.owner = {}
        self._snapshots: list[Snapshot] = []
        self._numbers: dict[Any, int] = {}
        self._wires: list[Wire] = []
        self._wire_numbers: dict[Wire, int] = {}
        self._steps: dict[Any, tuple[int, list[tuple[int, int]], list[int]]] = {}
        nodes = [Node(me, table, grants) for me in range(size)]
        links: list[tuple[int, ...]] = [()] * (size * size)
        for number, (maker, owner) in enumerate(objects, 1):
            uid = (maker << ids.NUMBER_BITS) + number
            self.owner[uid] = owner
            for to, wire in nodes[maker].step(("make", uid, owner)):
                links[maker * size + to] += (self._wire(wire),)
        self.start = World(
            tuple(self._number(node) for node in nodes),
            tuple(links),
            (),
            (0,) * size,
            sends,
        )

    @property
    def steps(self) -> int:
        """How often the real code has run."""
        return len(self._steps)

    def _wire(self, wire: Wire) -> int:
        number = self._wire_numbers.setdefault(wire, len(self._wires))
        if number == len(self._wires):
            self._wires.append(wire)
        return number

    def _number(self, node: Node) -> int:
        held = tuple(sorted((grant.uid, grant.granter) for grant in node.held))
        made = frozenset(node.made)
        state = (canonical(node.table), canonical(node.grants), held, made, node.me)
        number = self._numbers.get(state)
        if number is None:
            number = self._numbers[state] = len(self._snapshots)
            table, grants = node.table, node.grants
            self._snapshots.append(
                Snapshot(
                    pickle.dumps(node),
                    held,
                    made,
                    {uid: table.counts(uid) for uid in self.owner if uid in table},
                    len(table),
                    bool(table._losses._open or (grants._held and not held)),
                )
            )
        return number

    def _step(
        self, number: int, event: Event
    ) -> tuple[int, list[tuple[int, int]], list[int]]:
        done = self._steps.get((number, event))
        if done is None:
            node: Node = pickle.loads(self._snapshots[number].blob)
            out = node.step(self._readable(event))
            freed = node.owned.uids[:]
            node.owned.uids.clear()
            done = (
                self._number(node),
                [(to, self._wire(wire)) for to, wire in out],
                freed,
            )
            self._steps[number, event] = done
        return done

    def _readable(self, event: Event) -> Event:
        if event[0] == "receive":
            return ("receive", event[1], self._wires[event[2]])
        return event

    def describe(self, run: list[Event]) -> str:
        """The moves of a run, one a line."""
        return "\n".join(f"{me}: {self._readable(event)}" for me, event in run)

    # -- moving ------------------------------------------------------------------------

    def moves(self, world: World) -> Iterator[Event]:
        """All that can happen next, as (runtime, event)."""
        size = self.size
        for me in range(size):
            if me in world.lost and not self.stay:
                continue
            held = self._snapshots[world.nodes[me]].held
            for uid, granter in dict.fromkeys(held):
                yield (me, ("drop", uid, granter))
            gone = world.lost[: world.heard[me]]
            if world.sends and held:
                uids = sorted({uid for uid, _ in held})
                for to in range(size):
                    if to != me and to not in gone:
                        for some in _choices(uids):
                            refs = tuple((uid, self.owner[uid]) for uid in some)
                            yield (me, ("send", to, refs))
            for sender in range(size):
                link = world.links[sender * size + me]
                if link:
                    yield (me, ("receive", sender, link[0]))
            if me not in world.lost:
                if len(gone) < len(world.lost):
                    lost = world.lost[len(gone)]
                    out = (*gone, lost, me)
                    live = tuple(a for a in range(size) if a not in out)
                    yield (me, ("lost", lost, live))
                if len(world.lost) < self.crashes and me in self.mortal:
                    yield (me, ("crash",))

    def move(self, world: World, move: Event) -> World:
        """The world after one move.

        Raises:
            Violation: something was freed that is in use.
        """
        me, event = move
        size = self.size
        links = list(world.links)
        if event[0] == "crash":
            if not self.stay:
                for sender in range(size):
                    links[sender * size + me] = ()
            return world._replace(links=tuple(links), lost=(*world.lost, me))
        number, out, freed = self._step(world.nodes[me], event)
        heard, sends = world.heard, world.sends
        if event[0] == "receive":
            at = event[1] * size + me
            links[at] = links[at][1:]
        elif event[0] == "send":
            sends -= 1
        elif event[0] == "lost":
            heard = (*heard[:me], heard[me] + 1, *heard[me + 1 :])
            links[event[1] * size + me] = ()  # the fence
        for to, wire in out:
            deaf = me in world.lost[: world.heard[to]]
            gone = to in world.lost if not self.stay else False
            if not deaf and not gone:
                links[me * size + to] += (wire,)
        nodes = (*world.nodes[:me], number, *world.nodes[me + 1 :])
        after = World(nodes, tuple(links), world.lost, heard, sends)
        if freed and me not in world.lost:
            for uid in freed:
                self._check_unused(after, uid)
        return after

    # -- properties --------------------------------------------------------------------

    def _check_unused(self, world: World, uid: int) -> None:
        for me in range(self.size):
            if me in world.lost:
                continue
            if any(uid == other for other, _ in self._snapshots[world.nodes[me]].held):
                raise Violation(f"{ids.task_name(uid)} is freed while {me} holds it")
            for sender in range(self.size):
                for number in world.links[sender * self.size + me]:
                    wire = self._wires[number]
                    if wire[0] == "payload" and uid in dict(wire[1]):
                        raise Violation(
                            f"{ids.task_name(uid)} is freed while it travels to {me}"
                        )

    def check_rest(self, world: World) -> bool:
        """Whether nothing is on its way; if so, that all counts are exact.

        Raises:
            Violation: a count differs from what is held, or something is left over.
        """
        size = self.size
        live = [me for me in range(size) if me not in world.lost]
        for me in live:
            if world.heard[me] < len(world.lost):
                return False
            if any(world.links[sender * size + me] for sender in live):
                return False
        held: dict[int, Counter[tuple[int, int]]] = {
            uid: Counter() for uid in self.owner
        }
        for me in live:
            for uid, granter in self._snapshots[world.nodes[me]].held:
                held[uid][me, granter] += 1
        for me in live:
            snapshot = self._snapshots[world.nodes[me]]
            right = {
                uid: dict(held[uid])
                for uid in self.owner
                if self.owner[uid] == me and held[uid] and uid in snapshot.made
            }
            if snapshot.counts != right:
                raise Violation(f"{me} counts {snapshot.counts}, held is {right}")
            if snapshot.left != len(right):
                raise Violation(f"{me} has {snapshot.left} records for {right}")
            if snapshot.announced:
                raise Violation(f"{me} has something left of a loss or a grant")
        return True


def _choices(uids: list[int]) -> Iterator[tuple[int, ...]]:
    for uid in uids:
        yield (uid,)
    if len(uids) > 1:
        yield tuple(uids)


class Explored(NamedTuple):
    states: int
    moves: int
    rests: int  # states in which nothing is on its way
    steps: int  # runs of the real code


def follow(cluster: Cluster, run: list[tuple[int, str, int]]) -> World:
    """The world after a run of (runtime, "send", "drop" or "receive", the other)."""
    world = cluster.start
    for me, what, other in run:
        fitting = [
            move
            for move in cluster.moves(world)
            if move[0] == me
            and move[1][0] == what
            and (what == "drop" or move[1][1] == other)
        ]
        world = cluster.move(world, fitting[0])
    return world


def explore(cluster: Cluster, start: World | None = None) -> Explored:
    """Visit every world that can be reached.

    Raises:
        Violation: with the moves that lead to it.
    """
    start = start or cluster.start
    seen: set[World] = {start}
    # Each with its moves still to be tried, so that the stack is the run itself.
    stack = [(start, cluster.moves(start))]
    run: list[Event] = []
    moves = rests = 0
    while stack:
        world, todo = stack[-1]
        move = next(todo, None)
        if move is None:
            stack.pop()
            if run:
                run.pop()
            continue
        moves += 1
        try:
            after = cluster.move(world, move)
            if after in seen:
                continue
            rests += cluster.check_rest(after)
        except Violation as error:
            error.add_note(cluster.describe([*run, move]))
            raise
        seen.add(after)
        run.append(move)
        stack.append((after, cluster.moves(after)))
    return Explored(len(seen), moves, rests, cluster.steps)
