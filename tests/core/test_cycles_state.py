"""Random programs on a model of workers: circles are found, and nothing else is.

The model runs calls as the executor does: plain methods on the one main thread of
their worker, which meanwhile runs what the wait of the blocked one depends on;
coroutine methods one at a time in their tessera. Messages of the real ``CycleState``
are delivered late and in any order between different pairs of workers.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.comms.messages import Circle, Hop
from mosaic_like.core import cycles
from mosaic_like.core.cycles import CycleState, Edge, Vertex, in_words

FIRE, WAIT, TIMED, ALL = range(4)
Step = tuple[int, list[tuple[int, Any]]]  # how, and (tessera, script) of each call
Script = list[Step]


@dataclass(eq=False)
class Task:
    uid: int
    tessera: Tessera
    script: Script
    inside: list[int]
    next: int = 0  # of the script
    started: bool = False
    ended: bool = False
    waits_for: list[Task] = field(default_factory=list)
    timed: bool = False
    stamp: int = 0
    wanted: list[Task] = field(default_factory=list)

    @property
    def blocked(self) -> bool:
        return bool(self.waits_for)


@dataclass(eq=False)
class Tessera:
    uid: int
    at: Worker
    plain: bool
    queue: deque[Task] = field(default_factory=deque)
    running: Task | None = None


class Worker:
    """One process; also the ``Port`` of its CycleState."""

    def __init__(self, world: World, incarnation: int) -> None:
        self.world = world
        self.incarnation = incarnation
        self.stack: list[Task] = []
        self.handed: list[Task] = []
        self.state = CycleState(self)

    # -- the main thread ---------------------------------------------------------------

    def may_run(self) -> Task | None:
        """What the main thread would take up now."""
        top = self.stack[-1] if self.stack else None
        if top is None:
            return self.handed[0] if self.handed else None
        if not top.blocked:
            return None
        return next((t for t in self.handed if self._needed(t, top)), None)

    def _needed(self, task: Task, top: Task) -> bool:
        if any(task.tessera is below.tessera for below in self.stack):
            return False
        return (
            task.tessera is top.waits_for[0].tessera
            or top.uid in task.inside
            or any(w.tessera is task.tessera and not w.started for w in top.wanted)
        )

    # -- core.cycles.Port --------------------------------------------------------------

    def outbox(self, incarnation: int) -> Any:
        return _Outbox(self.world, self.incarnation, incarnation)

    def vertex(self, uid: int, strict: bool) -> Vertex | None:
        task = self.world.tasks[uid]
        if task.ended:
            return None
        edges: list[Edge] = []
        kind = cycles.BLOCKED if task.tessera.plain else cycles.AWAITS
        if task in self.stack and task is not self.stack[-1]:
            above = self.stack[self.stack.index(task) + 1]
            edges.append(Edge(above.uid, self.incarnation, cycles.UNDER))
            kind = cycles.BELOW
        for other in task.waits_for:
            owner = other.tessera.at.incarnation
            edges.append(Edge(other.uid, owner, kind, task.stamp, not task.timed))
        if not task.started:
            before = task.tessera.running
            holder = [t for t in self.stack if t.tessera is task.tessera]
            if not task.tessera.plain and before is not None:
                edges.append(Edge(before.uid, self.incarnation, cycles.QUEUED))
            elif holder:
                edges.append(Edge(holder[-1].uid, self.incarnation, cycles.QUEUED))
            elif task.tessera.plain and self.stack:
                top = self.stack[-1].uid
                edges.append(Edge(top, self.incarnation, cycles.THREAD))
        return Vertex(str(uid), task.tessera.uid, edges, len(task.inside))

    def run_under(self, uid: int, top: int) -> None:
        self.world.tasks[top].wanted.append(self.world.tasks[uid])

    def refuse(self, uid: int, stamp: int, text: str) -> None:
        task = self.world.tasks[uid]
        if task.blocked and task.stamp == stamp and not task.ended:
            is_one = self.world.is_in_a_circle(task)
            # Or was one, until another call in it was told of another circle.
            assert is_one or (uid, stamp) in self.world.broken, text
            self.world.refuse(task)


class _Outbox:
    def __init__(self, world: World, sender: int, receiver: int) -> None:
        self._queue = world.links.setdefault((sender, receiver), deque())

    def send(self, message: Any, payload: Any = None) -> None:
        self._queue.append(message)


class World:
    """A cluster that runs one program."""

    def __init__(self, seed: int, places: list[tuple[int, bool]]) -> None:
        self.random = random.Random(seed)
        count = max(place for place, _ in places) + 1
        self.workers = [Worker(self, i) for i in range(count)]
        # The first is called by no other: it was made last.
        self.tesserae = [
            Tessera(len(places) - i, self.workers[place], plain)
            for i, (place, plain) in enumerate(places)
        ]
        self.tasks: dict[int, Task] = {}
        self.links: dict[tuple[int, int], deque[Any]] = {}
        self.now_s = 0.0
        self.refused = 0
        self.broken: set[tuple[int, int]] = set()  # waits that were in a circle
        self._stamps = 0

    def call(self, tessera: int, script: Script, caller: Task | None = None) -> Task:
        where = self.tesserae[tessera]
        inside = [] if caller is None else [*caller.inside, caller.uid]
        task = Task(len(self.tasks) + 1, where, script, inside)
        self.tasks[task.uid] = task
        (where.at.handed if where.plain else where.queue).append(task)
        return task

    def refuse(self, task: Task) -> None:
        """Its wait has raised CycleError, and so does the method."""
        for other in self.tasks.values():
            if other.blocked and self.is_in_a_circle(other):
                self.broken.add((other.uid, other.stamp))
        self.refused += 1
        task.script, task.next = [], 0
        task.waits_for = []
        if not task.tessera.plain or task is task.tessera.at.stack[-1]:
            self._end(task)
        # Else it was the top of its stack when it was found, and it raises when what
        # its thread has begun since has ended.

    def _end(self, task: Task) -> None:
        task.ended = True
        if task.tessera.plain:
            assert task.tessera.at.stack.pop() is task
        else:
            task.tessera.running = None
        for other in self.tasks.values():
            if task in other.waits_for:
                other.waits_for.remove(task)

    # -- what may happen next ----------------------------------------------------------

    def moves(self) -> list[Any]:
        """All that can happen next but looks, each as a function."""
        found: list[Any] = []
        for worker in self.workers:
            task = worker.may_run()
            if task is not None:
                found.append(lambda w=worker, t=task: self._take(w, t))
            if worker.stack and not worker.stack[-1].blocked:
                found.append(lambda t=worker.stack[-1]: self._step(t))
        for tessera in self.tesserae:
            running = tessera.running
            if running is None and tessera.queue:
                found.append(lambda t=tessera: self._take_coroutine(t))
            elif running is not None and not running.blocked:
                found.append(lambda t=running: self._step(t))
        for (_, to), queue in self.links.items():
            if queue:
                found.append(partial(self._deliver, queue, self.workers[to]))
        return found

    def timeouts(self) -> list[Task]:
        def is_top(task: Task) -> bool:
            return not task.tessera.plain or task is task.tessera.at.stack[-1]

        return [t for t in self.tasks.values() if t.blocked and t.timed and is_top(t)]

    def _take(self, worker: Worker, task: Task) -> None:
        worker.handed.remove(task)
        worker.stack.append(task)
        task.started = True

    def _take_coroutine(self, tessera: Tessera) -> None:
        tessera.running = task = tessera.queue.popleft()
        task.started = True

    def _step(self, task: Task) -> None:
        if task.next == len(task.script):
            self._end(task)
            return
        how, targets = task.script[task.next]
        task.next += 1
        calls = [self.call(tessera, script, task) for tessera, script in targets]
        if how == FIRE:
            return
        if how == ALL and task.tessera.plain:
            how, calls = WAIT, calls[:1]
        elif how != ALL:
            calls = calls[:1]
        stack = task.tessera.at.stack
        theirs = [t.tessera for t in stack]
        if task.tessera.plain and any(c.tessera in theirs for c in calls):
            self.refuse(task)  # as the executor sees at once
            return
        self._stamps += 1
        task.stamp = self._stamps
        task.timed = how == TIMED
        task.wanted = []
        task.waits_for = calls

    def _deliver(self, queue: deque[Any], to: Worker) -> None:
        message = queue.popleft()
        if isinstance(message, Circle):
            to.state.circle(message)
        else:
            to.state.waiting(message)

    def look(self) -> None:
        self.now_s += self.random.choice([0.05, 0.3, 5.0])
        for worker in self.workers:
            waits = [
                (t.uid, t.stamp)
                for t in self.tasks.values()
                if t.blocked
                and t.tessera.at is worker
                and (not t.tessera.plain or t is worker.stack[-1])
            ]
            worker.state.look(waits, self.now_s)

    # -- what is true ------------------------------------------------------------------

    def is_in_a_circle(self, origin: Task) -> bool:
        """All waits of this moment, as nobody in the cluster can see them at once."""
        todo, seen = [origin.uid], set()
        while todo:
            uid = todo.pop()
            vertex = self.tasks[uid].tessera.at.vertex(uid, strict=True)
            for edge in () if vertex is None else vertex.edges:
                if edge.certain and edge.kind != cycles.THREAD:
                    if edge.to == origin.uid:
                        return True
                    if edge.to not in seen:
                        seen.add(edge.to)
                        todo.append(edge.to)
        return False

    def run(self, limit: int = 20_000) -> None:
        """To the end of all calls; what is stuck gets looked at again and again."""
        idle = 0
        for _ in range(limit):
            if all(task.ended for task in self.tasks.values()):
                return
            moves = self.moves()
            waiting = sum(map(len, self.links.values()))
            if not moves or (waiting < 20 and self.random.random() < 0.1):
                self.look()
                idle = 0 if moves else idle + 1
                late = self.timeouts()
                if late and (idle > 20 or self.random.random() < 0.1):
                    self.random.choice(late).waits_for = []
                    idle = 0
                assert idle < 60, "it stands still"
            else:
                self.random.choice(moves)()
        raise AssertionError("it does not end")


def scripts(dice: random.Random, count: int, first: int, order: bool) -> Any:
    """A method that calls tesserae from the first on, which do the same."""

    def script(above: int, depth: int) -> Script:
        first = above + 1 if order else 0
        if depth == 0 or first >= count:
            return []
        return [
            (
                dice.choice([FIRE, WAIT, WAIT, WAIT, TIMED, ALL]),
                [
                    (target, script(target, depth - 1))
                    for target in dice.choices(
                        range(first, count), k=dice.randint(1, 2)
                    )
                ],
            )
            for _ in range(dice.randint(0, 2))
        ]

    return first, script(first, 4)


def program(dice: random.Random, *, order: bool) -> tuple[list[tuple[int, bool]], Any]:
    """Where the tesserae are, whether their methods are plain, what is called."""
    count = dice.randint(2, 6)
    workers = dice.randint(1, 4)
    plain = dice.choice([0.0, 0.5, 0.8, 1.0])
    places = [(dice.randrange(workers), dice.random() < plain) for _ in range(count)]
    calls = [
        scripts(dice, count, dice.randrange(count), order)
        for _ in range(dice.randint(1, 5))
    ]
    return places, calls


def run(places: list[tuple[int, bool]], calls: Any, seed: int) -> World:
    world = World(seed, places)
    for tessera, script in calls:
        world.call(tessera, script)
    world.run()
    return world


@given(seed=st.integers(0, 2**64))
@settings(deadline=None, max_examples=300)
def test_a_program_without_circles_ends_and_never_sees_one(seed: int) -> None:
    """Its tesserae call only such as were made before them."""
    assert run(*program(random.Random(seed), order=True), seed).refused == 0


@given(seed=st.integers(0, 2**64))
@settings(deadline=None, max_examples=300)
def test_no_program_stands_still_and_only_who_is_in_a_circle_is_told(seed: int) -> None:
    """That each who is told is in one at that moment is asserted by the model."""
    run(*program(random.Random(seed), order=False), seed)


@pytest.mark.parametrize("plain", [[True] * 4, [False] * 4, [True, False] * 2])
@pytest.mark.parametrize("length", [2, 3, 4])
def test_a_certain_circle_is_always_told_to_exactly_one(
    plain: list[bool], length: int
) -> None:
    places = [(i, plain[i]) for i in range(length)]
    body: Script = []
    for index in reversed(range(1, length + 1)):
        body = [(WAIT, [(index % length, body)])]
    for seed in range(20):
        assert run(places, [(0, body)], seed).refused == 1


class Ring:
    """The ``Port`` of so many calls of one runtime, each of which awaits the next."""

    incarnation = 1

    def __init__(self, length: int) -> None:
        self._length = length
        self.refused: list[int] = []

    def outbox(self, incarnation: int) -> Any:
        raise AssertionError("all of them are here")

    def vertex(self, uid: int, strict: bool) -> Vertex:
        following = (uid + 1) % self._length
        return Vertex(str(uid), uid, [Edge(following, 1, cycles.AWAITS)])

    def run_under(self, uid: int, top: int) -> None:
        raise AssertionError("there are no threads")

    def refuse(self, uid: int, stamp: int, text: str) -> None:
        self.refused.append(uid)


@pytest.mark.parametrize(("length", "told"), [(250, [249]), (251, [])])
def test_a_circle_of_more_waits_than_docs_failures_says_is_not_told(
    length: int, told: list[int]
) -> None:
    ring = Ring(length)
    state = CycleState(ring)
    for now_s in (0.0, 1.0, 2.0):
        state.look([(0, 0)], now_s)
    assert ring.refused == told


def test_a_ring_of_main_threads_is_no_circle() -> None:
    for count in range(2, 6):
        # Each of the first half waits for a leaf on the next worker.
        places = [(i, True) for i in range(count)] * 2
        calls: Any = [
            (i, [(WAIT, [(count + (i + 1) % count, [])])]) for i in range(count)
        ]
        for seed in range(20):
            assert run(places, calls, seed).refused == 0


def test_the_text_names_who_waits_for_whom_and_what_to_do() -> None:
    hops = [
        Hop(1, 1, cycles.AWAITS, 1, 1, True, 0, "A#1.f"),
        Hop(2, 2, cycles.BLOCKED, 1, 2, True, 1, "B#2.g"),
        Hop(3, 1, cycles.QUEUED, 0, 1, True, 2, "A#1.h"),
    ]
    text = in_words(hops)
    assert (
        "A#1.f waits for B#2.g, which waits for A#1.h, which is queued behind A#1.f"
        in text
    )
    assert "is_async=True" in text
