"""Who wants to know of the calls of a runtime: records, ``on_state`` and ``info``.

As long as nothing is recorded no call comes by here: while something is,
``runtime.submit`` stands for ``Observing.submit``. What only those need who want to
know is imported when the first does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import messages as wire
from ..core.call import rare
from ..core.task import DONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.call import Call
    from ..proxies.history import Transition
    from ..proxies.records import TaskInfo
    from ..tasks.recording import Recorder
    from .actor import ActorRuntime

# Calls of users; what else is sent serves the runtime, and warehouses.
_KINDS = (wire.CALL, wire.STREAM, wire.RESULT_CALL, wire.APPLY)


class Observing:
    """Of one runtime; from any thread, but what says on the loop."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self.recorders: list[Recorder] = []
        # Those recorded that have not ended, by uid, and to whom they go.
        self._open: dict[int, tuple[Call, list[Recorder]]] = {}

    # -- records -----------------------------------------------------------------------

    def start(self, recorder: Recorder) -> None:
        """Give it a record of each call from now on."""
        self.recorders.append(recorder)
        # Beside the class's own: this is looked up first.
        self._runtime.submit = self.submit  # type: ignore[method-assign]  # until stop

    def stop(self, recorder: Recorder) -> None:
        """No more calls; those that have not ended are recorded as they are."""
        self.recorders.remove(recorder)
        if not self.recorders:
            del self._runtime.submit
        for uid, (call, recorders) in list(self._open.items()):
            if recorder in recorders:
                recorders.remove(recorder)
                recorder.write(self.info(call).asdict())
            if not recorders:
                del self._open[uid]

    def close(self) -> None:
        """The runtime ends."""
        for recorder in list(self.recorders):
            self.stop(recorder)
            recorder.close()  # that of the configuration, which no block ends

    def submit(
        self,
        handle: Any,
        method: str,
        payload: Any,
        extra: wire.Extra | None = None,
        depth: int = 2,
    ) -> Call:
        """``ActorRuntime.submit``, while something is recorded."""
        kind = wire.CALL if extra is None else extra.kind
        is_users = kind in _KINDS and not method.startswith("__")
        if is_users:
            extra = extra or wire.Extra()
            extra.told = True
        submit = type(self._runtime).submit
        call = submit(self._runtime, handle, method, payload, extra, depth + 1)
        if is_users:
            self._on_loop(self.submitted, call, payload)
        return call

    def submitted(self, call: Call, payload: Any) -> None:
        """On the loop: a call is to be recorded."""
        from ..proxies.records import About, parents_of

        item = rare(call)
        if item.about is None:
            item.about = About(parents=parents_of(payload))
        self._watched(call)
        if call.uid not in self._open:
            self._open[call.uid] = call, list(self.recorders)
            self._runtime.when_settled(call, lambda: self._ended(call))

    def _ended(self, call: Call) -> None:
        _, recorders = self._open.pop(call.uid, (call, []))
        if recorders:
            record = self.info(call).asdict()
            for recorder in recorders:
                recorder.write(record)

    # -- one call ----------------------------------------------------------------------

    def info(self, call: Call) -> TaskInfo:
        """What is known of a call."""
        from ..proxies.records import info_of

        return info_of(self._runtime, call)

    def keep(self, call: Call) -> None:
        """It is retried: what is known of its moves so far stays known."""
        from ..proxies.history import moves_of
        from ..proxies.records import Watched

        item = rare(call)
        if item.watched is None:
            item.watched = Watched()
            item.watched.transitions = moves_of(call)

    def renamed(self, call: Call, before: int) -> None:
        """It goes on under another uid."""
        found = self._open.pop(before, None)
        if found is not None:
            self._open[call.uid] = found

    def watch(self, call: Call, then: Callable[..., Any]) -> None:
        """Call ``then(info, transition)`` on the loop for each move from now on."""
        from ..tasks.hooks import call_hooks

        def moved(call: Call, transition: Transition) -> None:
            what = f"on_state of {call.name}"
            call_hooks(self._runtime, [then], what, self.info(call), transition)

        self._on_loop(self._add, call, moved)

    def _add(self, call: Call, moved: Callable[..., Any]) -> None:
        if call.state < DONE:
            self._watched(call, moved)

    def _watched(self, call: Call, *then: Callable[[Call, Transition], Any]) -> None:
        """Keep what is heard of it, and tell these of what is to come."""
        from ..proxies.records import Watched

        item = rare(call)
        if item.watched is not None:
            item.watched.add(*then)
            return
        # To one who asks later it is no news that it was submitted.
        is_new = item.about is not None and item.guard is None
        watched = item.watched = Watched(then if is_new else ())
        watched.look(call, call.submitted_s)
        if not is_new:
            watched.add(*then)
        self._runtime.when_settled(call, lambda: watched.look(call))

    def _on_loop(self, function: Callable[..., Any], *args: Any) -> None:
        if self._runtime.on_loop:
            function(*args)
        else:
            self._runtime.post(function, *args)
