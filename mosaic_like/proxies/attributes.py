"""Attributes of a tessera: read by awaiting them, read and set by functions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from ..comms.frames import PASSED_ON, UNSEEN
from ..comms.messages import GET_ATTRIBUTE, SET_ATTRIBUTE, Extra
from .methods import NOTHING, RemoteMethod
from .refusing import NotAValue, check_remote
from .schema import Method
from .task import TaskProxy

if TYPE_CHECKING:
    from collections.abc import Generator

    from .tessera import TesseraProxy


class RemoteAttribute(NotAValue):
    """``proxy.attribute``: awaiting it reads it, in order with the calls."""

    __slots__ = ("_awaited", "_name", "_proxy")

    def __init__(self, proxy: TesseraProxy[Any], name: str) -> None:
        self._proxy = proxy
        self._name = name
        self._awaited = False

    def __await__(self) -> Generator[Any, None, Any]:
        self._awaited = True
        handle = self._proxy._mosaic_handle
        runtime = handle.runtime
        call = runtime.submit(handle, self._name, NOTHING, Extra(kind=GET_ATTRIBUTE))
        with PASSED_ON:
            return (yield from TaskProxy(runtime, call).result().__await__())

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self._awaited = True
        schema = self._proxy._mosaic_schema
        if schema.has_getattr:
            method = Method(self._name, _anything, bound=False)
            return RemoteMethod(self._proxy._mosaic_handle, schema, method)(
                *args, **kwargs
            )
        hint = schema.nearest(self._name)
        if self._name in schema.attributes:
            hint = (
                f": it is an attribute, whose value is read by await proxy.{self._name}"
            )
        with UNSEEN:
            raise AttributeError(f"{schema.name} has no method {self._name!r}{hint}")

    def __reduce__(self) -> NoReturn:
        raise self._forgot(
            f", or send mosaic.get_attr(proxy, {self._name!r}), a task that stands for "
            "the value"
        )

    def __del__(self) -> None:
        # Not at a prompt: completion reads attributes, and repr says it to people.
        if not self._awaited and not hasattr(sys, "ps1"):
            import warnings

            warnings.warn(
                f"the remote attribute {self._name!r} of "
                f"{self._proxy._mosaic_handle.stream.label} was never awaited; "
                f"write 'await proxy.{self._name}'",
                RuntimeWarning,
                stacklevel=2,
            )

    def _forgot(self, hint: str = "") -> TypeError:
        self._awaited = True
        return TypeError(
            f"this is a remote attribute ({self._name}), not its value; write "
            f"'await proxy.{self._name}'{hint}"
        )

    __contains__ = __eq__ = __ne__ = NotAValue.__bool__
    __hash__ = object.__hash__

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            raise self._forgot()
        raise AttributeError(f"a remote attribute has no {name!r}")

    def __format__(self, spec: str) -> str:
        if spec:  # such as .2f: of a value
            raise self._forgot()
        return repr(self)

    @property
    def __signature__(self) -> Any:
        # Without one inspect.signature compares the object, and completers fail.
        return Method(self._name, _anything, bound=False).signature

    def __repr__(self) -> str:
        self._awaited = True  # a REPL has shown it: that is no mistake
        label = self._proxy._mosaic_handle.stream.label
        return f"<attribute {self._name} of {label} · await it for the value>"


def _anything(*args: Any, **kwargs: Any) -> None:
    """The signature of what nobody knows."""


def get_attr(proxy: TesseraProxy[Any], name: str) -> TaskProxy[Any]:
    """Read an attribute of a tessera: a task, in order with the calls.

    The same as ``await proxy.name``, for names that are those of methods, or are known
    only when the program runs.

    Args:
        proxy: of a tessera.
        name: of the attribute, or of a property.

    Raises:
        AttributeError: the name begins with an underscore; by awaiting: the object has
            no such attribute.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Model:
    ...     def __init__(self): self.speed = 3
    >>> async def main():
    ...     return await mosaic.get_attr(Model.remote(), "speed").result()
    >>> mosaic.run(main, num_workers=1)
    3
    """
    check_remote(name)
    handle = proxy._mosaic_handle
    runtime = handle.runtime
    call = runtime.submit(handle, name, NOTHING, Extra(kind=GET_ATTRIBUTE))
    return TaskProxy(runtime, call)


def set_attr(proxy: TesseraProxy[Any], name: str, value: Any) -> TaskProxy[None]:
    """Set an attribute of a tessera: a task, in order with the calls.

    Args:
        proxy: of a tessera.
        name: of the attribute.
        value: what it becomes; a task stands for its value.

    Raises:
        AttributeError: the name begins with an underscore; by awaiting: it cannot be
            set.
        SerializationError: the value cannot travel.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Model:
    ...     def __init__(self): self.speed = 3
    >>> async def main():
    ...     model = Model.remote()
    ...     mosaic.set_attr(model, "speed", 4)  # need not be awaited
    ...     return await model.speed
    >>> mosaic.run(main, num_workers=1)
    4
    """
    check_remote(name)
    handle = proxy._mosaic_handle
    runtime = handle.runtime
    setter = RemoteMethod(
        handle, proxy._mosaic_schema, Method(name, _anything, bound=False)
    )
    payload = runtime.dump_call(setter, (value,), {})
    call = runtime.submit(handle, name, payload, Extra(kind=SET_ATTRIBUTE))
    return TaskProxy(runtime, call)
