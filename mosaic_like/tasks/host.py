"""Where functions run: one in each worker for each runtime that submits some.

A host is a tessera whose methods are the functions that it was told of. A function is
told once, before its first call, as bytes that are read when that call runs: what is
wrong with them is then the error of each call. So a function task is an ordinary call
of a method, and all that calls have, it has too.
"""

from __future__ import annotations

import pickle
from typing import Any

from .code import Located

LEARN = "__learn__"
FORGET = "__forget__"


class FunctionHost:
    """Runs plain functions, one after the other."""

    def __init__(self) -> None:
        self._unread: dict[str, bytes] = {}

    def __learn__(self, name: str, blob: bytes, function: Any) -> None:
        """From now on a function has this name.

        Args:
            name: of a method; it does not begin with an underscore.
            blob: the pickled function, or nothing.
            function: itself, if it mentions proxies.
        """
        if blob:
            self.__dict__.pop(name, None)
            self._unread[name] = blob
        else:
            self.__dict__[name] = function

    def __forget__(self, name: str) -> None:
        """It will not be called any more."""
        self.__dict__.pop(name, None)
        self._unread.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        """Reached once for each function, by its first call."""
        blob = None if name.startswith("_") else self._unread.get(name)
        if blob is None:
            raise AttributeError(
                f"the function {name!r} did not arrive here: what it refers to could "
                "not be read; see the log of this worker"
            )
        function = pickle.loads(blob)
        if type(function) is Located:
            function = function.load()
        self.__dict__[name] = function
        del self._unread[name]
        return function


class CoroutineHost(FunctionHost):
    """Runs coroutine functions, which overlap."""
