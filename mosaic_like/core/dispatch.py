"""Which function task goes to which worker, and when: the queue of their submitter.

A function task waits here until its arguments have ended and a worker has room; it is
never tied to a worker before. Room is a window of calls for each worker: two, so that
the next one is there when one ends, and more while they end so soon that a worker would
stand idle between two messages. What lies behind a long call is called back, and what
was on a worker that died goes elsewhere if it had not started. Nothing here knows of
sockets, threads or clocks, nor what a task's policy says.

    ready      in no worker's window; any worker may have them, in order
    waiting    some argument has not ended
    sent       in a worker's window: queued there, or running
    recalled   the same, and its worker was asked to give it back
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .caller import LOOK_EVERY, Arrived, Call, CallerState, Stream
from .task import DONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..comms.messages import Extra

LEAST_WINDOW = 2  # one runs, the next is there
MOST_WINDOW = 1024
SOON_S = 0.005  # from sending to the end: the window may grow
LATE_S = 0.025  # it shrinks
STUCK_S = 0.05  # a call that is not the first has waited so long: it is called back
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
        stream: to what runs functions there; its credit is the room that is left.
        size: of the window at first.
    """

    __slots__ = ("full", "knows", "owner", "recalled", "sent", "size", "stream")

    def __init__(self, owner: int, stream: Stream, size: int) -> None:
        self.owner = owner
        self.stream = stream
        self.size = size
        self.sent: deque[Entry] = deque()  # in this order, some of which have ended
        self.knows: set[str] = set()  # the functions that it was told of
        self.full = False  # since it was last looked at
        self.recalled: set[int] = set()  # uids; while there are some it gets no more

    @property
    def has_room(self) -> bool:
        stream = self.stream
        return (
            stream.credit > 0
            and not self.recalled
            and not stream.held  # bytes that do not fit go first
            and stream.outbox is not None
        )

    @property
    def is_idle(self) -> bool:
        return self.stream.credit >= self.size and self.has_room


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
        self.ready: deque[Entry] = deque()
        self.waiting: dict[int, Entry] = {}
        self.windows: dict[Stream, Window] = {}
        self._pinned: dict[Stream, deque[Entry]] = {}  # behind what is sent there
        self._pins: dict[int, Stream] = {}  # of these, by uid
        self._returned: dict[int, Entry] = {}  # by a worker that is lost
        self._turn: deque[Window] = deque()
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
        for entry in self._pinned.pop(window.stream, ()):
            del self._pins[entry.call.uid]
            returned.append(entry)
        self._put_back(returned)

    def _put_back(self, entries: list[Entry]) -> None:
        """They go first: others have not waited so long."""
        entries.sort(key=lambda entry: entry.call.uid)
        for entry in entries:
            entry.call.stream = self.unplaced
        free = [entry for entry in entries if not self._waits(entry)]
        self.ready.extendleft(reversed(free))
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

    def _offer(self, entry: Entry) -> None:
        ready = self.ready
        if not ready:
            window = self._room(entry.payload)
            if window is not None:
                self._send(window, entry)
                return
        ready.append(entry)
        if not len(ready) % LOOK_EVERY:
            self._caller.look()

    def _waits(self, entry: Entry) -> bool:
        """Some arguments have not ended: it waits for them here, or behind them."""
        if type(entry.payload) is bytes:
            return False
        calls = _arguments(entry.payload)
        unsettled = [call for call in calls if call.state < DONE]
        if not unsettled:
            return False
        streams = {self._pins.get(call.uid, call.stream) for call in unsettled}
        stream = streams.pop()
        window = None if streams or self._overlaps else self.windows.get(stream)
        if window is not None:
            # They are on one worker: there it comes after them, and the submitter need
            # not hear of their ends before.
            line = self._pinned.get(stream)
            if not line and window.has_room:
                self._send(window, entry)
                return True
            if line is None:
                line = self._pinned[stream] = deque()
            line.append(entry)
            self._pins[entry.call.uid] = stream
            return True
        left = len(unsettled)

        def ended() -> None:
            nonlocal left
            left -= 1
            if not left and self.waiting.pop(entry.call.uid, None) is not None:
                self._offer(entry)

        self.waiting[entry.call.uid] = entry
        for call in unsettled:
            self._port.when_settled(call, ended)
        return True

    def withdraw(self, call: Call) -> bool:
        """Take out a task that was not sent; False: it was."""
        if self.waiting.pop(call.uid, None) is not None:
            return True
        for line in (self.ready, *self._pinned.values()):
            for index, entry in enumerate(line):
                if entry.call is call:
                    del line[index]
                    self._pins.pop(call.uid, None)
                    return True
        return False

    # -- out ---------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Send what there is room for."""
        ready = self.ready
        while ready:
            window = self._room(ready[0].payload)
            if window is None:
                return
            self._send(window, ready.popleft())

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
                if found is None or _load(window) < _load(found):
                    found = window
        return found

    def _near(self, payload: Any) -> Window | None:
        """The worker with room where most of its large arguments are."""
        sizes: dict[int, int] = {}
        for call in _arguments(payload):
            result = call.result
            if type(result) is Arrived and result.size:
                owner = call.stream.owner
                sizes[owner] = sizes.get(owner, 0) + result.size
        best = None
        for window in self.windows.values():
            size = sizes.get(window.owner, 0)
            if size >= NEAR_BYTES and window.has_room:
                if best is None or size > sizes[best.owner]:
                    best = window
        return best

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
        if stream.credit <= 0:
            window.full = True

    def _send_pinned(self, window: Window) -> None:
        line = self._pinned.get(window.stream)
        while line and window.has_room:
            entry = line.popleft()
            del self._pins[entry.call.uid]
            self._send(window, entry)
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
        if last is None:  # not in this order: they overlap, or one was cancelled
            ended = [entry for entry in sent if entry.call.state >= DONE]
            if ended:
                last = ended[-1]
                window.sent = deque(e for e in sent if e.call.state < DONE)
        if last is not None:
            window.recalled.clear()
            self._adapt(window, self._caller.now_s - last.sent_s)
        if window.stream in self._pinned:
            self._send_pinned(window)
        if self.ready:
            self.dispatch()

    def _adapt(self, window: Window, took_s: float) -> None:
        size = window.size
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
        window.stream.credit += new - size

    # -- what lies behind a long call --------------------------------------------------

    def look(self, now_s: float) -> bool:
        """Now and then: call back what has waited long, if others are idle.

        Args:
            now_s: seconds since the epoch.

        Returns:
            Whether to look again; False: until ``arm`` is asked for.
        """
        self._armed = bool(self.ready or self.waiting or self._pinned) or any(
            window.sent for window in self.windows.values()
        )
        if not self._overlaps and not self.ready and self._any_idle():
            self._call_back(now_s)
        return self._armed

    def _call_back(self, now_s: float) -> None:
        self._unpin()
        for window in self.windows.values():
            uids = [
                entry.call.uid
                for entry in window.sent
                if entry.call.state < DONE and now_s - entry.sent_s > STUCK_S
            ]
            if len(uids) > 1 and not window.recalled:
                window.recalled.update(uids[1:])
                self._port.recall(window.owner, uids[1:])

    def _any_idle(self) -> bool:
        return any(window.is_idle for window in self.windows.values())

    def _unpin(self) -> None:
        """What waits for one worker, and no longer has to, goes to any."""
        for stream, line in list(self._pinned.items()):
            free = [
                entry
                for entry in line
                if all(call.state >= DONE for call in _arguments(entry.payload))
            ]
            for entry in free:
                line.remove(entry)
                del self._pins[entry.call.uid]
            if not line:
                del self._pinned[stream]
            self.ready.extend(free)
        self.dispatch()

    def given_back(self, owner: int, asked: Iterable[int], taken: set[int]) -> None:
        """The answer of a worker.

        Args:
            owner: incarnation of the worker.
            asked: uids that it was asked for.
            taken: those that had not started there, and never will.
        """
        window = next((w for w in self.windows.values() if w.owner == owner), None)
        if window is None:
            return
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
        self._put_back(back)

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
            return False
        self._returned[call.uid] = again
        return True


def _load(window: Window) -> int:
    return window.size - window.stream.credit


def _arguments(payload: Any) -> list[Call]:
    """The tasks that a payload takes the values of."""
    return [
        handle.proxy._call
        for handle in payload.handles
        if getattr(handle, "proxy", None) is not None
    ]
