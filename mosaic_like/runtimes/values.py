"""Values out of payloads: what stands for the tesserae and tasks that they mention.

Called on the thread that runs user code, because unpickling is user code too, and on
whatever thread asks a proxy for its value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..comms import direct
from ..comms import messages as wire
from ..comms.exceptions import load_error, not_rebuilt
from ..comms.serialization import Payload
from ..core.call import Call, rare
from ..core.parts import Parts
from ..core.payloads import Arrived
from ..core.references import Grant
from ..core.task import DONE, Task
from ..errors import MosaicError, RuntimeDisconnectedError, SerializationError
from ..proxies.handles import TesseraHandle
from ..proxies.outputs import AFTER, NoSuchOutput, TaskOutput
from ..proxies.task import TaskHandle, TaskProxy
from ..proxies.tessera import proxy_of
from ..proxies.warehouse import WarehouseObject
from .failures import error_of
from .port import ArgumentFailed, Raised

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .actor import ActorRuntime

_WHOLE = ("task", "quoted", "allowed")  # how a task itself is mentioned
_TOKENS = ("after", "done")  # how its end is
_UPSTREAM = wire.REASONS[wire.UPSTREAM]
_PUT = ("put",)  # with a mention of a task: it is a value of the warehouse


class Values:
    """The loading side of one runtime's serializer."""

    def __init__(self, runtime: ActorRuntime) -> None:
        self._runtime = runtime
        self._serializer = runtime.serializer

    def call(self, task: Task) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arguments of a call; tasks among them are replaced by their values."""
        try:
            return self._call(task)
        except (MosaicError, MemoryError, ArgumentFailed, NoSuchOutput):
            raise
        except (Exception, SystemExit) as error:
            name = task.name
            raise SerializationError(
                not_rebuilt(f"an argument of {name}", error)
            ) from error

    def _call(self, task: Task) -> tuple[Sequence[Any], dict[str, Any]]:
        arrived = task.buffers
        data = task.data
        if type(arrived) is not Arrived:
            return self._serializer.loads_call(data)
        arguments = task.arguments
        if data[0] == direct.DIRECT:
            return direct.load(data, arguments, self._of_argument), {}
        args, kwargs = self._serializer.loads_call(
            data, arrived.buffers, self._resolver(arrived.grants, arguments)
        )
        if arguments is not None:
            args = tuple(arg for arg in args if arg is not AFTER)
        return args, kwargs

    def cls(self, task: Task) -> type:
        """The class that a constructor is called of."""
        cls: type = self._serializer.loads(task.rare)
        task.rare = None
        return cls

    def of(self, call: Call) -> Any:
        """The value of a call that is done and whose value is here."""
        result = call.result
        try:
            if type(result) is bytes:
                return self._serializer.loads(result)
            item = rare(call)
            if not item.cached:
                item.value = self._load(result)
                item.cached = True
        except (MosaicError, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # nor may one end the program
            raise SerializationError(
                not_rebuilt(f"the result of {call.name}", error)
            ) from error
        return item.value

    def item(self, result: Any) -> Any:
        """What came with a message: an item of a stream."""
        return self._load(result)

    def error(self, call: Call) -> BaseException:
        """The error of a call that ended without a value, rebuilt each time.

        A kept one would gather the frames of all who raise it, and keep them alive.
        """
        if call.rare is not None:
            call.rare.unheard = False
            if call.rare.reason == _UPSTREAM and not self._runtime.stopping:
                self._runtime.post(self._runtime.unheard_failures.heard, call)
        return load_error(call.result, self._serializer)

    # -- references --------------------------------------------------------------------

    def _resolver(self, handles: Any, arguments: Any) -> Callable[..., Any]:
        """What stands for the references of a payload.

        Args:
            handles: grants, or the handles of a payload that was made here.
            arguments: of a call: tasks are replaced by their values.
        """

        picked: dict[int, dict[int | str, Any]] = {}  # of tasks that came in parts

        def resolve(index: int, args: tuple[Any, ...]) -> Any:
            what = args[0]
            handle = handles[index]
            if what == "tessera":
                if len(args) > 4:
                    if type(handle) is Grant:
                        handle = self._runtime.restarts.met(handle, *args[2:])
                elif type(handle) is Grant:
                    handle = self._tessera(handle, args[2])
                    if len(args) > 3:
                        handle.stream.options = args[3]
                return proxy_of(args[1], handle)
            if arguments is None:
                is_own = isinstance(handle, TaskHandle)
                kind = WarehouseObject if args[1:] == _PUT else TaskProxy
                proxy = handle.proxy if is_own else self._task(handle, kind)
                return proxy if what in _WHOLE else TaskOutput.rebuild(proxy, args)
            if what in _TOKENS:
                _payload_of(arguments[index])  # raises if it has failed
                return AFTER if what == "after" else None
            if what == "quoted":
                return self._task(handle, TaskProxy)
            argument = arguments[index]
            if what == "allowed":
                return self._allowed(argument, args)
            if type(argument) is Parts:
                if index not in picked:
                    picked[index] = self._picked(argument)
                return picked[index][args[1]]
            value = self._of_argument(argument)
            return value if what == "task" else TaskOutput.pick(value, args[1])

        return resolve

    def _tessera(self, grant: Grant, label: str) -> TesseraHandle:
        runtime = self._runtime
        stream = runtime.placing.met(grant.uid, grant.owner, label)
        return TesseraHandle(runtime, grant.uid, stream, None, grant)

    def _task(self, grant: Grant, kind: type[TaskProxy[Any]]) -> TaskProxy[Any]:
        """A proxy for a task that another runtime made."""
        runtime = self._runtime
        stream = runtime.placing.foreign(runtime.grants.owner_now(grant.owner))
        method = "" if kind is TaskProxy else "put"
        call = Call(grant.uid, stream, method, None, 0, 0.0)
        rare(call).grant = grant
        return kind(self._runtime, call)

    def _of_argument(self, argument: Task | Call) -> Any:
        if not isinstance(argument, Task):
            return self._load(argument.result)
        raw = argument.raw
        if type(raw) is bytes and argument.result is None and argument.state <= DONE:
            return self._serializer.loads(raw)  # as below, for what is most common
        payload = _payload_of(argument)
        if type(payload) is not Payload:
            data = argument.outcome.data if payload is None else payload
            return self._serializer.loads(data)
        return self._serializer.loads(
            payload.data, payload.inside, self._resolver(payload.handles, None)
        )

    def _allowed(self, argument: Task | Call, args: tuple[Any, ...]) -> Any:
        """The value of an argument that may have failed, or its error."""
        if isinstance(argument, Task):
            try:
                return self._of_argument(argument)
            except ArgumentFailed:
                return load_error(error_of(argument), self._serializer)
        if argument.state != DONE:
            return load_error(argument.result, self._serializer)
        return self._load(argument.result)

    def _picked(self, parts: Parts) -> dict[int | str, Any]:
        call = parts.call
        if call.state != DONE:
            raise self.error(call)
        value = self._load(call.result)
        values = [value] if len(parts.keys) == 1 else value
        return dict(zip(parts.keys, values, strict=True))

    def _load(self, result: Any) -> Any:
        if type(result) is bytes:
            return self._serializer.loads(result)
        if result.size:  # an item of a stream, whose maker is gone
            raise RuntimeDisconnectedError(f"an item is lost: {result.shared.why}")
        return self._serializer.loads(
            result.data, result.buffers, self._resolver(result.grants, None)
        )


def _payload_of(argument: Task | Call) -> Any:
    """What an argument has given, as far as that is known where it is taken.

    Raises:
        ArgumentFailed: it has failed, and the loop had not heard of that when the call
            was handed to this thread.
    """
    if not isinstance(argument, Task):
        return argument.result
    payload = argument.raw if argument.result is None else argument.result
    if type(payload) is Raised or argument.state > DONE:
        # What was told counts, where a thread has found it to end otherwise.
        ended = payload if argument.outcome is None else argument.outcome
        cancelled = ended.reason == wire.CANCELLED
        raise ArgumentFailed(argument, wire.CANCELLED if cancelled else wire.UPSTREAM)
    return payload
