"""Tesserae that are built again when their worker is lost: who decides, who is told.

The runtime that made such a tessera is its *home*. It keeps what the tessera was made
from, it alone decides that it is built again, and it counts who holds it. For that the
tessera has a uid of its own, whose owner is the home, and under it one *life* after the
other: each an ordinary tessera in a worker, which the home makes and alone holds. So
no count changes when it moves. All who have a proxy, the home too, are *followers*.

    follower  Find ->home       where is it? tell me also when it moves
    home      Moved ->follower  life n is there; the same again when it is built
              Ended ->follower  there will be no further life
              Retire ->worker   end this life: it is built again with others
              Retired ->follower   life n is to end so: send it nothing more
                                and again, when it has: what of its calls had started
    worker    Closed ->home     it was closed in order: it is not to be built again
    monitor   Lost ->all        only now may the home build the next life

The home follows ``TRANSITIONS``. A follower hears of a loss from the monitor and of a
move from the home, one before the other or the reverse:

    it is       it hears         it does
    at life n   Retired n        LEAVE: sends no further calls there
    leaving n   Retired n, over  LEFT: takes back its calls, as is said of each, waits
    at life n   Lost of its      DETACH: takes back its calls, as what the worker left
                worker           behind says of each, and waits
    waiting     Moved m > n      PLACE: sends them there, unless that is lost too
    at life n   Moved m > n      remembers it until Lost
    at life n   Moved n, built   UP
    anywhere    Moved m < n      nothing: it is late
    waiting     Ended            END: what waits ends with its error
    leaving n   Ended            LEFT, END
    at life n   Ended            remembers it until Lost
    at life n   Ended, closed    OVER: that life answers for itself

A home that is lost takes its tesserae with it, as a supervisor does: then whoever waits
ends. What is called, sent or kept is not known here, and there is no clock.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING

from ..comms.messages import Ended, Message, Moved, Retire, Retired
from ..errors import InvalidTransitionError

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_DELAY_S = 0.1
MOST_DELAY_S = 5.0
CALM_S = 60.0  # restarts that are older do not make the next one wait

Sends = list[tuple[int, Message]]


class HomeState(enum.StrEnum):
    """A tessera with restarts as its home sees it."""

    WAITING = "waiting"  # for the time, or for a worker
    STARTING = "starting"  # its construction was sent
    UP = "up"
    RETIRING = "retiring"  # its life was told to end: core.groups
    ENDED = "ended"


TRANSITIONS: dict[HomeState, dict[str, HomeState]] = {
    HomeState.WAITING: {"placed": HomeState.STARTING, "end": HomeState.ENDED},
    HomeState.STARTING: {
        "built": HomeState.UP,
        "lost": HomeState.WAITING,
        "retire": HomeState.RETIRING,
        "end": HomeState.ENDED,
    },
    HomeState.UP: {
        "lost": HomeState.WAITING,
        "retire": HomeState.RETIRING,
        "end": HomeState.ENDED,
    },
    HomeState.RETIRING: {"retired": HomeState.WAITING, "end": HomeState.ENDED},
    HomeState.ENDED: {},
}


class Intensity:
    """How often something is built again before that is given up.

    Args:
        most: times; None: there is no limit.
        within_s: only those count that were in the last so many seconds; None: all do.
    """

    def __init__(self, most: int | None, within_s: float | None) -> None:
        self.most = most
        self.within_s = within_s
        self._times: deque[float] = deque()  # the oldest first

    def another(self, now_s: float) -> bool:
        """Count one more; False: that is too often, and it is not counted."""
        times = self._times
        kept_s = CALM_S if self.within_s is None else max(CALM_S, self.within_s)
        if self.most is None or self.within_s is not None:
            while times and now_s - times[0] >= kept_s:
                times.popleft()
        if self.most is not None and self._within(now_s) >= self.most:
            return False
        times.append(now_s)
        return True

    def recent(self, now_s: float) -> int:
        """How many there were not long ago."""
        return sum(now_s - time_s < CALM_S for time_s in self._times)

    def _within(self, now_s: float) -> int:
        if self.within_s is None:
            return len(self._times)
        return sum(now_s - time_s < self.within_s for time_s in self._times)

    def __str__(self) -> str:
        times = "once" if self.most == 1 else f"{self.most} times"
        within = "" if self.within_s is None else f" within {self.within_s:g} s"
        return f"{times}{within}"


class Home:
    """What the maker of a tessera decides.

    Args:
        uid: of the tessera, in all its lives.
        most: how often it is built again.
        within_s: only those restarts count that were in the last so many seconds; None:
            all do.
    """

    def __init__(self, uid: int, most: int, within_s: float | None) -> None:
        self.uid = uid
        self.intensity = Intensity(most, within_s)
        self.state = HomeState.WAITING
        self.life = 0  # number of the one there is, or is to be
        self.tessera = 0  # its own uid
        self.owner = 0  # incarnation of the runtime where it is; 0: nowhere
        self.error = b""  # why it has ended
        self._followers: set[int] = set()
        self.retiring = 0  # incarnation of the runtime where a life is to end
        self.why = ""  # for what it ends there

    def _move(self, event: str) -> None:
        new = TRANSITIONS[self.state].get(event)
        if new is None:
            raise InvalidTransitionError(self.state, event)
        self.state = new

    def placed(self, tessera: int, owner: int) -> Sends:
        """The construction of this life goes to that runtime."""
        self._move("placed")
        self.tessera = tessera
        self.owner = owner
        return self._tell_all()

    def built(self) -> Sends:
        """Its constructor has returned."""
        self._move("built")
        return self._tell_all()

    def lost(self, now_s: float, *, counts: bool = True) -> float | None:
        """The runtime where it is has certainly ended.

        Args:
            now_s: seconds that only grow.
            counts: not so where it has left in order.

        Returns:
            After how many seconds the next life is to be made; None: there is to be
            none, and ``end`` is to follow.
        """
        self._move("lost")
        self.owner = 0
        if not counts:
            self.life += 1
            return 0.0
        recent = self.intensity.recent(now_s)
        if not self.intensity.another(now_s):
            return None
        self.life += 1
        if not recent:
            return 0.0
        # Never beyond the largest, also where there were thousands of them.
        delay_s: float = FIRST_DELAY_S * 2 ** min(recent - 1, 16)
        return min(delay_s, MOST_DELAY_S)

    def retire(self, why: str) -> Sends:
        """Its life is to end, and be followed by another one."""
        self._move("retire")
        self.retiring, self.owner, self.why = self.owner, 0, why
        return [
            (self.retiring, Retire(self.tessera, why, again=True)),
            *((to, Retired(self.uid, self.life, why)) for to in self._followers),
        ]

    def retired(self, remains: bytes | None) -> Sends:
        """That life has ended.

        Args:
            remains: what is known of its calls; None: its runtime is lost, and all hear
                that from the monitor.
        """
        self._move("retired")
        self.retiring = 0
        life, self.life = self.life, self.life + 1
        if remains is None:
            return []
        over = Retired(self.uid, life, self.why, over=True, remains=remains)
        return [(to, over) for to in self._followers]

    def end(self, error: bytes) -> Sends:
        """No further life: it was closed, could not be built, or too many were lost."""
        if self.state is HomeState.ENDED:
            return []
        self._move("end")
        self.error = error
        return self._tell_all()

    def find(self, follower: int) -> Sends:
        """Somebody has got a proxy."""
        self._followers.add(follower)
        return [(follower, message) for message in self._news()]

    def forget(self, incarnation: int) -> None:
        """A runtime is lost: if it followed, it does no more."""
        self._followers.discard(incarnation)

    def _news(self) -> list[Message]:
        news: list[Message] = []
        if self.owner:
            built = self.state is not HomeState.STARTING
            news.append(Moved(self.uid, self.life, self.tessera, self.owner, built))
        if self.state is HomeState.ENDED:
            news.append(Ended(self.uid, self.error, bool(self.owner)))
        return news

    def _tell_all(self) -> Sends:
        return [(to, message) for to in self._followers for message in self._news()]


class Step(enum.Enum):
    """What a follower is to do."""

    DETACH = enum.auto()
    LEAVE = enum.auto()
    LEFT = enum.auto()
    PLACE = enum.auto()
    UP = enum.auto()
    OVER = enum.auto()
    END = enum.auto()


class Follower:
    """What a runtime with a proxy knows of where the tessera is.

    Args:
        is_lost: whether the monitor has said that an incarnation is lost.
    """

    def __init__(self, is_lost: Callable[[int], bool]) -> None:
        self._is_lost = is_lost
        self.life = -1  # of the last place; none yet
        self.tessera = 0
        self.owner = 0  # 0: it waits
        self.is_up = False
        self.is_leaving = False  # the life there is ends, to be followed by another
        self.error: bytes | None = None  # there will be no further life
        self._next: Moved | None = None

    def moved(self, place: Moved) -> list[Step]:
        """The home says where it is."""
        if self.owner and place.life == self.life:
            return self._up(place)
        if place.life <= self.life or self._is_lost(place.owner):
            return []
        if self.owner:
            if self._next is None or self._next.life <= place.life:
                self._next = place
            return []
        return self._place(place)

    def lost(self, incarnation: int) -> list[Step]:
        """The monitor says that a runtime has ended."""
        return self._gone(Step.DETACH) if incarnation == self.owner else []

    def retired(self, life: int, *, over: bool = False) -> list[Step]:
        """The home ends a life, to make another one; ``over``: it has ended."""
        if self._next is not None and self._next.life <= life:
            self._next = None
        if not self.owner or life != self.life:
            return []
        if over:
            return self._gone(Step.LEFT)
        self.is_leaving = True
        self.is_up = False
        return [Step.LEAVE]

    def _gone(self, step: Step) -> list[Step]:
        self.owner = 0
        self.is_up = self.is_leaving = False
        place, self._next = self._next, None
        if place is not None and not self._is_lost(place.owner):
            return [step, *self._place(place)]
        return [step, Step.END] if self.error is not None else [step]

    def ended(self, error: bytes, closed: bool = False) -> list[Step]:
        """There will be no further life: the home says so, or is lost.

        Args:
            error: for what waits.
            closed: its last life was not lost.
        """
        if self.error is not None:
            return []
        self.error = error
        if not self.owner:
            return [Step.END]
        if self.is_leaving:
            return self._gone(Step.LEFT)
        return [Step.OVER] if closed else []

    def _place(self, place: Moved) -> list[Step]:
        self.life = place.life
        self.tessera = place.tessera
        self.owner = place.owner
        self.is_up = False
        return [Step.PLACE, *self._up(place)]

    def _up(self, place: Moved) -> list[Step]:
        if self.is_up or self.is_leaving or not place.built:
            return []
        self.is_up = True
        return [Step.UP]
