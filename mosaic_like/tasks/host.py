"""Where functions run: hosts, one in each worker for each runtime that submits some.

A host is a tessera whose methods are the functions that its submitter has sent there,
so a function task is an ordinary call, and all that calls have, it has too. A function
is sent once, before its first call, and read when that call runs: what is wrong with
it is then the error of each call. It does not come as a call itself, since one would
wait behind those that run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from .. import session
from ..errors import ProtocolError
from ..ids import maker
from .code import Located

if TYPE_CHECKING:
    from ..comms.messages import Learn

_MOST = 100_000  # functions of one submitter


class Learned:
    """The functions that were sent to one runtime, by host and name.

    Args:
        runtime: a ``runtimes.actor.ActorRuntime``.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._unread: dict[int, dict[str, Any]] = {}
        self.hosts: WeakValueDictionary[int, FunctionHost] = WeakValueDictionary()

    def learn(self, message: Learn, buffers: Any, sender: int) -> None:
        """A function has come; one without data is not called any more.

        Raises:
            ProtocolError: it is for another's host, or one too many.
        """
        if maker(message.host) != sender:
            raise ProtocolError("it sends a function to what another has made")
        functions = self._unread.setdefault(message.host, {})
        if not message.data:
            functions.pop(message.name, None)
            host = self.hosts.get(message.host)
            if host is not None:
                host.__dict__.pop(message.name, None)
            return
        if len(functions) >= _MOST:
            raise ProtocolError(f"one more than {_MOST} functions")
        data: Any = message.data
        if message.extra is not None:
            data = self._runtime.arrived(message, buffers, sender)
        functions[message.name] = data

    def read(self, host: int, name: str) -> Any:
        """A function that was sent.

        Raises:
            AttributeError: it was not.
            Exception: what reading it raises.
        """
        data = self._unread.get(host, {}).get(name)
        if data is None:
            raise AttributeError(f"no function {name!r} was sent here")
        return self._runtime.values.item(data)

    def forget(self, host: int) -> None:
        """A host is closed."""
        self._unread.pop(host, None)

    def lost(self, incarnation: int) -> None:
        """A submitter is gone."""
        for host in [h for h in self._unread if maker(h) == incarnation]:
            del self._unread[host]


class FunctionHost:
    """Runs plain functions, one after the other; coroutine functions overlap.

    Args:
        key: under which functions are sent to it.
    """

    def __init__(self, key: int) -> None:
        self._key = key
        session.current().learned.hosts[key] = self

    def __getattr__(self, name: str) -> Any:
        """Reached once for each function, by its first call."""
        if name.startswith("_"):
            raise AttributeError(name)
        function = session.current().learned.read(self._key, name)
        if type(function) is Located:
            function = function.load()
        self.__dict__[name] = function
        return function

    def __close__(self) -> None:
        session.current().learned.forget(self._key)
