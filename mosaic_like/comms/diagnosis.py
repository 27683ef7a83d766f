"""The path to the part of a value that cannot be pickled, for people.

Runs only after a failure. Each argument is pickled once more by a pickler that keeps
nothing and remembers the last object it looked at, which is nearly always the one at
fault; then that object is looked for from the argument, breadth first, by identity and
without running code of the value. Both are bounded, in time and number: a cycle, a huge
container or an object whose methods raise ends the search, and the text says less.
"""

from __future__ import annotations

import collections
import time
import types
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_TIME_S = 0.5
_NODES = 100_000
_CHILDREN = 10_000  # of one container
_REASON_CHARS = 300

Root = tuple[str, Any]
_Link = tuple[str, Any]  # how the path goes on, and what is there

_HINTS = (
    (("_thread.lock", "_thread.RLock", "threading.", "_asyncio.", "asyncio."),
     "make it inside the tessera, or give the class __getstate__ without it"),
    (("_io.",), "send its path and open it inside the tessera"),
    (("socket.", "ssl.", "sqlite3.", "subprocess."),
     "open it inside the tessera, or give the class __getstate__ without it"),
    (("generator", "async_generator", "zip", "map", "filter", "enumerate"),
     "send a list of what it yields"),
    (("coroutine",), "await it first and send what it gives"),
    (("_contextvars.ContextVar",),
     "pass its value, var.get(), as an argument; or make the variable in a module, "
     "import that and write module.var, which is then the one of the process where "
     "this runs"),
    (("frame", "traceback"), "send its text"),
)  # fmt: skip
_HINT = "leave it out, or give the class __getstate__ without it"


def named(
    args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str] = ()
) -> list[Root]:
    """The arguments of a call with what to name them by."""
    roots = [
        (names[i] if i < len(names) else f"args[{i}]", a) for i, a in enumerate(args)
    ]
    return roots + list(kwargs.items())


def explain(roots: Sequence[Root], what: str, error: Exception) -> SerializationError:
    """The error to raise in place of ``error``.

    Args:
        roots: the values that were to be sent, each with its name; empty: ``what``.
        what: the call, such as ``Solver.solve``, or the value; may be empty.
        error: what pickling raised.
    """
    deadline_s = time.monotonic() + _TIME_S
    head = f"cannot send {what}" if what else "cannot send"
    for name, value in roots:
        fault = _last_seen(value, deadline_s)
        if fault is None:
            continue
        if what and name:
            head = f"cannot send argument {name.partition('[')[0]!r} of {what}"
            if name.startswith("args["):
                head = f"cannot send {name} of {what}"
        return SerializationError(_text(head, name, value, fault, error, deadline_s))
    return SerializationError(f"{head}: {_reason(error)}\n  hint    {_HINT}")


class _Fault:
    def __init__(self, target: Any, error: BaseException) -> None:
        self.target = target
        self.error = error


class _OutOfTime(Exception):
    pass


def _last_seen(value: Any, deadline_s: float) -> _Fault | None:
    """What was looked at last when pickling failed; None: it does not fail."""
    from .by_value import ValuePickler
    from .definitions import Definitions

    class Sink:
        def write(self, data: Any) -> int:
            if time.monotonic() > deadline_s:
                raise _OutOfTime
            return len(data)

    class Tracer(ValuePickler):
        last: Any = value

        def reducer_override(self, obj: Any) -> Any:
            self.last = obj
            return super().reducer_override(obj)

        def set_aside(self, buffer: Any) -> bool:
            return False

    tracer = Tracer(Sink(), Definitions())
    try:
        tracer.dump(value)
    except _OutOfTime:
        return None
    except Exception as error:
        return _Fault(tracer.last, error)
    return None


def _text(
    head: str, name: str, value: Any, fault: _Fault, error: Exception, deadline_s: float
) -> str:
    is_lone, name = not name, name or "value"
    cause = fault.error
    if isinstance(cause, RecursionError) or isinstance(cause.__cause__, RecursionError):
        return (
            f"{head}: {name} is nested too deeply\n"
            "  hint    flatten it: a chain of objects can be sent as a list"
        )
    kind = type_name(fault.target)
    links = find(value, fault.target, deadline_s)
    if links is None:
        place = f"{name} holds {_article(kind)}"
        inside = [value]
    else:
        path = name + "".join(label for label, _ in links)
        if is_lone and path.startswith("value's "):
            path = path.replace("value's", "its", 1)  # the head has named it
        place = f"{path} is {_article(kind)}"
        inside = [value, *(child for _, child in links)]
    chain = [
        type(step).__qualname__
        for step in inside
        if type(step) not in (list, tuple) or step is inside[-1]
    ]
    lines = [f"{head}: {place}"]
    if len(chain) > 1:
        lines.append(f"  inside  {' -> '.join(_shortened(chain))}")
    lines.append(f"  reason  {_reason(cause)}")
    lines.append(f"  hint    {_hint(kind)}")
    return "\n".join(lines)


def _article(kind: str) -> str:
    return f"{'an' if kind[:1] in 'aeiouAEIOU' else 'a'} {kind}"


