"""Versions of parameters: the table, and copies, roots and answers in all orders."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mosaic_like.core.versions import (
    VERDICTS,
    CopyState,
    CopyVersions,
    Operation,
    RootVersions,
    Verdict,
    verdict,
)

NAMES = ("x", "y")


@pytest.mark.parametrize(
    ("base", "newest", "changed", "state"),
    [
        (2, 2, False, CopyState.CLEAN),
        (2, 3, False, CopyState.BEHIND),
        (2, 2, True, CopyState.CHANGED),
        (2, 3, True, CopyState.CONFLICT),
    ],
)
def test_a_state_is_what_was_changed_here_and_what_is_known_of_the_root(
    base: int, newest: int, changed: bool, state: CopyState
) -> None:
    copy = CopyVersions({})
    copy.taken({"x": base})
    copy.learned({"x": newest})
    assert copy.state("x", changed) is state


def test_an_attribute_that_only_a_copy_has_is_changed() -> None:
    assert CopyVersions({}).state("x", True) is CopyState.CHANGED


def test_every_operation_has_a_verdict_for_every_state() -> None:
    assert set(VERDICTS) == set(Operation)
    assert all(len(row) == len(CopyState) for row in VERDICTS.values())


@pytest.mark.parametrize("operation", list(Operation))
def test_a_conflict_is_an_error_of_every_operation(operation: Operation) -> None:
    assert verdict(operation, CopyState.CONFLICT) is Verdict.CONFLICT


def test_nothing_old_or_unsaid_is_passed_on_or_overwritten_in_silence() -> None:
    assert verdict(Operation.SET, CopyState.BEHIND) is Verdict.STALE
    assert verdict(Operation.PUSH, CopyState.BEHIND) is Verdict.STALE
    assert verdict(Operation.SEND, CopyState.CHANGED) is Verdict.STALE


def test_judging_sorts_the_attributes_by_what_is_to_be_done() -> None:
    copy = CopyVersions({})
    copy.taken({"a": 1, "b": 1, "c": 1, "d": 1})
    copy.learned({"c": 2, "d": 2})
    assert copy.judge(Operation.PULL, ["d", "c", "b", "a"], {"b", "d"}) == {
        Verdict.NOTHING: ["a", "b"],
        Verdict.GO: ["c"],
        Verdict.CONFLICT: ["d"],
    }


def test_what_one_copy_hears_the_others_of_its_runtime_know() -> None:
    newest: dict[str, int] = {}
    one, other = CopyVersions(newest), CopyVersions(newest)
    one.taken({"x": 1})
    other.taken({"x": 1})
    assert one.learned({"x": 2})
    assert other.state("x", False) is CopyState.BEHIND
    assert not other.learned({"x": 2})  # no news


def test_an_old_answer_never_takes_a_copy_backwards() -> None:
    copy = CopyVersions({})
    copy.taken({"x": 5})
    copy.taken({"x": 3})
    assert copy.base == {"x": 5}


def test_the_root_refuses_a_write_of_a_copy_that_is_behind() -> None:
    root = RootVersions(["x", "y"])
    assert root.wrote(["x"], writer=7) == {"x": 2}
    assert root.behind(["x", "y"], {"x": 1, "y": 1}, writer=8) == ["x"]
    assert root.behind(["x", "y"], {"x": 2, "y": 1}, writer=8) == []


def test_the_root_takes_a_second_write_before_the_first_was_answered() -> None:
    root = RootVersions(["x"])
    root.wrote(["x"], writer=7)
    assert root.behind(["x"], {"x": 1}, writer=7) == []
    root.wrote(["x"], writer=8)
    assert root.behind(["x"], {"x": 1}, writer=7) == ["x"]


def test_a_change_by_the_root_itself_is_nobodys_write() -> None:
    root = RootVersions(["x"])
    root.wrote(["x"], writer=7)
    root.wrote(["x"])
    assert root.behind(["x"], {"x": 1}, writer=7) == ["x"]


def test_the_root_tells_what_a_copy_lacks() -> None:
    root = RootVersions(["x", "y"])
    root.wrote(["y", "new"])
    assert root.newer({"x": 1, "y": 1}) == {"y": 2, "new": 2}
    assert root.newer({}) == {"x": 1, "y": 2, "new": 2}


def test_writing_nothing_is_no_new_version() -> None:
    root = RootVersions(["x"])
    assert root.wrote([]) == {}
    assert root.version == 1


class _Copy:
    """A copy with values; a value is a number that nobody else ever wrote."""

    def __init__(self, uid: int, newest: dict[str, int]) -> None:
        self.uid = uid
        self.versions = CopyVersions(newest)
        self.values = dict.fromkeys(NAMES, 0)
        self.base_values = dict.fromkeys(NAMES, 0)
        # Of each attribute, the value of the root that what is here was made from.
        self.seen: dict[str, set[int]] = {name: {0} for name in NAMES}
        self.versions.taken(dict.fromkeys(NAMES, 1))

    @property
    def changed(self) -> set[str]:
        return {n for n in NAMES if self.values[n] != self.base_values[n]}


class Copies(RuleBasedStateMachine):
    """Three copies in two runtimes; what goes between them and the root is in order."""

    def __init__(self) -> None:
        super().__init__()
        self.root = RootVersions(NAMES)
        self.root_values = dict.fromkeys(NAMES, 0)
        self.newest: list[dict[str, int]] = [{}, {}]
        self.copies = [_Copy(i + 1, self.newest[i // 2]) for i in range(3)]
        self.to_root: list[deque[Any]] = [deque(), deque()]
        self.to_copy: list[deque[Any]] = [deque(), deque()]
        self.written = 0

    def _value(self) -> int:
        self.written += 1
        return self.written

    @rule(which=st.integers(0, 2), name=st.sampled_from(NAMES))
    def change(self, which: int, name: str) -> None:
        self.copies[which].values[name] = self._value()

    @rule(which=st.integers(0, 2), names=st.sets(st.sampled_from(NAMES), min_size=1))
    def push(self, which: int, names: set[str]) -> None:
        copy = self.copies[which]
        found = copy.versions.judge(Operation.PUSH, names, copy.changed)
        if Verdict.STALE in found or Verdict.CONFLICT in found:
            return
        go = found.get(Verdict.GO, [])
        values = {name: copy.values[name] for name in go}
        bases = {name: copy.versions.base[name] for name in go}
        copy.base_values.update(values)
        seen = {name: set(copy.seen[name]) for name in go}
        for name in go:
            copy.seen[name].add(values[name])
        self.to_root[which // 2].append(("push", copy, values, bases, seen))

    @rule(which=st.integers(0, 2))
    def pull(self, which: int) -> None:
        copy = self.copies[which]
        self.to_root[which // 2].append(("pull", copy, dict(copy.versions.base)))

    @rule(name=st.sampled_from(NAMES))
    def method_at_the_root(self, name: str) -> None:
        self.root_values[name] = self._value()
        self.root.wrote([name])

    @rule(runtime=st.integers(0, 1))
    def reaches_the_root(self, runtime: int) -> None:
        if not self.to_root[runtime]:
            return
        kind, copy, *rest = self.to_root[runtime].popleft()
        answer: Any
        if kind == "push":
            values, bases, seen = rest
            behind = self.root.behind(values, bases, copy.uid)
            if behind:
                answer = "refused", {n: self.root.versions[n] for n in behind}, values
            else:
                for name in values:  # nobody's write is lost
                    assert self.root_values[name] in seen[name]
                self.root_values.update(values)
                answer = "written", self.root.wrote(values, copy.uid), values
        else:
            versions = self.root.newer(rest[0])
            answer = "state", versions, {n: self.root_values[n] for n in versions}
        self.to_copy[runtime].append((copy, *answer))

    @rule(runtime=st.integers(0, 1))
    def reaches_the_copy(self, runtime: int) -> None:
        if not self.to_copy[runtime]:
            return
        copy, kind, versions, values = self.to_copy[runtime].popleft()
        if kind == "written":
            copy.versions.taken(versions)
        elif kind == "refused":
            for name in values:
                copy.base_values[name] = -1  # differs from whatever is here
            copy.versions.learned(versions)
        else:
            copy.versions.learned(versions)
            found = copy.versions.judge(Operation.PULL, versions, copy.changed)
            if Verdict.CONFLICT in found:
                return
            for name in found.get(Verdict.GO, []):
                copy.values[name] = copy.base_values[name] = values[name]
                copy.seen[name] = {values[name]}
                copy.versions.taken({name: versions[name]})

    @invariant()
    def what_is_clean_and_newest_is_the_roots(self) -> None:
        for index, copy in enumerate(self.copies):
            if any(self.to_root) or any(self.to_copy):
                continue
            for name in NAMES:
                state = copy.versions.state(name, name in copy.changed)
                if (
                    state is CopyState.CLEAN
                    and self.newest[index // 2].get(name, 1) == self.root.versions[name]
                ):
                    assert copy.values[name] == self.root_values[name]

    @invariant()
    def nobody_has_what_the_root_has_not(self) -> None:
        for copy in self.copies:
            for name in NAMES:
                assert copy.versions.base[name] <= self.root.versions[name]


Copies.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestCopies = Copies.TestCase
