"""Who builds a tessera again, and who learns where it is, in whatever order."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_like.comms.messages import Ended, Moved, Retire, Retired
from mosaic_like.core.restarts import (
    CALM_S,
    FIRST_DELAY_S,
    MOST_DELAY_S,
    TRANSITIONS,
    Follower,
    Home,
    HomeState,
    Step,
)
from mosaic_like.errors import InvalidTransitionError

UID = 7
A, B, C = 11, 12, 13  # workers, in the order in which they are lost
FOLLOWER = 3
HOME = 1


def home(most: int = 2, within_s: float | None = None) -> Home:
    return Home(UID, most, within_s)


def started(most: int = 2, within_s: float | None = None) -> Home:
    state = home(most, within_s)
    state.placed(100, A)
    state.built()
    return state


def follower(*lost: int) -> Follower:
    return Follower(lambda incarnation: incarnation in lost)


def moved(life: int, owner: int, built: bool = False) -> Moved:
    return Moved(UID, life, 100 + life, owner, built)


def test_each_state_of_the_home_can_be_reached_and_ended() -> None:
    assert set(TRANSITIONS) == set(HomeState)
    for state, moves in TRANSITIONS.items():
        assert ("end" in moves) is (state is not HomeState.ENDED)


def test_a_life_is_told_to_all_who_follow_when_it_is_placed_and_when_it_is_built() -> (
    None
):
    state = home()
    assert state.find(FOLLOWER) == []
    assert state.placed(100, A) == [(FOLLOWER, moved(0, A))]
    assert state.built() == [(FOLLOWER, moved(0, A, built=True))]
    assert state.find(4) == [(4, moved(0, A, built=True))]


def test_the_next_life_is_made_only_after_the_loss() -> None:
    state = started()
    with pytest.raises(InvalidTransitionError):
        state.placed(101, B)
    assert state.lost(0.0) == 0.0
    state.placed(101, B)
    assert (state.life, state.owner) == (1, B)


def test_there_are_as_many_restarts_as_were_asked_for() -> None:
    state = started(most=2)
    for worker in (B, C):
        assert state.lost(0.0) is not None
        state.placed(100 + worker, worker)
    assert state.lost(0.0) is None
    state.find(FOLLOWER)
    assert state.end(b"why") == [(FOLLOWER, Ended(UID, b"why"))]
    assert state.end(b"again") == []


def test_only_restarts_within_the_time_count() -> None:
    state = started(most=1, within_s=10.0)
    assert state.lost(0.0) is not None
    state.placed(101, B)
    assert state.lost(10.0) is not None
    state.placed(102, C)
    assert state.lost(19.0) is None


def test_one_that_has_left_in_order_takes_no_restart() -> None:
    state = started(most=1)
    assert state.lost(0.0, counts=False) == 0.0
    state.placed(101, B)
    assert state.lost(0.0) == 0.0
    assert state.life == 2


def test_restarts_that_follow_each_other_wait_longer_and_longer() -> None:
    state = started(most=10_000)
    delays = []
    for life in range(1, 100):
        delays.append(state.lost(0.0))
        state.placed(100 + life, A)
    assert delays[:3] == [0.0, FIRST_DELAY_S, 2 * FIRST_DELAY_S]
    assert delays[-1] == MOST_DELAY_S
    assert state.lost(CALM_S) == 0.0


def test_what_was_closed_answers_for_itself() -> None:
    state = started()
    assert state.end(b"closed") == []
    assert state.find(FOLLOWER) == [
        (FOLLOWER, moved(0, A, built=True)),
        (FOLLOWER, Ended(UID, b"closed", closed=True)),
    ]


def test_a_follower_that_is_lost_is_told_nothing() -> None:
    state = home()
    state.find(FOLLOWER)
    state.forget(FOLLOWER)
    assert state.placed(100, A) == []


def test_the_loss_comes_first() -> None:
    state = follower()
    assert state.moved(moved(0, A)) == [Step.PLACE]
    assert state.moved(moved(0, A, built=True)) == [Step.UP]
    assert state.lost(A) == [Step.DETACH]
    assert state.moved(moved(1, B, built=True)) == [Step.PLACE, Step.UP]


def test_the_news_of_the_next_life_comes_first() -> None:
    state = follower()
    state.moved(moved(0, A))
    assert state.moved(moved(1, B)) == []
    assert state.moved(moved(1, B, built=True)) == []
    assert state.lost(A) == [Step.DETACH, Step.PLACE, Step.UP]
    assert (state.life, state.owner) == (1, B)


def test_news_of_a_life_that_is_lost_already_is_nothing() -> None:
    lost: set[int] = set()
    state = Follower(lost.__contains__)
    state.moved(moved(0, A))
    state.moved(moved(1, B))
    lost |= {A, B}
    assert state.lost(A) == [Step.DETACH]
    assert state.moved(moved(1, B)) == []
    assert state.moved(moved(2, C)) == [Step.PLACE]
    assert state.moved(moved(1, B)) == []


def test_the_end_ends_what_waits_and_not_what_lives() -> None:
    waiting = follower()
    assert waiting.ended(b"no") == [Step.END]
    assert waiting.ended(b"no") == []
    living = follower()
    living.moved(moved(0, A))
    assert living.ended(b"no") == []
    assert living.lost(A) == [Step.DETACH, Step.END]
    closed = follower()
    closed.moved(moved(0, A))
    assert closed.ended(b"closed", closed=True) == [Step.OVER]
    assert closed.lost(A) == [Step.DETACH, Step.END]


def test_a_life_that_is_ended_for_the_next_one_takes_no_restart() -> None:
    state = started(most=1)
    state.find(FOLLOWER)
    assert state.retire("why") == [
        (A, Retire(100, "why", again=True)),
        (FOLLOWER, Retired(UID, 0, "why")),
    ]
    assert state.find(4) == []  # it hears of the next one
    over = Retired(UID, 0, "why", over=True, remains=b"marks")
    assert sorted(state.retired(b"marks")) == [(FOLLOWER, over), (4, over)]
    state.placed(101, B)
    assert state.life == 1
    assert state.lost(0.0) == 0.0


def test_of_the_loss_of_a_life_that_ends_all_hear_from_the_monitor_alone() -> None:
    state = started()
    state.find(FOLLOWER)
    state.retire("why")
    assert state.retired(None) == []
    assert state.life == 1


def test_a_follower_leaves_a_life_that_ends_and_knows_late_news_of_it() -> None:
    state = follower()
    state.moved(moved(0, A, built=True))
    assert state.retired(0) == [Step.LEAVE]
    assert state.moved(moved(0, A, built=True)) == []
    assert state.retired(0, over=True) == [Step.LEFT]
    assert state.lost(A) == []
    assert state.moved(moved(0, A, built=True)) == []
    assert state.moved(moved(1, B)) == [Step.PLACE]
    # The one before is not known to be lost yet, and the next has ended already.
    late = follower()
    late.moved(moved(0, A))
    late.moved(moved(1, B))
    assert late.retired(1) == []
    assert late.retired(1, over=True) == []
    assert late.lost(A) == [Step.DETACH]
    assert late.moved(moved(2, C)) == [Step.PLACE]


def test_a_life_that_is_to_end_may_be_lost_before_or_have_no_other_after_it() -> None:
    lost = follower()
    lost.moved(moved(0, A, built=True))
    lost.retired(0)
    assert lost.moved(moved(1, B)) == []  # the home heard of the loss first
    assert lost.lost(A) == [Step.DETACH, Step.PLACE]
    over = follower()
    over.moved(moved(0, A, built=True))
    over.retired(0)
    assert over.ended(b"no") == [Step.LEFT, Step.END]


class World:
    """A home, a monitor and followers, whose links keep their own order alone."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kills = 0  # of its lives, which its home has seen
        self.draining = False  # the worker that has it is to leave
        self.home_lost = False
        self.over: dict[int, list[Step]] = {}  # of each follower: how it ended
        self.home = home(most)
        self.workers = iter(range(A, 1000))
        self.lost: list[int] = []  # as the monitor says it
        self.alive = 0
        self.ending = 0  # where a life is to end
        self.seen: dict[int, set[int]] = {}  # losses, by follower
        self.followers: dict[int, Follower] = {}
        self.news: dict[int, deque[Any]] = {}  # from the home
        self.losses: dict[int, deque[int]] = {}  # from the monitor
        self.detached: dict[int, list[int]] = {}
        self.place()

    def place(self) -> None:
        assert not self.alive, "two lives at once"
        self.alive = next(self.workers)
        self.send(self.home.placed(self.alive + 1000, self.alive))

    def join(self, who: int) -> None:
        self.seen[who] = set(self.lost)
        self.followers[who] = Follower(self.seen[who].__contains__)
        self.news[who], self.losses[who] = deque(), deque()
        self.detached[who], self.over[who] = [], []
        self.send(self.home.find(who))

    def send(self, sends: list[tuple[int, Any]]) -> None:
        for to, message in sends:
            self.news[to].append(message)

    def kill(self, *, left: bool = False) -> None:
        """The worker ends; the monitor tells the home at once, the others later.

        Args:
            left: in order, after a drain.
        """
        lost, self.alive = self.alive, 0
        self.draining = False
        is_ending, self.ending = lost == self.ending, 0
        self.lost.append(lost)
        for queue in self.losses.values():
            queue.append(lost)
        if self.home_lost or self.home.state is HomeState.ENDED:
            return
        if is_ending:
            self.send(self.home.retired(None))
            self.place()
            return
        self.kills += not left
        if self.home.lost(float(len(self.lost)), counts=not left) is None:
            assert self.kills > self.most, "what left in order was counted"
            self.send(self.home.end(b"exhausted"))
        else:
            assert self.kills <= self.most
            self.place()

    def retire(self) -> None:
        self.ending = self.alive
        _, *told = self.home.retire("why")
        self.send(told)

    def retired(self) -> None:
        self.alive = self.ending = 0
        self.draining = False
        self.send(self.home.retired(b"marks"))
        self.place()

    def lose_home(self) -> None:
        """With all that it has sent and that was not read."""
        self.home_lost = True
        for queue in self.losses.values():
            queue.append(HOME)

    def deliver(self, who: int, of_home: bool) -> None:
        state = self.followers[who]
        steps: list[Step] = []
        before = state.owner
        if of_home and self.news[who]:
            message = self.news[who].popleft()
            if isinstance(message, Moved):
                steps = state.moved(message)
            elif isinstance(message, Retired):
                steps = state.retired(message.life, over=message.over)
            else:
                steps = state.ended(message.error, message.closed)
        elif not of_home and self.losses[who]:
            lost = self.losses[who].popleft()
            if lost == HOME:
                self.news[who].clear()
                steps = state.ended(b"orphaned", closed=True)
            else:
                self.seen[who].add(lost)
                steps = state.lost(lost)
        if Step.DETACH in steps or Step.LEFT in steps:
            self.detached[who].append(before)
        self.over[who] += [step for step in steps if step in (Step.END, Step.OVER)]
        if Step.PLACE in steps:
            assert state.owner not in self.seen[who], "placed at one that is lost"

    def settle(self) -> None:
        for who in self.followers:
            while self.news[who] or self.losses[who]:
                self.deliver(who, of_home=bool(self.news[who]))


