"""A small cluster for the model of counting: real tables and grants, no runtimes.

A ``World`` is a value: for each runtime the number of a snapshot of its real objects,
the messages on each ordered link, and how far each has heard what the monitor says:
who is lost, who is about to leave, and who has left to whom. What an event does to a
runtime depends on its snapshot alone, so the real code runs once for each pair of the
two, and exploring is looking up.
"""

from __future__ import annotations

import pickle
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from mosaic_like import ids
from mosaic_like.comms.messages import (
    TASK,
    Holding,
    Keep,
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
# What the monitor says: a kind below, of whom, and their heir, who may be nobody.
News: TypeAlias = tuple[str, int, int]

LEAVING, LOST, LEFT = "leaving", "lost", "left"
NOBODY = -1
MONITOR = -2
WALK = 80  # moves, which end most runs


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

    def __init__(
        self,
        me: int,
        table: type[HolderTable],
        grants: type[Grants],
        heirs: tuple[int, ...] = (),
    ) -> None:
        self.me = me
        self.owned = Freed()
        self.table = table(me, self.owned)
        self.grants = grants(me, self.table, _never_woken)
        self.held: list[Grant] = []
        self.made: set[int] = set()
        # Of ``core.leaving``: what is kept for heirs, by who leaves; whom it waits for
        # that leaves itself, who may be its heir, and to whom it has handed on; what an
        # heir was given, by those that are still here.
        self.kept: dict[int, list[Wire]] = {}
        self.early: set[int] = set()
        self.waited: set[int] | None = None
        self.heirs = heirs
        self.heir: int | None = None
        self.given: dict[int, list[int]] = {}

    def departure(self) -> tuple[Any, ...]:
        """What decides besides counts and grants, as a value."""
        return canonical(
            (
                {who: tuple(kept) for who, kept in self.kept.items()},
                self.early,
                self.waited is not None and (0, *sorted(self.waited)),
                (self.heirs, self.heir is not None, self.heir or 0),
                {who: tuple(uids) for who, uids in self.given.items()},
            )
        )

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
                out += self._told(self.grants.sending(real, to))
                out.append((to, ("payload", references)))
            case ("drop", uid, granter):
                names = [(grant.uid, grant.granter) for grant in self.held]
                del self.held[names.index((uid, granter))]
            case ("receive", sender, ("HeldBy", counts, lost)):
                given = self.given.setdefault(sender, [])
                for uid, some in counts:
                    self.table.inherit(uid, some, sender, lost)
                    self.made.add(uid)
                    given.append(uid)
                out.append((sender, ("Inherited",)))
            case ("receive", sender, ("LeavingSeen",)):
                if self.waited is None:
                    self.early.add(sender)
                else:
                    self.waited.discard(sender)
                    out += self._hand_on()
            case ("receive", _, ("Inherited",)):
                out.append((MONITOR, ("exited", self.heir)))
            case ("receive", sender, wire):
                self.receive(sender, wire)
            case ("hear", kind, who, heir, live):
                out += self.hear(kind, who, heir, live)
            case _:
                raise AssertionError(event)
        out += self._told(self.grants.drain())
        return out

    def hear(
        self, kind: str, who: int, heir: int, live: tuple[int, ...]
    ) -> list[tuple[int, Wire]]:
        """The monitor says it; see ``runtimes.leavers`` and ``runtimes.departing``."""
        out: list[tuple[int, Wire]] = []
        self.heirs = tuple(one for one in self.heirs if one != who)
        if kind == LEAVING:
            if who == self.me:
                self.waited = set(live) - self.early
                out += self._hand_on()
            else:
                self.kept[who] = []
                out.append((who, ("LeavingSeen",)))
            return out
        kept = self.kept.pop(who, [])
        if kind == LEFT and (heir == self.me or heir in live):
            self.grants.moved(who, heir)
            for wire in kept:
                if heir == self.me:
                    self.receive(self.me, wire)
                else:
                    out += self.to_heir(heir, wire)
        given = self.given.pop(who, [])
        for uid in given if kind == LOST else ():  # nobody will ask for it here
            self.table.forget(uid)
            self.made.discard(uid)
        out += self._told(self.grants.lost(who, live))
        self.table.lost(who, live)
        if self.waited is not None:
            self.waited.discard(who)
            if self.heir == who:  # it will not say that it has it all
                self.heir = NOBODY
                out.append((MONITOR, ("exited", NOBODY)))
            else:
                out += self._hand_on()
        return out

    def _hand_on(self) -> list[tuple[int, Wire]]:
        """Give what is here to the heir, once all have said that they keep the rest."""
        if self.waited or self.waits_for_givers() or self.heir is not None:
            return []
        heir = self.heir = next(iter(self.heirs), NOBODY)
        if heir == NOBODY:
            return [(MONITOR, ("exited", NOBODY))]
        counts = tuple(
            (uid, tuple(self.table.counted(uid)))
            for uid in sorted(self.made)
            if uid in self.table
        )
        granters = {granter for _, some in counts for _, granter, _ in some}
        lost = tuple(sorted(self.table.silent(granters)))
        return [(heir, ("HeldBy", counts, lost))]

    def to_heir(self, heir: int, wire: Wire) -> list[tuple[int, Wire]]:
        """What was kept goes there, or is kept for its heir if that leaves as well."""
        if heir not in self.kept:
            return [(heir, wire)]
        self.kept[heir].append(wire)
        return []

    def waits_for_givers(self) -> bool:
        """Whose heir it is, and who has not left: what that keeps is not known yet."""
        return bool(self.given)

    def _told(self, messages: list[tuple[int, Message]]) -> list[tuple[int, Wire]]:
        """What is sent of these now; the rest waits for an heir."""
        out = []
        for to, wire in self._wires(messages):
            if to in self.kept:
                self.kept[to].append(wire)
            else:
                out.append((to, wire))
        return out

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
                self.grants.loss_seen(sender, incarnation)
                self.table.loss_seen(sender, incarnation)
            case _:
                raise AssertionError(wire)

    @staticmethod
    def _wires(messages: list[tuple[int, Message]]) -> list[tuple[int, Wire]]:
        # Keep asks for no count: it is for who sends calls again.
        counted = [one for one in messages if type(one[1]) is not Keep]
        return [(to, _wire(message)) for to, message in counted]


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
        if name not in ("_freed", "_table", "_wake", "_awake", "_fallen", "_outlived")
    ]
    return tuple(canonical(getattr(thing, name)) for name in names)


