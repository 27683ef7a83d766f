"""Which function task goes to which worker, and when: the queue of their submitter.

A function task waits here until its arguments have ended and a worker has room; it is
never tied to a worker before. Room is a window of calls for each worker: two, so that
the next one is there when one ends, and more while they end so soon that a worker would
stand idle between two messages. What lies behind a long call is called back, and what
was on a worker that died goes elsewhere if it had not started. Nothing here knows of
sockets, threads or clocks, nor what a task's policy says.

    held       not submitted yet: a policy or a graph decides when
    ready      in no worker's window; any worker may have them, in order
    waiting    some argument has not ended
    sent       in a worker's window: queued there, or running
    recalled   the same, and its worker was asked to give it back
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..comms.messages import ALLOWED, TASK
from .caller import CALL_CREDIT, LOOK_EVERY, Arrived, Call, CallerState, Stream
from .task import DONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..comms.messages import Extra

_AWAITED = (TASK, ALLOWED)
LEAST_WINDOW = 2  # one runs, the next is there
MOST_WINDOW = 1024
SOON_S = 0.03  # from sending to the end: the window may grow
LATE_S = 0.1  # it shrinks
STUCK_S = 0.05  # nothing has ended for so long: the others are called back
STEAL_S = 0.004  # by then a worker that is free is to have some of another's
SHUN_S = 0.2  # a worker that gave all back gets no more for so long
NEAR_BYTES = 256 << 10  # of arguments that stayed at a worker: worth a look


class Entry(NamedTuple):
    """A function task and all that is needed to send it, once or again."""

    call: Call
    payload: Any
    extra: Extra | None
    sent_s: float = 0.0  # seconds since the epoch


class Window:
    """What one worker is given.

    Args:
        owner: incarnation of the worker.
        stream: to what runs functions there; its credit says how many have not ended.
        size: of the window at first.
    """

    __slots__ = (
        "asked_s",
        "ended_s",
        "full",
        "knows",
        "owner",
        "recalled",
        "sent",
        "size",
        "stream",
        "took_s",
        "unanswered",
    )

    def __init__(self, owner: int, stream: Stream, size: int) -> None:
        self.owner = owner
        self.stream = stream
        self.size = size
        self.sent: deque[Entry] = deque()  # in this order, some of which have ended
        self.knows: set[str] = set()  # the functions that it was told of
        self.full = False  # since it was last looked at
        # Uids that it was asked for since one ended there; it gets no more meanwhile.
        self.recalled: set[int] = set()
        # Of these, those that it has not answered for: nothing may go there that takes
        # one, since it would come after the question.
        self.unanswered: set[int] = set()
        self.asked_s = 0.0
        self.ended_s = 0.0  # when one has ended last
        self.took_s = 0.0  # from its sending on

    @property
    def has_room(self) -> bool:
        stream = self.stream
        return (
            CALL_CREDIT - stream.credit < self.size
            and not self.recalled
            and not self.unanswered
            and not stream.held  # bytes that do not fit go first
            and stream.outbox is not None
        )

    @property
    def is_idle(self) -> bool:
        return self.stream.credit >= CALL_CREDIT and self.has_room

    @property
    def load(self) -> int:
        """Calls that were sent and have not ended."""
        return CALL_CREDIT - self.stream.credit


class Dispatching(Protocol):
    """What the runtime does for a FunctionQueue."""

    def when_settled(self, call: Call, then: Callable[[], Any]) -> None:
        """Call it when the call has ended; at once if it has."""

    def arm(self) -> None:
        """Something is on its way: ``look`` from time to time."""

    def teach(self, window: Window, function: str) -> None:
        """Tell a worker of a function, before the first call of it."""

    def sent(self, call: Call, extra: Extra) -> None:
        """The call goes to a worker: its time begins."""

    def recall(self, owner: int, uids: list[int]) -> None:
        """Ask a worker for those that have not started."""

    def blocked_here(self) -> int:
        """The call in which the thread of this very worker is blocked; 0: in none.

        What was made inside it can run there, whatever else that worker has.
        """

    def failed(self, queue: FunctionQueue, entry: Entry) -> None:
        """A call has failed or was cancelled, or is about to be."""

    def survives(self, entry: Entry, cause: Any) -> Entry | None:
        """Its worker is lost: what is to be sent elsewhere; None: it is lost too."""


class FunctionQueue:
    """The function tasks of one submitter that have not ended.

    Args:
        port: see ``Dispatching``.
        caller: sends what is dispatched.
        label: of the tasks while they have no place, for people.
        least, most: size of a window.
        overlaps: what is in a window runs at once: nothing lies behind another.
    """

    def __init__(
        self,
        port: Dispatching,
        caller: CallerState,
        label: str,
        least: int = LEAST_WINDOW,
        most: int = MOST_WINDOW,
        *,
        overlaps: bool = False,
    ) -> None:
        self._port = port
        self._caller = caller
        self.least, self.most = least, most
        self._overlaps = overlaps
        self.unplaced = Stream(0, label)
        self.unplaced.queue = self
        # Taken from the front, and by uid when they are cancelled.
        self.ready: OrderedDict[int, Entry] = OrderedDict()
        self.waiting: dict[int, Entry] = {}
        # Not submitted yet: what to call if one of these is withdrawn.
        self.held: dict[int, Callable[[], Any] | None] = {}
        self.windows: dict[Stream, Window] = {}
        # What they mention has no place yet, such as a quoted task that waits here.
        self._unowned: list[Entry] = []
        # Behind what is sent there.
        self._pinned: dict[Stream, OrderedDict[int, Entry]] = {}
        self._pins: dict[int, Stream] = {}  # of these, by uid
        self._places: dict[int, tuple[Call, int]] = {}  # of those that have one, by uid
        # Others were told where these are: uids.
        self.mentioned: set[int] = set()
        self._returned: dict[int, Entry] = {}  # by a worker that is lost
        self._turn: deque[Window] = deque()
        self.home: Window | None = None  # of the submitter itself, if it is a worker
        self._armed = False

    # -- workers -----------------------------------------------------------------------

    def open(self, owner: int, stream: Stream) -> Window:
        """A worker can be given tasks: what is sent on the stream comes from here."""
        window = Window(owner, stream, self.least)
        self.windows[stream] = window
        self._turn.append(window)
        stream.queue = self
        self._watch(window)
        return window

    def _watch(self, window: Window) -> None:
        window.stream.watchers = (lambda: self._credited(window),)

    def close(self, window: Window) -> None:
        """It is lost, or ends: what ``lost`` has taken back goes elsewhere."""
        self.windows.pop(window.stream, None)
        if window in self._turn:
            self._turn.remove(window)
        returned = list(self._returned.values())
        self._returned.clear()
        for uid, entry in self._pinned.pop(window.stream, {}).items():
            del self._pins[uid]
            returned.append(entry)
        self._put_back(returned)

    def retire(self, owner: int, now_s: float) -> None:
        """A worker is to leave: it gets no more, and is asked for what it has.

        Args:
            owner: its incarnation.
            now_s: seconds since the epoch.
        """
        for window in [w for w in self._turn if w.owner == owner]:
            self._turn.remove(window)
            window.size = 0
            pinned: dict[int, Entry] = self._pinned.pop(window.stream, {})
            for uid in pinned:
                del self._pins[uid]
            self._put_back(list(pinned.values()))
            open_uids = [e.call.uid for e in window.sent if e.call.state < DONE]
            self._ask(window, open_uids, now_s)

    def _put_back(self, entries: list[Entry]) -> None:
        """They go first: others have not waited so long."""
        entries.sort(key=lambda entry: entry.call.uid)
        for entry in entries:
            entry.call.stream = self.unplaced
        free = []
        for entry in entries:
            if entry.call.uid in self._places:
                self._offer(entry)
            elif not self._waits(entry):
                free.append(entry)
        for entry in reversed(free):
            self.ready[entry.call.uid] = entry
            self.ready.move_to_end(entry.call.uid, last=False)
        self._take_home()
        self.dispatch()

    # -- in ----------------------------------------------------------------------------

    def submit(self, call: Call, payload: Any, extra: Extra | None) -> None:
        """Take a task: the hot path."""
        if not self._armed:
            self._armed = True
            self._port.arm()
        entry = Entry(call, payload, extra)
        if type(payload) is bytes or not self._waits(entry):
            self._offer(entry)

    def mention(self, call: Call, to: int) -> None:
        """Somebody is told where a task is, and may wait for it there.

        Args:
            call: which.
            to: incarnation of who is told. Its own worker knows what waits for it, and
                does not give it back, but for what it was asked for already.
        """
        window = self.windows.get(call.stream)
        if window is not None and (window.owner != to or call.uid in window.unanswered):
            self.mentioned.add(call.uid)

    def place(self, call: Call, owner: int) -> None:
        """A task that is about to be submitted runs at this worker, and nowhere else.

        Args:
            call: which.
            owner: incarnation of the worker.
        """
        self._places[call.uid] = call, owner

    def widen(self, size: int) -> None:
        """So many tasks may go to a worker together."""
        for window in self._turn:
            window.size = max(window.size, min(size, self.most))

    def _offer(self, entry: Entry) -> None:
        if entry.call.uid in self._places:
            self._offer_there(entry)
            return
        ready = self.ready
        if not ready:
            window = self._room(entry.payload)
            if window is not None:
                self._send(window, entry)
                return
        ready[entry.call.uid] = entry
        if not len(ready) % LOOK_EVERY:
            self._caller.look()

    def _offer_there(self, entry: Entry) -> None:
        call, owner = self._places[entry.call.uid]
        window = next((w for w in self.windows.values() if w.owner == owner), None)
        if window is None:
            self._caller.lose(call, "the worker that it was to run at is lost")
        else:
            self._line(window.stream, entry)
            self._send_pinned(window)

    def _line(self, stream: Stream, entry: Entry) -> None:
        self._pinned.setdefault(stream, OrderedDict())[entry.call.uid] = entry
        self._pins[entry.call.uid] = stream

    def _waits(self, entry: Entry) -> bool:
        """Some arguments have not ended: it waits for them here, or behind them."""
        if type(entry.payload) is bytes:
            return False
        calls = arguments_of(entry.payload)
        unsettled = [call for call in calls if call.state < DONE]
        # Those that are pinned have their place by the time that this one is sent.
        has_owners = all(
            handle.owner or handle.uid in self._pins for handle in entry.payload.handles
        )
        if not unsettled:
            if not has_owners:
                self._unowned.append(entry)
            return not has_owners
        if has_owners and self._pin(entry, unsettled):
            return True
        left = len(unsettled)

        def ended() -> None:
            nonlocal left
            left -= 1
            if (
                not left
                and self.waiting.pop(entry.call.uid, None) is not None
                and not self._waits(entry)
            ):
                self._offer(entry)

        self.waiting[entry.call.uid] = entry
        for call in unsettled:
            self._port.when_settled(call, ended)
        return True

    def _pin(self, entry: Entry, unsettled: list[Call]) -> bool:
        """What takes only tasks of one worker goes there at once, behind them.

        Then their submitter need not hear of their ends before.
        """
        streams = {self._pins.get(call.uid, call.stream) for call in unsettled}
        stream = streams.pop()
        window = self.windows.get(stream)
        if window is None or streams or self._overlaps or not window.size:
            return False
        if self._places and entry.call.uid in self._places:
            return False
        if stream not in self._pinned and window.has_room:
            self._send(window, entry)
        else:
            self._line(stream, entry)
        return True

    def hold(self, call: Call, then: Callable[[], Any] | None) -> None:
        """A task that is not to be sent yet; ``then``: called if it is withdrawn."""
        self.held[call.uid] = then

    def let_go(self, call: Call) -> None:
        """It is submitted, or has ended."""
        self.held.pop(call.uid, None)

    def withdraw(self, call: Call) -> bool:
        """Take out a task that was not sent; False: it was."""
        if call.uid in self.held:
            then = self.held.pop(call.uid)
            if then is not None:
                then()
            return True
        entry = self.waiting.pop(call.uid, None)
        if entry is not None:
            self._port.failed(self, entry)
            return True
        stream = self._pins.pop(call.uid, None)
        line = self.ready if stream is None else self._pinned[stream]
        entry = line.pop(call.uid, None)
        if stream is not None and not line:
            del self._pinned[stream]
        if entry is None:
            entry = next((e for e in self._unowned if e.call is call), None)
            if entry is None:
                return False
            self._unowned.remove(entry)
        self._port.failed(self, entry)
        return True

    def entry_of(self, call: Call) -> Entry | None:
        """What was sent for a call that has ended, if it is not forgotten yet."""
        entries = (e for window in self.windows.values() for e in window.sent)
        return next((e for e in entries if e.call is call), None)

    # -- out ---------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Send what there is room for."""
        if self._unowned:
            unowned, self._unowned = self._unowned, []
            self._make_ready(e for e in unowned if not self._waits(e))
        ready = self.ready
        while ready:
            window = self._room(next(iter(ready.values())).payload)
            if window is None:
                return
            self._send(window, ready.popitem(last=False)[1])

    def _make_ready(self, entries: Iterable[Entry]) -> None:
        self.ready.update((entry.call.uid, entry) for entry in entries)

    def _room(self, payload: Any) -> Window | None:
        """Where a task goes: to a worker that is free, near what it takes."""
        if type(payload) is not bytes and payload.handles:
            near = self._near(payload)
            if near is not None:
                return near
        turn = self._turn
        found = None
        for _ in range(len(turn)):
            window = turn[0]
            turn.rotate(-1)
            if window.has_room:
                if window.is_idle:
                    return window
                if found is None or window.load < found.load:
                    found = window
        return found

    def _near(self, payload: Any) -> Window | None:
        """The worker with room where most of its large arguments are."""
        sizes: dict[int, int] = {}
        for call in arguments_of(payload):
            result = call.result
            if type(result) is Arrived and result.size:
                owner = call.stream.owner
                sizes[owner] = sizes.get(owner, 0) + result.size
        near = [
            window
            for window in self.windows.values()
            if sizes.get(window.owner, 0) >= NEAR_BYTES and window.has_room
        ]
        return max(near, key=lambda window: sizes[window.owner], default=None)

    def _send(self, window: Window, entry: Entry) -> None:
        call, payload, extra, _ = entry
        stream = window.stream
        call.stream = stream
        now_s = max(self._caller.now_s, call.submitted_s)
        window.sent.append(Entry(call, payload, extra, now_s))
        if call.method not in window.knows:
            window.knows.add(call.method)
            self._port.teach(window, call.method)
        if extra is not None:
            self._port.sent(call, extra)
        self._caller.submit(call, payload, extra, None)
        self._caller.feed_starved()
        if CALL_CREDIT - stream.credit >= window.size:
            window.full = True

    def _send_pinned(self, window: Window) -> None:
        line = self._pinned.get(window.stream)
        while line and window.has_room:
            uid, entry = line.popitem(last=False)
            del self._pins[uid]
            payload = entry.payload
            if type(payload) is bytes or all(h.owner for h in payload.handles):
                self._send(window, entry)
            elif not self._waits(entry):  # for what was called back meanwhile
                self._offer(entry)
        if not line:
            self._pinned.pop(window.stream, None)

    # -- ends --------------------------------------------------------------------------

    def _credited(self, window: Window) -> None:
        """Some calls of a worker have ended: see how soon, and send more."""
        self._watch(window)
        sent = window.sent
        last = None
        while sent and sent[0].call.state >= DONE:
            last = sent.popleft()
            if last.call.state > DONE:
                self._port.failed(self, last)
        if last is None:  # not in this order: they overlap, or one was cancelled
            ended = [entry for entry in sent if entry.call.state >= DONE]
            if ended:
                last = ended[-1]
                window.sent = deque(e for e in sent if e.call.state < DONE)
                for entry in ended:
                    if entry.call.state > DONE:
                        self._port.failed(self, entry)
        if last is not None:
            window.recalled.clear()
            window.ended_s = self._caller.now_s
            window.took_s = self._caller.now_s - last.sent_s
            self._adapt(window)
        if window.stream in self._pinned:
            self._send_pinned(window)
        if self.ready or self._unowned:
            self.dispatch()
        elif window.is_idle and not self._overlaps:
            self._steal()

    def _steal(self) -> None:
        """A worker has run out of tasks: half of those of another are called back."""
        fullest = max(self.windows.values(), key=lambda window: window.load)
        if (
            fullest.load > self.least
            and fullest.took_s > STEAL_S
            and not fullest.recalled
            and not fullest.unanswered
        ):
            open_uids = [e.call.uid for e in fullest.sent if e.call.state < DONE]
            later = open_uids[(len(open_uids) + 1) // 2 :]
            self._ask(fullest, later, self._caller.now_s)

    def _ask(self, window: Window, uids: list[int], now_s: float) -> None:
        uids = [uid for uid in uids if uid not in self._places]
        if uids:
            window.recalled.update(uids)
            window.unanswered.update(uids)
            window.asked_s = now_s
            self._port.recall(window.owner, uids)

    def _adapt(self, window: Window) -> None:
        size, took_s = window.size, window.took_s
        if took_s < SOON_S:
            if not window.full or size >= self.most:
                return
            new = min(2 * size, self.most)
        elif took_s > LATE_S and size > self.least:
            new = max(size // 2, self.least)
        else:
            return
        window.full = False
        window.size = new

    # -- what lies behind a long call --------------------------------------------------

    def look(self, now_s: float) -> bool:
        """Now and then: call back what has waited long, if others are idle.

        Args:
            now_s: seconds since the epoch.

        Returns:
            Whether to look again; False: until ``arm`` is asked for.
        """
        self._armed = bool(
            self.ready or self.waiting or self._pinned or self._unowned
        ) or any(window.sent for window in self.windows.values())
        if self._unowned:
            self.dispatch()
        if self.mentioned:
            self.mentioned.intersection_update(
                entry.call.uid
                for window in self.windows.values()
                for entry in window.sent
                if entry.call.state < DONE
            )
        if self._places:
            self._places = {
                uid: place
                for uid, place in self._places.items()
                if place[0].state < DONE
            }
        if not self._overlaps:
            for window in self.windows.values():
                if not window.sent and now_s - window.asked_s > SHUN_S:
                    window.recalled.clear()
            self._unpin()
            self._take_home()
            self._call_back(now_s)
        return self._armed

    def _take_home(self) -> None:
        """What the blocked thread of this worker can run needs no room there."""
        home = self.home
        if home is None or home.stream.outbox is None:
            return
        blocked = self._port.blocked_here()
        if blocked:
            for entry in list(self.ready.values()):
                if blocked in (entry.call.inside or ()):
                    del self.ready[entry.call.uid]
                    self._send(home, entry)

    def _call_back(self, now_s: float) -> None:
        is_any_idle = not self.ready and self._any_idle()
        for window in self.windows.values():
            # Also the first, which may lie behind another submitter's; what runs is
            # not given back.
            uids = [
                entry.call.uid
                for entry in window.sent
                if entry.call.state < DONE
                and now_s - max(entry.sent_s, window.ended_s) > STUCK_S
                and entry.call.uid not in window.recalled
                and (is_any_idle or self._may_take_home(window, entry.call))
            ]
            self._ask(window, uids, now_s)

    def _may_take_home(self, window: Window, call: Call) -> bool:
        home = self.home
        if home is None or window is home or not call.inside:
            return False
        blocked = self._port.blocked_here()
        return blocked != 0 and blocked in call.inside

    def _any_idle(self) -> bool:
        return any(window.is_idle for window in self.windows.values())

    def _unpin(self) -> None:
        """What waits for one worker, and no longer has to, goes to any."""
        for stream, line in list(self._pinned.items()):
            free = [
                entry
                # The first ones: the others are behind these.
                for entry in itertools.islice(line.values(), self.most)
                if entry.call.uid not in self._places
                and all(call.state >= DONE for call in arguments_of(entry.payload))
            ]
            for entry in free:
                del line[entry.call.uid]
                del self._pins[entry.call.uid]
            if not line:
                del self._pinned[stream]
            self._make_ready(free)
        self.dispatch()

    def given_back(self, owner: int, asked: Iterable[int], taken: set[int]) -> None:
        """The answer of a worker.

        Args:
            owner: its incarnation.
            asked: uids that it was asked for.
            taken: of these, those that have not started there and never will.
        """
        window = next((w for w in self.windows.values() if w.owner == owner), None)
        if window is None:
            return
        window.unanswered.difference_update(asked)
        kept: deque[Entry] = deque()
        back = []
        for entry in window.sent:
            if entry.call.uid in taken and entry.call.state < DONE:
                back.append(entry)
            else:
                kept.append(entry)
        window.sent = kept
        for entry in back:
            self._caller.take_back(entry.call)
            if entry.call.uid in self.mentioned:
                self.place(entry.call, owner)  # it is waited for there
        self._put_back(back)

    def handed_back(self, owner: int, uid: int) -> Entry | None:
        """An attempt has failed at a worker, which has forgotten it; None: not so."""
        for window in self.windows.values():
            if window.owner == owner:
                for index, entry in enumerate(window.sent):
                    if entry.call.uid == uid and entry.call.state < DONE:
                        del window.sent[index]
                        self._caller.take_back(entry.call)
                        entry.call.stream = self.unplaced
                        self.dispatch()
                        return entry
        return None

    # -- loss --------------------------------------------------------------------------

    def lost(self, call: Call, cause: Any) -> bool:
        """The worker of a call is lost; True: it goes elsewhere, when it is closed."""
        if call.uid in self._returned:
            return True
        window = self.windows.get(call.stream)
        if window is None:
            return False
        entry = next((e for e in window.sent if e.call is call), None)
        if entry is None:
            return False
        again = self._port.survives(entry, cause)
        if again is None:
            self._port.failed(self, entry)
            return False
        self._returned[call.uid] = again
        return True


def arguments_of(payload: Any) -> list[Call]:
    """The tasks that a payload takes the values of."""
    return [
        handle.proxy._call
        for handle in payload.handles
        if handle.kind in _AWAITED and getattr(handle, "proxy", None) is not None
    ]
