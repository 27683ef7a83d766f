"""The whole cluster in every order of delivery: what a user may rely on.

The cluster is in ``simulation.py``. Two programs make, call, pass, drop and cancel;
hypothesis chooses what they do, what is delivered next, and when a worker is lost.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import (
    LARGE_PART,
    MISSING,
    Proxy,
    Runtime,
    TaskProxy,
    TesseraProxy,
    World,
)

from mosaic_like.comms import messages as wire
from mosaic_like.core.task import DONE

if TYPE_CHECKING:
    from collections.abc import Callable

CHOICES = st.binary(min_size=30, max_size=600)
KEYS = ("a", LARGE_PART, MISSING)
OPS = ("add", "add", "add", "fail", "large", "keep", "drop", "give", "relay", "make")


class Program:
    """What the user of one head holds, and does."""

    def __init__(self, world: World, runtime: Runtime) -> None:
        self.world = world
        self.runtime = runtime
        self.tesserae: list[TesseraProxy] = []
        self.tasks: list[TaskProxy] = []

    def do(self, draw: Callable[[int], int]) -> None:
        """One line of the program; ``draw(n)`` chooses one of n."""
        kind = draw(12)
        if kind == 0 or not self.tesserae:
            where = self.world.workers[draw(len(self.world.workers))]
            self.tesserae.append(self.runtime.create(where, self._some(draw)))
        elif kind <= 6:
            self._call(draw)
        elif kind == 7 and self.tasks:
            self.runtime.cancel(self.tasks[draw(len(self.tasks))])
        elif kind == 8 and self.tasks:
            self.runtime.watch(self.tasks[draw(len(self.tasks))])
        elif kind == 9:
            self._take(draw)
        elif kind == 10 and self.tasks:
            del self.tasks[draw(len(self.tasks))]
        elif kind == 11:
            self._end_one(draw)

    def _some(self, draw: Callable[[int], int]) -> list[Proxy]:
        """Arguments: up to two of what the program holds."""
        have: list[Proxy] = [*self.tesserae[-3:], *self.tasks[-4:]]
        return [have[draw(len(have))] for _ in range(draw(3)) if have]

    def _call(self, draw: Callable[[int], int]) -> None:
        target = self.tesserae[draw(len(self.tesserae))]
        arguments = self._some(draw)
        parts = [(i, KEYS[draw(len(KEYS))]) for i in range(len(arguments)) if draw(2)]
        task = self.runtime.call(
            target,
            ("plain", "co")[draw(2)],
            OPS[draw(len(OPS))],
            arguments,
            ordered=bool(draw(5)),
            outputs=parts,
        )
        self.tasks.append(task)

    def _take(self, draw: Callable[[int], int]) -> None:
        """Take what the value of a task mentions."""
        if not self.tasks:
            return
        for proxy in self.runtime.values(self.tasks[draw(len(self.tasks))]):
            if isinstance(proxy, TaskProxy):
                self.tasks.append(proxy)
            else:
                self.tesserae.append(proxy)

    def _end_one(self, draw: Callable[[int], int]) -> None:
        index = draw(len(self.tesserae))
        how = draw(4)
        if how < 2:
            del self.tesserae[index]
        else:
            kind = wire.CLOSE if how == 2 else wire.KILL
            target = self.tesserae[index]
            self.tasks.append(self.runtime.call(target, "co", "close", kind=kind))

    def end(self) -> None:
        self.tesserae.clear()
        self.tasks.clear()


def play(choices: bytes, world: World, crash: bool) -> None:
    """Run the programs; each byte is a choice, and when there is none left they end."""
    programs = [Program(world, world.runtimes[head]) for head in world.heads]
    left = deque(choices)

    def draw(count: int) -> int:
        return left.popleft() % count if left and count > 1 else 0

    while left:
        moves = world.moves()
        what = draw(10)
        if what < 4 or not moves:
            programs[draw(len(programs))].do(draw)
        elif what == 4 and crash and not world.crashed and draw(2):
            world.crash(world.workers[draw(len(world.workers))])
        elif what == 5:
            world.live[draw(len(world.live))].tick()
        else:
            world.move(moves[draw(len(moves))])
    world.settle()
    check_calls(world)
    for program in programs:
        program.end()
    for thing in world.objects.values():
        thing.kept.clear()  # circles of tesserae are not collected
    world.settle()
    for runtime in world.live:
        left_over = runtime.left_over()
        assert not left_over, f"left at {runtime.incarnation}: {left_over}"


def check_calls(world: World) -> None:
    """All have ended, each once, and the values are those of the objects."""
    values: dict[int, list[int]] = {}
    for runtime in world.live:
        for uid, call in runtime.made.items():
            assert call.settled, f"{call.method} has not ended"
            assert runtime.ends[uid] == 1
            if call.state == DONE and type(call.result) is bytes:
                value = json.loads(call.result) if call.result[:1].isdigit() else None
                if isinstance(value, int):
                    values.setdefault(call.stream.tessera, []).append(value)
        runtime.made.clear()  # and what their results mention
    for uid, found in values.items():
        thing = world.objects[uid]
        assert len(set(found)) == len(found) <= thing.finished <= thing.added
        assert max(found) <= thing.added


@settings(
    max_examples=300,
    deadline=None,
)
@given(CHOICES)
def test_every_call_ends_once_and_nothing_is_left(choices: bytes) -> None:
    play(choices, World(heads=2, workers=2), crash=False)


@settings(
    max_examples=300,
    deadline=None,
)
@given(CHOICES)
def test_every_call_ends_once_and_nothing_is_left_when_a_worker_is_lost(
    choices: bytes,
) -> None:
    play(choices, World(heads=1, workers=3), crash=True)


@settings(
    max_examples=100,
    deadline=None,
)
@given(CHOICES, st.booleans())
def test_nobody_hears_whether_ended_calls_were_put_aside(
    choices: bytes, crash: bool
) -> None:
    said = []
    for aside in (True, False):
        world = World(heads=1, workers=3) if crash else World(heads=2, workers=2)
        world.puts_aside = aside
        play(choices, world, crash)
        said.append(world.sent)
    assert said[0] == said[1]


@pytest.mark.parametrize("count", [1, 3000])
def test_a_counter_counts_the_calls_of_two_programs(count: int) -> None:
    world = World(heads=1, workers=1)
    runtime = world.runtimes[2]
    counter = runtime.create(3)
    tasks = [runtime.call(counter, "plain", "add") for _ in range(count)]
    world.settle()
    assert [json.loads(t.call.result) for t in tasks] == list(range(1, count + 1))
    tasks.clear()
    del counter
    world.settle()
    assert [r.left_over() for r in world.live] == [{}, {}]
