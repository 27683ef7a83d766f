"""What is known of a user's class without asking: methods, attributes, arity."""

from __future__ import annotations

import difflib
import functools
import inspect
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .of_class import OPTIONS_ATTRIBUTE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MANY = 1 << 30


class Method:
    """One method: how it may be called.

    ``low`` and ``high`` are the numbers of positional arguments with which a call
    without keywords certainly fits; anything else is bound to the signature.
    """

    __slots__ = ("function", "high", "is_stream", "low", "name", "signature")

    def __init__(self, name: str, function: Any, bound: bool) -> None:
        self.name = name
        self.function = function
        self.is_stream = (
            inspect.isgeneratorfunction(function)
            or inspect.isasyncgenfunction(function)
            or name == "__aiter__"
        )
        self.signature = _signature(function, bound)
        self.low, self.high = _arity(self.signature)

    def check(
        self, owner: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Raise TypeError if a call does not fit.

        Args:
            owner: the name of its class; empty: it is a function.
            args, kwargs: of the call.
        """
        if self.signature is None:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            name = f"{owner}.{self.name}" if owner else self.name
            raise TypeError(f"{name}{self.signature}: {error}") from None

    def takes(self, name: str) -> bool:
        """A keyword of this name would be the user's."""
        if self.signature is None:
            return True
        parameters = self.signature.parameters
        return name in parameters or any(
            p.kind is p.VAR_KEYWORD for p in parameters.values()
        )


class Schema:
    """The public names of a class."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.name = cls.__name__
        methods: dict[str, Method] = {}
        attributes: set[str] = set()
        for name, value in _members(cls).items():
            bound = True
            function = value
            if isinstance(value, staticmethod | classmethod):
                bound = isinstance(value, classmethod)
                function = value.__func__
            if inspect.isroutine(function) or isinstance(
                function, functools.partialmethod
            ):
                methods[name] = Method(name, function, bound)
            elif not name.startswith("_"):
                attributes.add(name)
        for base in cls.__mro__:
            annotations = inspect.get_annotations(base)
            attributes.update(n for n in annotations if not n.startswith("_"))
        self.methods: Mapping[str, Method] = MappingProxyType(methods)
        self.attributes = frozenset(attributes)
        self.has_getattr = hasattr(cls, "__getattr__")
        self.constructor = _constructor(cls)

    @property
    def exposed(self) -> Collection[str]:
        """Names beginning with an underscore that the class lets others call."""
        options = getattr(self.cls, OPTIONS_ATTRIBUTE, {})
        return options.get("expose", ())  # type: ignore[no-any-return]  # checked when it was set

    @property
    def public(self) -> list[str]:
        """What completion offers."""
        names = {n for n in self.methods if not n.startswith("_")}
        return sorted(names | self.attributes)

    def nearest(self, name: str) -> str:
        """``; did you mean 'x'?`` or nothing."""
        close = difflib.get_close_matches(name, self.public, 1)
        return f"; did you mean {close[0]!r}?" if close else ""


@functools.lru_cache(maxsize=1024)
def schema_of(cls: type) -> Schema:
    """The schema of a class, made once."""
    return Schema(cls)


def _members(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base is not object:
            found.update(base.__dict__)
    hidden = ("__module__", "__doc__", "__dict__", "__weakref__", "__init__")
    return {
        name: value
        for name, value in found.items()
        if name not in hidden and not getattr(value, "__mosaic__", False)
    }


def _constructor(cls: type) -> Method:
    init = cls.__init__  # type: ignore[misc]  # of this very class
    new: Any = cls.__new__
    if init is object.__init__ and new is not object.__new__:
        return Method("__init__", cls.__new__, True)
    method = Method("__init__", init, True)
    if init is object.__init__:
        method.signature = inspect.Signature()
        method.low = method.high = 0
    return method


def _signature(function: Any, bound: bool) -> inspect.Signature | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None  # written in C without a text signature
    if not bound:
        return signature
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        parameters = parameters[1:]
    return signature.replace(parameters=parameters)


def _arity(signature: inspect.Signature | None) -> tuple[int, int]:
    if signature is None:
        return 0, MANY
    low = high = 0
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            high = MANY
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                return 1, 0  # no call without keywords fits
        elif parameter.kind is not parameter.VAR_KEYWORD:
            high += 1
            if parameter.default is parameter.empty:
                low += 1
    return low, high