EVENTS = [
    *("kill", "built", "join", "home", "loss", "retire", "retired", "drain", "leave"),
    "lose home",
]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_in_every_order_all_followers_get_to_the_last_life_or_to_its_end(
    data: st.DataObject,
) -> None:
    world = World(most=data.draw(st.integers(1, 3)))
    world.join(1)
    for _ in range(data.draw(st.integers(0, 25))):
        event = data.draw(st.sampled_from(EVENTS))
        if event == "kill" and world.alive:
            world.kill()
        elif event == "drain" and world.alive:
            world.draining = True
        elif event == "leave" and world.draining:
            world.kill(left=True)
        elif event in ("home", "loss"):
            who = data.draw(st.sampled_from(sorted(world.followers)))
            world.deliver(who, event == "home")
        elif world.home_lost:
            pass
        elif event == "lose home":
            world.lose_home()
        elif event == "built" and world.home.state is HomeState.STARTING:
            world.send(world.home.built())
        elif event == "retire" and world.home.state in (
            HomeState.STARTING,
            HomeState.UP,
        ):
            world.retire()
        elif event == "retired" and world.ending:
            world.retired()
        elif event == "join" and len(world.followers) < 3:
            world.join(len(world.followers) + 1)
    world.settle()
    for who, state in world.followers.items():
        check(world, who, state)


def check(world: World, who: int, state: Follower) -> None:
    """What one knows that has heard everything."""
    if world.home_lost:
        # What it knew to live is used as long as it does; there is nothing after it.
        assert state.error is not None
        assert not state.is_leaving
        assert state.owner not in world.lost
        assert world.over[who][-1] is (Step.OVER if state.owner else Step.END)
    else:
        assert state.is_leaving is bool(world.ending and state.owner)
        # One that has come while a life was to end hears of the next one.
        assert state.owner in ((0, world.alive) if world.ending else (world.alive,))
        assert state.is_up == (world.home.state is HomeState.UP)
        has_ended = world.home.state is HomeState.ENDED
        assert (state.error is not None) is has_ended
        assert world.over[who] == ([Step.END] if has_ended else [])
    # What was detached has ended, each life once, in order.
    assert world.detached[who] == sorted(set(world.detached[who]))