class Snapshot(NamedTuple):
    """One runtime at one moment."""

    blob: bytes
    held: tuple[tuple[int, int], ...]  # uid, granter of each grant
    made: frozenset[int]
    counts: dict[int, dict[tuple[int, int], int]]
    left: int  # records of any kind
    is_leaving: bool
    has_handed_on: bool  # what it still held is settled with its end
    keeps: bool  # something for an heir
    announced: bool  # some loss is not settled, or some grant is still accounted for


class World(NamedTuple):
    """The whole cluster at one moment; runtimes are called 0, 1, 2 here."""

    nodes: tuple[int, ...]  # numbers of snapshots
    links: tuple[tuple[int, ...], ...]  # from a to b at a * n + b; numbers of wires
    news: tuple[News, ...]  # in the order of the monitor
    heard: tuple[int, ...]  # how many of them each has heard
    sends: int  # how many payloads may still be sent

    @property
    def lost(self) -> tuple[int, ...]:
        """Who is not there any more, however it has ended."""
        return _ended(self.news)


class Cluster:
    """The rules by which worlds follow each other.

    Args:
        size: how many runtimes.
        objects: (maker, owner) of each object.
        sends: how many payloads are sent at most.
        crashes: how many runtimes are lost at most.
        mortal: which of them; none given: all.
        leaves: who may be told to leave, and to whom each may hand on: the first that
            is here and does not leave itself.
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
        leaves: dict[int, tuple[int, ...]] | None = None,
        stay: bool = False,
        table: type[HolderTable] = HolderTable,
        grants: type[Grants] = Grants,
        node: type[Node] = Node,
    ) -> None:
        self.size = size
        self.crashes = crashes
        self.mortal = frozenset(range(size)) if mortal is None else mortal
        self.leaves = leaves or {}
        self.stay = stay
        self.owner = {}
        self._snapshots: list[Snapshot] = []
        self._numbers: dict[Any, int] = {}
        self._wires: list[Wire] = []
        self._wire_numbers: dict[Wire, int] = {}
        self._steps: dict[Any, tuple[int, list[tuple[int, int]], list[int]]] = {}
        nodes = [node(me, table, grants, self.leaves.get(me, ())) for me in range(size)]
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
        state = (
            *(canonical(node.table), canonical(node.grants), held, made, node.me),
            node.departure(),
        )
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
                    node.waited is not None,
                    node.heir is not None,
                    any(node.kept.values()),
                    bool(table._losses._open or (grants._held and not held)),
                )
            )
        return number

    def _step(
        self, number: int, event: Event
    ) -> tuple[int, list[tuple[int, int]], list[int]]:
        done = self._steps.get((number, event))
        if done is None:
            one: Node = pickle.loads(self._snapshots[number].blob)
            out = one.step(self._readable(event))
            freed = one.owned.uids[:]
            one.owned.uids.clear()
            done = (
                self._number(one),
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
            heard = world.news[: world.heard[me]]
            gone = _ended(heard)
            has_handed_on = self._snapshots[world.nodes[me]].has_handed_on
            if world.sends and held and not has_handed_on:
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
                if len(heard) < len(world.news):
                    news = world.news[len(heard)]
                    out = (*_ended((*heard, news)), me)
                    live = tuple(a for a in range(size) if a not in out)
                    yield (me, ("hear", *news, live))
                crashed = sum(kind == LOST for kind, _, _ in world.news)
                if crashed < self.crashes and me in self.mortal:
                    yield (me, ("crash",))
                told = (LEAVING, me, NOBODY) in world.news
                if me in self.leaves and not told:
                    yield (me, ("leave",))

    def move(self, world: World, move: Event) -> World:
        """The world after one move.

        Raises:
            Violation: something was freed that is in use.
        """
        me, event = move
        size = self.size
        links = list(world.links)
        if event[0] == "leave":
            return world._replace(news=(*world.news, (LEAVING, me, NOBODY)))
        if event[0] == "crash":
            if not self.stay:
                for sender in range(size):
                    links[sender * size + me] = ()
            news = (*world.news, (LOST, me, NOBODY))
            return world._replace(links=tuple(links), news=news)
        number, out, freed = self._step(world.nodes[me], event)
        heard, sends = world.heard, world.sends
        if event[0] == "receive":
            at = event[1] * size + me
            links[at] = links[at][1:]
        elif event[0] == "send":
            sends -= 1
        elif event[0] == "hear":
            heard = (*heard[:me], heard[me] + 1, *heard[me + 1 :])
            if event[1] != LEAVING:
                links[event[2] * size + me] = ()  # the fence
        news = world.news
        for to, number_out in out:
            if to == MONITOR:
                heir = self._wires[number_out][1]
                if heir in _ended(news):
                    heir = NOBODY
                news = (*news, (LEFT, me, heir))
                for sender in range(size):
                    links[sender * size + me] = ()
        for to, wire in out:
            if to == MONITOR:
                continue
            deaf = me in _ended(world.news[: world.heard[to]])
            gone = to in world.lost if not self.stay else False
            if not deaf and not gone:
                links[me * size + to] += (wire,)
        nodes = (*world.nodes[:me], number, *world.nodes[me + 1 :])
        after = World(nodes, tuple(links), news, heard, sends)
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

    def _owner_now(self, world: World, uid: int) -> int:
        owner = self.owner[uid]
        for kind, who, heir in world.news:
            if kind == LEFT and who == owner and heir != NOBODY:
                owner = heir
        return owner

    def check_rest(self, world: World) -> bool:
        """Whether nothing is on its way; if so, that all counts are exact.

        Raises:
            Violation: a count differs from what is held, or something is left over.
        """
        size = self.size
        live = [me for me in range(size) if me not in world.lost]
        for me in live:
            if world.heard[me] < len(world.news):
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
            if snapshot.is_leaving:
                raise Violation(f"{me} waits for nothing, and does not leave")
            if snapshot.keeps:
                raise Violation(f"{me} keeps what no heir will get")
            right = {
                uid: dict(held[uid])
                for uid in self.owner
                if self._owner_now(world, uid) == me
                and held[uid]
                and uid in snapshot.made
            }
            if snapshot.counts != right:
                raise Violation(f"{me} counts {snapshot.counts}, held is {right}")
            if snapshot.left != len(right):
                raise Violation(f"{me} has {snapshot.left} records for {right}")
            if snapshot.announced:
                raise Violation(f"{me} has something left of a loss or a grant")
        return True


def _ended(news: tuple[News, ...]) -> tuple[int, ...]:
    return tuple(who for kind, who, _ in news if kind != LEAVING)


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


def walk(cluster: Cluster, walks: int) -> None:
    """So many runs by chance, where there are too many worlds to visit all.

    Raises:
        Violation: with the moves that lead to it.
    """
    for seed in range(walks):
        _walk(cluster, random.Random(seed))


def _walk(cluster: Cluster, rng: random.Random) -> None:
    world = cluster.start
    run: list[Event] = []
    try:
        for _ in range(WALK):
            moves = list(cluster.moves(world))
            if not moves:
                return
            run.append(rng.choice(moves))
            world = cluster.move(world, run[-1])
            cluster.check_rest(world)
    except Violation as error:
        error.add_note(cluster.describe(run))
        raise


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
