"""Copies of a parameter and their root, with answers that come and are taken late.

The real ``Replica`` and ``ParameterRoot`` are joined by a fake runtime, whose messages
keep their order and wait until they are let through.
"""

from __future__ import annotations

import itertools
import pickle
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mosaic_like.core.task import DONE, FAILED
from mosaic_like.core.versions import CopyState
from mosaic_like.errors import ConflictError, StaleError
from mosaic_like.proxies.copies import _classes
from mosaic_like.proxies.parameter import Parameter
from mosaic_like.proxies.replica import Replica
from mosaic_like.proxies.root import OWN_SLOT, ParameterRoot, attributes_of, marks_of

if TYPE_CHECKING:
    from mosaic_like.proxies.exchange import Exchange

NAMES = ("x", "y")


class Thing:
    """Two attributes, one of which is changed in place."""

    def __init__(self) -> None:
        self.x = 0
        self.y = [0]

    def become(self, name: str, value: int) -> int:
        setattr(self, name, value if name == "x" else [value])
        return value


def _value(thing: Any, name: str) -> int:
    value = vars(thing)[name]
    return value if name == "x" else value[0]


class _Task:
    """A call of the root; its own ``_call``."""

    rare = None

    def __init__(self, runtime: _Runtime, method: str, args: tuple[Any, ...]) -> None:
        self._runtime = runtime
        self._call = self
        self.method = method
        self.args = pickle.loads(pickle.dumps(args))
        self.state = 0
        self.value: Any = None
        self.error: BaseException | None = None

    def get(self, timeout: float | None = None) -> Any:
        while self.state < DONE:
            self._runtime.run_one()
            self._runtime.answer_one()
        if self.error is not None:
            raise self.error
        return self.value


class _Runtime:
    """One of those with copies."""

    def __init__(
        self, root: ParameterRoot, world: Copies | None, first_uid: int = 1
    ) -> None:
        self.root = root
        self.world = world
        self.incarnation = 1
        self.uids = itertools.count(first_uid)
        self.records: WeakValueDictionary[int, Any] = WeakValueDictionary()
        self.asked: deque[_Task] = deque()
        self.ran: deque[_Task] = deque()
        self.proxy: Any = SimpleNamespace(
            _mosaic_handle=SimpleNamespace(
                runtime=self, uid=1, stream=SimpleNamespace(label="root")
            ),
            **{n: self._caller(n) for n in ("write", "read", "get", "run")},
        )

    def _caller(self, method: str) -> Any:
        def call(*args: Any) -> _Task:
            task = _Task(self, method, args)
            self.asked.append(task)
            return task

        return call

    def run_one(self) -> None:
        if not self.asked:
            return
        task = self.asked.popleft()
        if self.world is not None:
            self.world.before_run(task)
        try:
            value = getattr(self.root, task.method)(*task.args)
            task.value = pickle.loads(pickle.dumps(value))
        except Exception as error:
            task.error = error
        if self.world is not None:
            self.world.after_run(task)
        self.ran.append(task)

    def answer_one(self) -> None:
        if self.ran:
            task = self.ran.popleft()
            task.state = DONE if task.error is None else FAILED

    def is_away(self, call: _Task) -> bool:
        return False

    def value_of(self, call: _Task) -> Any:
        return call.value

    def error_of(self, call: _Task) -> Any:
        return call.error


def _copy(runtime: _Runtime, cached: bool = False) -> Any:
    thing: Any = _classes(Thing)[0]()
    replica = Replica(runtime.proxy, Thing, cached)
    values = attributes_of(thing)
    replica.versions.taken(dict.fromkeys(values, 1))
    replica.marks = marks_of(values)
    object.__setattr__(thing, OWN_SLOT, replica)
    return thing


def _replica(thing: Any) -> Replica:
    return object.__getattribute__(thing, OWN_SLOT)


@pytest.fixture
def runtime() -> _Runtime:
    return _Runtime(ParameterRoot(Thing, {"x": 0, "y": [0]}), None)


def test_an_answer_that_is_awaited_late_does_not_bring_back_an_old_value(
    runtime: _Runtime,
) -> None:
    one, two = _copy(runtime), _copy(runtime)
    two.x = 1
    two.push().get()
    late = one.pull()
    one.x = 2
    one.push(force=True).get()
    late.get()
    assert one.x == 2
    assert one.copy_states()["x"] is CopyState.CLEAN


