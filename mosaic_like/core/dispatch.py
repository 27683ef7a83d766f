"""Which function task goes to which worker, and when: the queue of their submitter.

A function task waits here until its arguments have ended and a worker has room; it is
never tied to a worker before, but for those that are ``pinned``. Room is a ``window``
of calls for each worker, whose ``turns`` it is. What lies behind a long call is called
back (``reclaiming``), and what was on a worker that died goes elsewhere if it had not
started. Nothing here knows of sockets, threads or clocks, nor what a task's policy
says.

    held       not submitted yet: a policy or a graph decides when
    ready      in no worker's window; any worker may have them, in order
    waiting    some argument has not ended
    sent       in a worker's window: queued there, or running
    recalled   the same, and its worker was asked to give it back
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from .call import CALL_CREDIT, Call, Stream
from .held import LOOK_EVERY
from .locality import arguments_of, nearest
from .pinned import Pinned
from .reclaiming import Reclaiming
from .task import DONE
from .turns import Turns
from .unready import Unready
from .window import LEAST_WINDOW, MOST_WINDOW, Entry, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..comms.messages import Extra
    from .caller import CallerState
    from .dispatching import Dispatching


class FunctionQueue:
    """The function tasks of one submitter that have not ended.

    Args:
        port: see ``Dispatching``.
        caller: sends what is dispatched.
        least, most: size of a window.
        overlaps: what is in a window runs at once: nothing lies behind another.
    """

    def __init__(
        self,
        port: Dispatching,
        caller: CallerState,
        least: int = LEAST_WINDOW,
        most: int = MOST_WINDOW,
        *,
        overlaps: bool = False,
    ) -> None:
        self._port = port
        self._caller = caller
        self.least, self.most = least, most
        self._overlaps = overlaps
        self.unplaced = Stream(0, "task")
        self.unplaced.queue = self
        # Taken from the front, and by uid when they are cancelled.
        self.ready: OrderedDict[int, Entry] = OrderedDict()
        # Not submitted yet: what to call if one of these is withdrawn.
        self.held: dict[int, Callable[[], Any] | None] = {}
        self.windows: dict[Stream, Window] = {}
        self.unready = Unready(self, port, overlaps=overlaps)
        self.pinned = Pinned()  # behind what is sent there
        self.places: dict[int, tuple[Call, int]] = {}  # of those that have one, by uid
        self.reclaiming = Reclaiming(self, port, caller)
        self._returned: dict[int, Entry] = {}  # by a worker that is lost
        self._turns = Turns()
        self.home: Window | None = None  # of the submitter itself, if it is a worker
        self._armed = False

    # -- workers -----------------------------------------------------------------------

    def open(self, owner: int, stream: Stream, machine: str = "") -> Window:
        """A worker can be given tasks: what is sent on the stream comes from here."""
        window = Window(owner, stream, self.least, machine)
        self.windows[stream] = window
        self._turns.add(window)
        stream.queue = self
        self._watch(window)
        return window

    def _watch(self, window: Window) -> None:
        window.stream.watchers = (lambda: self._credited(window),)

    def close(self, window: Window) -> None:
        """It is lost, or ends: what ``lost`` has taken back goes elsewhere."""
        self.windows.pop(window.stream, None)
        self._turns.remove(window)
        returned = [*self._returned.values(), *self.pinned.take_line(window.stream)]
        self._returned.clear()
        self.put_back(returned)

    def retire(self, owner: int, now_s: float) -> None:
        """A worker is to leave: it gets no more, and is asked for what it has.

        Args:
            owner: its incarnation.
            now_s: seconds since the epoch.
        """
        for window in self._turns.of(owner):
            self._turns.remove(window)
            window.size = 0
            self.put_back(self.pinned.take_line(window.stream))
            self.reclaiming.ask(window, window.open_uids, now_s)

    def restore(self, owner: int) -> bool:
        """A worker that was to get no more may again; False: it never got any."""
        window = self.window_of(owner)
        if window is None:
            return False
        if not self._turns.of(owner):
            window.size = self.least
            self._turns.add(window)
        return True

    def window_of(self, owner: int) -> Window | None:
        """What a worker is given; None: it is lost."""
        return next((w for w in self.windows.values() if w.owner == owner), None)

    def put_back(self, entries: list[Entry]) -> None:
        """They go first: others have not waited so long."""
        entries.sort(key=lambda entry: entry.call.uid)
        for entry in entries:
            entry.call.stream = self.unplaced
        free = []
        for entry in entries:
            if entry.call.uid in self.places:
                self.offer(entry)
            elif not self.unready.waits(entry):
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
        if type(payload) is bytes or not self.unready.waits(entry):
            self.offer(entry)

    def place(self, call: Call, owner: int) -> None:
        """A task that is about to be submitted runs at this worker, and nowhere else.

        Args:
            call: which.
            owner: incarnation of the worker.
        """
        self.places[call.uid] = call, owner

    def widen(self, size: int) -> None:
        """So many tasks may go to a worker together."""
        self._turns.widen(min(size, self.most))

    def offer(self, entry: Entry) -> None:
        """It is ready: send it, or have it wait for room."""
        if entry.call.uid in self.places:
            self._offer_there(entry)
            return
        ready = self.ready
        if not ready:
            window = self._room(entry.payload)
            if window is not None:
                self.send(window, entry)
                return
        ready[entry.call.uid] = entry
        if not len(ready) % LOOK_EVERY:
            self._caller.look()

    def _offer_there(self, entry: Entry) -> None:
        call, owner = self.places[entry.call.uid]
        window = self.window_of(owner)
        if window is None:
            self._caller.lose(call, "the worker that it was to run at is lost")
        else:
            self.pinned.add(window.stream, entry)
            self._send_pinned(window)

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
        uid = call.uid
        entry = (
            self.unready.waiting.pop(uid, None)
            or self.pinned.take(uid)
            or self.ready.pop(uid, None)
            or self.unready.take_unowned(call)
        )
        if entry is None:
            return False
        self._port.failed(self, entry)
        return True

    def entry_of(self, call: Call) -> Entry | None:
        """What was sent for a call that has ended, if it is not forgotten yet."""
        entries = (e for window in self.windows.values() for e in window.sent)
        return next((e for e in entries if e.call is call), None)

    def stayed(self, call: Call) -> None:
        """Its value stays at the worker, with which it can be lost."""
        entry = self.entry_of(call)
        if entry is not None:
            self._port.stayed(self, entry)

    # -- out ---------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Send what there is room for."""
        if self.unready.unowned:
            self._make_ready(self.unready.take_owned())
        ready = self.ready
        while ready:
            window = self._room(next(iter(ready.values())).payload)
            if window is None:
                return
            self.send(window, ready.popitem(last=False)[1])

    def _make_ready(self, entries: Iterable[Entry]) -> None:
        self.ready.update((entry.call.uid, entry) for entry in entries)

    def _room(self, payload: Any) -> Window | None:
        """Where a task goes: to a worker that is free, near what it takes."""
        if type(payload) is not bytes and payload.handles:
            near = nearest(payload, self.windows.values())
            if near is not None:
                return near
        return self._turns.next()

    def send(self, window: Window, entry: Entry) -> None:
        """To a worker that has room, or is to have it whether or not."""
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
        self._caller.held.feed_starved()
        if CALL_CREDIT - stream.credit >= window.size:
            window.full = True
            # Coroutines of a window all run: each that ends makes room.
            window.filled = not self._overlaps

    def _send_pinned(self, window: Window) -> None:
        stream = window.stream
        while window.has_room and (entry := self.pinned.first(stream)) is not None:
            payload = entry.payload
            if type(payload) is bytes or all(h.owner for h in payload.handles):
                self.send(window, entry)
            elif not self.unready.waits(entry):  # for what was called back meanwhile
                self.offer(entry)
        self.pinned.tidy(stream)

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
            window.adapt(self.least, self.most, last.sent_s)
        if self.pinned.has_line(window.stream):
            self._send_pinned(window)
        if self.ready or self.unready.unowned:
            self.dispatch()
        elif window.is_idle and not self._overlaps:
            self.reclaiming.steal()

    # -- now and then ------------------------------------------------------------------

    def look(self, now_s: float) -> bool:
        """Now and then: call back what has waited long, if others are idle.

        Args:
            now_s: seconds since the epoch.

        Returns:
            Whether to look again; False: until ``arm`` is asked for.
        """
        self._armed = bool(self.ready or self.unready or self.pinned) or any(
            window.sent for window in self.windows.values()
        )
        if self.unready.unowned:
            self.dispatch()
        self.reclaiming.tidy()
        if self.places:
            self.places = {
                uid: place
                for uid, place in self.places.items()
                if place[0].state < DONE
            }
        if not self._overlaps:
            self.reclaiming.forgive(now_s)
            for window in self.windows.values():
                if self.pinned.has_line(window.stream):  # nothing may end there
                    self._send_pinned(window)
            self._unpin()
            self._take_home()
            self.reclaiming.call_back(now_s)
            if not self.ready and any(w.is_idle for w in self.windows.values()):
                # It may have had nothing yet, so that no end of its own says so.
                self.reclaiming.steal()
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
                    self.send(home, entry)

    def _unpin(self) -> None:
        """What waits for one worker, and no longer has to, goes to any."""
        free = self.pinned.take_free(self._is_free, self.most)
        self._make_ready(free)
        self.dispatch()

    def _is_free(self, entry: Entry) -> bool:
        return entry.call.uid not in self.places and all(
            call.state >= DONE for call in arguments_of(entry.payload)
        )

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