def _shortened(chain: list[str]) -> list[str]:
    return chain if len(chain) <= 8 else [*chain[:4], "...", *chain[-3:]]


def _reason(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "its text cannot be shown"
    text = f"{type(error).__name__}: {' '.join(text.split())}"
    return text if len(text) <= _REASON_CHARS else text[:_REASON_CHARS] + "..."


def _hint(kind: str) -> str:
    for starts, hint in _HINTS:
        if kind.startswith(starts):
            return hint
    return _HINT


def type_name(value: Any) -> str:
    kind = type(value)
    module = kind.__module__
    if module in ("builtins", "__main__") or not isinstance(module, str):
        return kind.__qualname__
    return f"{module}.{kind.__qualname__}"


# -- the path --------------------------------------------------------------------------


def find(root: Any, target: Any, deadline_s: float) -> list[_Link] | None:
    """The links from ``root`` to that very ``target``; None: not found in time."""
    from .serialization import Referent

    if root is target:
        return []
    # Each node with how it was reached; nodes are kept, so that no id is used twice.
    nodes: list[tuple[Any, int, str]] = [(root, -1, "")]
    seen = {id(root)}
    position = 0
    while position < len(nodes) < _NODES and time.monotonic() < deadline_s:
        for label, child in _children(nodes[position][0]):
            if child is target:
                return _links(nodes, position, (label, child))
            if isinstance(child, Referent):
                continue  # it travels as a reference: what it holds is not pickled
            if id(child) not in seen and not isinstance(child, _LEAVES):
                seen.add(id(child))
                nodes.append((child, position, label))
        position += 1
    return None


_LEAVES = (int, float, str, bytes, bytearray, complex, type(None), types.CodeType)


def _links(
    nodes: list[tuple[Any, int, str]], position: int, last: _Link
) -> list[_Link]:
    links = [last]
    while position > 0:
        value, parent, label = nodes[position]
        links.append((label, value))
        position = parent
    return links[::-1]


def _children(value: Any) -> Iterator[_Link]:
    """What a value holds. Methods of the built-in types only, never the value's own."""
    try:
        yield from islice(_items(value), _CHILDREN)
        yield from islice(_attributes(value), _CHILDREN)
    except Exception:
        # Changed by another thread meanwhile, or stranger: the search goes on.
        return


def _items(value: Any) -> Iterator[_Link]:
    kind = type(value)
    if issubclass(kind, dict):
        for key, item in dict.items(value):
            yield f"[{_key(key)}]", item
            if type(key) not in (str, int):
                yield f".keys()[{_key(key)}]", key
    elif issubclass(kind, tuple):
        yield from _indexed(tuple.__iter__(value))
    elif issubclass(kind, list):
        yield from _indexed(list.__iter__(value))
    elif issubclass(kind, collections.deque):
        yield from _indexed(collections.deque.__iter__(value))
    elif issubclass(kind, set):
        yield from (("{...}", item) for item in set.__iter__(value))
    elif issubclass(kind, frozenset):
        yield from (("{...}", item) for item in frozenset.__iter__(value))
    elif kind is types.FunctionType:
        yield from _of_function(value)
    elif kind is types.MethodType:
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif kind is types.MappingProxyType:
        yield from _items(dict(value))
    elif issubclass(kind, type):
        for name, item in type.__dict__["__dict__"].__get__(value).items():
            yield f".{name}", item
            if isinstance(item, staticmethod | classmethod):
                yield f".{name}", item.__func__
    elif kind.__module__ == "functools" and kind.__name__ == "partial":
        yield ".func", value.func
        yield ".args", value.args
        yield ".keywords", value.keywords


def _indexed(items: Iterable[Any]) -> Iterator[_Link]:
    for index, item in enumerate(items):
        yield f"[{index}]", item


def _of_function(function: types.FunctionType) -> Iterator[_Link]:
    for name, cell in zip(
        function.__code__.co_freevars, function.__closure__ or (), strict=False
    ):
        try:
            yield f"'s variable {name}", cell.cell_contents
        except ValueError:  # not bound yet
            continue
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        for name in code.co_names:
            if name in function.__globals__:
                yield f"'s global {name}", function.__globals__[name]
        codes.extend(c for c in code.co_consts if isinstance(c, types.CodeType))
    for index, item in enumerate(function.__defaults__ or ()):
        yield f"'s default {index}", item


def _attributes(value: Any) -> Iterator[_Link]:
    if isinstance(value, type | types.ModuleType):
        return
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        attributes = {}
    if type(attributes) is dict:
        for name, item in list(attributes.items()):
            yield f".{name}", item
    for cls in type(value).__mro__:
        for name, member in list(vars(cls).items()):
            if type(member) is types.MemberDescriptorType:
                try:
                    yield f".{name}", member.__get__(value)
                except AttributeError:  # a slot that is not set
                    continue
    if isinstance(value, BaseException):
        yield ".args", value.args


def _key(key: Any) -> str:
    if type(key) in (str, int, float, bool, bytes, type(None)):
        text = repr(key)
        return text if len(text) <= 40 else text[:37] + "..."
    return f"<{type(key).__qualname__}>"