def test_neither_does_one_that_is_older_than_what_is_known_by_then(
    runtime: _Runtime,
) -> None:
    one, two = _copy(runtime), _copy(runtime)
    two.set("x", 1).get()
    late = one.pull()
    one.set("x", 2, force=True).get()
    two.set("x", 3, force=True).get()
    late.get()
    assert one.x == 2
    assert one.copy_states()["x"] is CopyState.BEHIND


def test_neither_does_one_that_discards(runtime: _Runtime) -> None:
    one, two = _copy(runtime), _copy(runtime)
    two.set("x", 1).get()
    late = one.pull(discard=True)
    one.set("x", 2, force=True).get()
    late.get()
    assert one.x == 2


def test_a_pull_does_not_take_back_a_change_that_was_made_meanwhile(
    runtime: _Runtime,
) -> None:
    one, two = _copy(runtime), _copy(runtime)
    two.become("y", 5)
    two.push().get()
    pulling = one.pull()
    one.y[0] = 9
    one.x = 3
    with pytest.raises(ConflictError) as caught:
        pulling.get()
    assert caught.value.attributes == ("y",)
    assert (one.x, one.y) == (3, [9])


def test_a_pull_does_not_take_back_what_was_pushed_meanwhile(runtime: _Runtime) -> None:
    other = _Runtime(runtime.root, None, 1000)  # what it does is not known here
    one, two = _copy(runtime), _copy(other)
    two.set("x", 1).get()
    pulling = one.pull()
    one.set("x", 2)  # will be refused, but nobody knows that yet
    with pytest.raises(ConflictError):
        pulling.get()
    assert one.x == 2
    runtime.run_one()
    runtime.answer_one()
    assert one.copy_states()["x"] is CopyState.CONFLICT


def test_a_refused_write_that_nobody_awaited_is_known_to_be_changed(
    runtime: _Runtime,
) -> None:
    one = _copy(runtime)
    runtime.root.write(99, {"y": [7]}, [], {"y": 1}, False)  # by another runtime
    one.y = [8]
    one.push("y")
    assert one.copy_states()["y"] is CopyState.CLEAN  # as far as known here
    runtime.run_one()
    runtime.answer_one()
    assert one.copy_states()["y"] is CopyState.CONFLICT


def test_a_cached_copy_asks_once_until_there_is_news(runtime: _Runtime) -> None:
    one, two = _copy(runtime, cached=True), _copy(runtime)
    first = _replica(one).send(one)
    assert _replica(one).send(one) is first
    two.set("x", 1)
    second = _replica(one).send(one)
    assert second is not first
    assert _replica(one).send(one) is second


class Copies(RuleBasedStateMachine):
    """Three copies in two runtimes; each value is written once, so it tells who."""

    def __init__(self) -> None:
        super().__init__()
        root = ParameterRoot(Thing, {"x": 0, "y": [0]})
        self.root = root
        self.runtimes = [_Runtime(root, self), _Runtime(root, self, 1000)]
        self.things = [_copy(self.runtimes[i // 2], cached=i != 1) for i in range(3)]
        self.owner = {_replica(t).uid: i for i, t in enumerate(self.things)}
        self.written = 0
        self.history = {name: {0} for name in NAMES}  # of the root
        self.seen = [{name: {0} for name in NAMES} for _ in self.things]
        # What a user has changed and no push has carried away yet.
        self.dirty: list[dict[str, int]] = [{} for _ in self.things]
        self.refused: set[int] = set()
        self.sent: dict[int, dict[str, int]] = {}  # by id of the snapshot task
        self.late: list[tuple[int, Exchange[Any], bool]] = []
        self.before: dict[str, int] = {}

    def _new(self) -> int:
        self.written += 1
        return self.written

    def _root_value(self, name: str) -> int:
        return _value(self.root._thing, name)

    def _note(self) -> None:
        for thing, seen in zip(self.things, self.seen, strict=True):
            for name in NAMES:
                seen[name].add(_value(thing, name))

    def _unspoilt(self, which: int) -> None:
        """No pull has taken away what a user has changed."""
        for name, value in self.dirty[which].items():
            assert _value(self.things[which], name) == value

    # -- the root ----------------------------------------------------------------------

    def before_run(self, task: _Task) -> None:
        self.before = {name: self._root_value(name) for name in NAMES}

    def after_run(self, task: _Task) -> None:
        for name in NAMES:
            self.history[name].add(self._root_value(name))
        if task.method == "write":
            writer, values, _, _, force = task.args
            which = self.owner[writer]
            if task.error is not None:
                self.refused.add(which)
            for name in values:
                if task.error is None and not force:  # nobody's write is lost
                    assert self.before[name] in self.seen[which][name]
        if task.method == "read" and id(task) in self.sent:
            which, values = self.sent[id(task)].pop("which"), self.sent.pop(id(task))
            if which not in self.refused:  # who gets it sees what the sender saw
                for name, value in values.items():
                    assert value in self.history[name]

    @rule(which=st.integers(0, 1))
    def root_runs(self, which: int) -> None:
        self.runtimes[which].run_one()

    @rule(which=st.integers(0, 1))
    def answer_comes(self, which: int) -> None:
        self.runtimes[which].answer_one()

    # -- the copies --------------------------------------------------------------------

    @rule(which=st.integers(0, 2), name=st.sampled_from(NAMES))
    def change(self, which: int, name: str) -> None:
        value = self.dirty[which][name] = self._new()
        thing = self.things[which]
        if name == "x":
            thing.x = value
        else:
            thing.y[0] = value
        self._note()

    @rule(which=st.integers(0, 2), names=st.sampled_from([None, ["x"], ["x", "y"]]))
    def push(self, which: int, names: list[str] | None) -> None:
        try:
            exchange = self.things[which].push(names)
        except StaleError:
            self._unspoilt(which)
            return
        for name in NAMES if names is None else names:
            self.dirty[which].pop(name, None)
        self.late.append((which, exchange, False))

    @rule(which=st.integers(0, 2), name=st.sampled_from(["x"]))
    def set(self, which: int, name: str) -> None:
        value = self._new()
        try:
            exchange = self.things[which].set(name, value)
        except StaleError:
            self._unspoilt(which)
            return
        self.dirty[which].pop(name, None)
        self._note()
        self.late.append((which, exchange, False))

    @rule(which=st.integers(0, 2), discard=st.booleans())
    def pull(self, which: int, discard: bool) -> None:
        exchange = self.things[which].pull(discard=discard)
        self.late.append((which, exchange, discard))

    @rule(which=st.integers(0, 2), name=st.sampled_from(NAMES))
    def propagate(self, which: int, name: str) -> None:
        try:
            exchange = self.things[which].become(name, self._new(), propagate=True)
        except StaleError:
            return
        self.late.append((which, exchange, False))

    @rule(which=st.integers(0, 2))
    def send(self, which: int) -> None:
        thing = self.things[which]
        try:
            task: Any = _replica(thing).send(thing)
        except StaleError:
            return
        for name in self.dirty[which]:
            assert which in self.refused, f"{name} was not said to be changed"
        if task.state == 0 and id(task) not in self.sent and task not in self._done():
            values = {name: _value(thing, name) for name in NAMES}
            self.sent[id(task)] = {"which": which, **values}

    def _done(self) -> list[_Task]:
        return [task for runtime in self.runtimes for task in runtime.ran]

    @rule(which=st.integers(0, 2), name=st.sampled_from(NAMES))
    def get(self, which: int, name: str) -> None:
        exchange = self.things[which].get(name)
        if exchange._tasks:
            self.late.append((which, exchange, False))
            return
        value = exchange.get()
        assert (value if name == "x" else value[0]) in self.history[name]

    @rule(index=st.integers(0, 100))
    def take_an_answer(self, index: int) -> None:
        if not self.late:
            return
        which, exchange, discard = self.late.pop(index % len(self.late))
        try:
            exchange.get()
        except StaleError:
            pass
        else:
            if discard:
                self.dirty[which].clear()
        self._unspoilt(which)
        self._note()

    @rule(index=st.integers(0, 100))
    def forget_an_answer(self, index: int) -> None:
        if self.late:
            self.late.pop(index % len(self.late))

    @invariant()
    def what_is_clean_and_newest_is_the_roots(self) -> None:
        if self.late or any(r.asked or r.ran for r in self.runtimes):
            return
        versions = self.root._versions.versions
        for thing in self.things:
            replica = _replica(thing)
            for name, state in replica.states(thing).items():
                base = replica.versions.base.get(name, 0)
                if state is CopyState.CLEAN and base == versions[name]:
                    assert _value(thing, name) == self._root_value(name)
                assert base <= versions[name]


Copies.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
TestCopies = Copies.TestCase


def test_the_methods_of_a_parameter_are_those_that_are_checked_here() -> None:
    ours = {n for n, v in vars(Parameter).items() if n[0] != "_" and callable(v)}
    assert ours == {
        "copy_states",
        "get",
        "propagate",
        "publish",
        "pull",
        "push",
        "set",
    }
