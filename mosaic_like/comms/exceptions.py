"""Errors that travel: from an exception to bytes, and back to the same type.

The bytes are msgpack, so that type and text can be shown without unpickling; inside is
a pickle of class, arguments and attributes for who wants the exception itself. Writing
never fails and reading never raises: what cannot be rebuilt arrives as RemoteError.
Which of them ends a task, and with what reason, is not decided here.

An exception is rebuilt without its own ``__init__``: the built-in class below it is
initialised with ``args``, then the attributes are put back. An ``__init__`` that takes
other arguments than ``args`` holds is common, and so it does no harm.
"""

from __future__ import annotations

import pickle
import traceback
import types
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import MosaicError, RemoteError, Verdict
from ..text import lines_for_terminal, printable
from .frames import has_others, without_own
from .remote_frames import Frame, frames_of, joined

if TYPE_CHECKING:
    from types import TracebackType

    from .serialization import Serializer

MOST_NODES = 32  # of a chain of causes and contexts, groups with all members
_MESSAGE_CHARS = 10_000
_TEXT_CHARS = 100_000
_NOTES = 50
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by a class statement

# Raised here as themselves they would end a program, or an iteration, that is not
# the one that they were meant for.
_CONTROL = (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration,
            StopAsyncIteration)  # fmt: skip
# What is the same wherever it is unpickled.
_PLAIN = (str, int, Verdict, types.NoneType)
# What code of a user may raise in places where nothing is expected to.
_ANYTHING = (Exception, SystemExit, GeneratorExit)

_BECAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"


class Node(msgspec.Struct, array_like=True):
    """One exception of a chain; others are named by their index, -1 for none."""

    type_name: str
    message: str
    text: str
    frames: list[Frame]
    notes: list[str]
    pickled: bytes = b""
    reason: str = ""
    cause: int = -1
    context: int = -1
    suppress: bool = False
    members: list[int] = []


# -- to bytes --------------------------------------------------------------------------


def dump_error(
    exc: BaseException, serializer: Serializer, *, note: str | None = None
) -> bytes:
    """An exception as bytes.

    Args:
        exc: any exception; it is not changed.
        serializer: of this runtime.
        note: a line to add to its notes, such as where it ran.
    """
    try:
        nodes = _Writer(serializer).chain(exc)
    except _ANYTHING as error:
        reason = f"it could not be described: {type(error).__name__}"
        nodes = [Node(_type_name(exc), "", "", [], [], reason=reason)]
    if note is not None:
        nodes[0].notes.append(lines_for_terminal(_clean(note, _MESSAGE_CHARS)))
    return msgspec.msgpack.encode(nodes)


class _Writer:
    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer
        self._nodes: list[Node] = []
        self._excs: list[BaseException] = []
        self._indices: dict[int, int] = {}

    def chain(self, exc: BaseException) -> list[Node]:
        self._index(exc, -1)
        # The list grows while it is walked.
        for index, one in enumerate(self._excs):
            node = self._nodes[index]
            if isinstance(one, BaseExceptionGroup):
                members = [self._index(m, index) for m in _members(one)]
                node.members = [m for m in members if m >= 0]
            node.cause = self._index(one.__cause__, index)
            node.context = self._index(one.__context__, index)
        return self._nodes

    def _index(self, exc: BaseException | None, of: int) -> int:
        if exc is None:
            return -1
        index = self._indices.get(id(exc))
        if index is None:
            if len(self._nodes) >= MOST_NODES:
                return -1
            index = self._indices[id(exc)] = len(self._nodes)
            self._excs.append(exc)
            self._nodes.append(_describe(exc, self._serializer))
        # Only forwards: a chain that comes back to itself is cut there.
        return index if index > of else -1


def _members(group: BaseExceptionGroup[Any]) -> tuple[BaseException, ...]:
    return tuple(group.exceptions)


def _describe(exc: BaseException, serializer: Serializer) -> Node:
    if type(exc).__module__ == MosaicError.__module__:
        node = _describe_ours(exc)
        if node is not None:
            return node
    tb = exc.__traceback__
    # What comes out of our frames alone was said to us by what the user gave.
    tb = without_own(tb, meant=not has_others(tb))
    node = Node(
        type_name=_type_name(exc),
        message=_message(exc),
        text=_text(exc, tb),
        frames=_frames(tb),
        notes=_notes(exc),
        suppress=exc.__suppress_context__,
    )
    if not isinstance(exc, _CONTROL):
        node.pickled, node.reason = _pickled(exc, serializer, node)
    return node


def _describe_ours(exc: BaseException) -> Node | None:
    """The same of an error of ours that was never raised and has nothing of a user.

    A million calls that end together, by a cancel or a loss, have one each.
    """
    reduced: Any = exc.__reduce__()
    values = (*exc.args, *reduced[1], *vars(exc).values())
    message = _message(exc)
    if exc.__traceback__ is not None or not message:
        return None
    if any(type(value) not in _PLAIN for value in values):
        return None
    parts = type(exc), reduced[1], {**vars(exc), "args": exc.args}
    name = _type_name(exc)
    return Node(
        type_name=name,
        message=message,
        text=_clean(f"{name}: {exc}\n", _TEXT_CHARS),
        frames=[],
        notes=[],
        pickled=pickle.dumps(parts, pickle.HIGHEST_PROTOCOL),
        suppress=exc.__suppress_context__,
    )


def _type_name(exc: BaseException) -> str:
    kind = type(exc)
    name = _clean(kind.__qualname__, 1000)
    module = kind.__module__
    if not isinstance(module, str) or module in ("builtins", "__main__"):
        return name
    return f"{_clean(module, 1000)}.{name}"


def _message(exc: BaseException) -> str:
    try:
        return _clean(str(exc), _MESSAGE_CHARS)
    except _ANYTHING as error:
        return f"<its text cannot be shown: {type(error).__name__} in __str__>"


def _text(exc: BaseException, tb: TracebackType | None) -> str:
    try:
        lines = traceback.format_exception(type(exc), exc, tb, chain=False)
        return _clean("".join(lines), _TEXT_CHARS)
    except _ANYTHING:
        return ""


def _clean(text: str, limit: int) -> str:
    """Cut to a length that can be sent; msgpack takes no lone surrogates."""
    if len(text) > limit:
        text = f"{text[:limit]}... ({len(text) - limit} characters more)"
    return text.encode("utf-8", "backslashreplace").decode()


def _notes(exc: BaseException) -> list[str]:
    notes = getattr(exc, "__notes__", None)
    if not isinstance(notes, list):
        return []
    return [_clean(n, _MESSAGE_CHARS) for n in notes[:_NOTES] if isinstance(n, str)]


def _frames(tb: TracebackType | None) -> list[Frame]:
    return [
        (
            printable(_clean(f[0], 4096)),
            printable(_clean(f[1], 1000)),
            _clean(f[2], 1000),
            *f[3:],
        )
        for f in frames_of(tb)
    ]


def _pickled(
    exc: BaseException, serializer: Serializer, node: Node
) -> tuple[bytes, str]:
    """The exception itself, and if that cannot be, why."""
    try:
        parts = _parts(exc)
        if parts is None:  # a __reduce__ of its own
            return serializer.dumps_alone(exc), ""
    except _ANYTHING as error:
        return b"", _cannot_travel(exc, error)
    cls, args, state = parts
    try:
        return serializer.dumps_alone(parts), ""
    except _ANYTHING as error:
        why = error
    # Perhaps only an attribute is at fault: then the rest still makes the type.
    kept = {}
    for name, value in state.items():
        try:
            serializer.dumps_alone(value)
            kept[name] = value
        except _ANYTHING:
            continue
    try:
        data = serializer.dumps_alone((cls, args, kept))
    except _ANYTHING:
        return b"", _cannot_travel(exc, why)
    lost = ", ".join(sorted(str(name) for name in state.keys() - kept.keys()))
    node.notes.append(f"attributes that could not be sent: {_clean(lost, 1000)}")
    return data, ""


def _parts(
    exc: BaseException,
) -> tuple[type[BaseException], tuple[Any, ...], dict[str, Any]] | None:
    """Class, arguments and attributes; None if the class has its own way to pickle."""
    cls = type(exc)
    for name in ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"):
        owner = next(c for c in cls.__mro__ if name in c.__dict__)
        if owner.__flags__ & _HEAP_TYPE:
            return None
    if isinstance(exc, BaseExceptionGroup):
        # The members travel as nodes of their own, with their tracebacks.
        args, state = (exc.message,), dict(exc.__dict__)
    else:
        reduced: Any = exc.__reduce__()
        args = reduced[1]
        state = dict(reduced[2]) if len(reduced) > 2 and reduced[2] else {}
        # An OSError takes a filename out of its arguments; set back as attributes are.
        state["args"] = exc.args
    state.pop("__notes__", None)
    return cls, args, state


def _cannot_travel(exc: BaseException, error: BaseException) -> str:
    return (
        f"class {_type_name(exc)} cannot be pickled: {type(error).__name__}: "
        f"{_message(error)[:500]}"
    )


# -- from bytes ------------------------------------------------------------------------


def load_error(data: bytes, serializer: Serializer) -> BaseException:
    """The exception again, of the same type, with the remote frames; or RemoteError."""
    try:
        nodes = msgspec.msgpack.decode(data, type=list[Node])
        return _Reader(nodes, serializer).exception(0)
    except Exception as error:
        reason = f"the report of it cannot be read: {type(error).__name__}"
        return RemoteError("unknown error", "", "", reason)


def error_summary(data: bytes) -> str:
    """Type and message in one line, for people; nothing is unpickled."""
    try:
        node = msgspec.msgpack.decode(data, type=list[Node])[0]
    except Exception:
        return "an error whose report cannot be read"
    message = " ".join(node.message.split())
    return printable(f"{node.type_name}: {message}" if message else node.type_name)


def not_rebuilt(what: str, error: BaseException) -> str:
    """The text for a value that came, and that cannot be made again here.

    Args:
        what: such as ``the result of Solver#1.solve``.
        error: what unpickling it raised.
    """
    lines = [
        f"{what} cannot be rebuilt here",
        f"  reason  {_type_name(error)}: {lines_for_terminal(_message(error)[:500])}",
    ]
    tb = without_own(error.__traceback__, meant=True)
    hint = "it was sent by pickle: see that it can be unpickled where it is asked for"
    if tb is not None:
        while tb.tb_next is not None:
            tb = tb.tb_next
        code = tb.tb_frame.f_code
        place = f"{code.co_filename}:{tb.tb_lineno}"
        lines.append(f"  where   {code.co_qualname} ({place})")
    if isinstance(error, ImportError | AttributeError):
        hint = "what it is made of must be importable here too; see sys.path"
    lines.append(f"  hint    {hint}")
    return "\n".join(lines)


class _Reader:
    def __init__(self, nodes: list[Node], serializer: Serializer) -> None:
        self._nodes = nodes
        self._serializer = serializer
        self._made: dict[int, BaseException] = {}

    def exception(self, index: int) -> BaseException:
        # Indices only grow along a chain, so the last are made first.
        for i in range(len(self._nodes) - 1, index - 1, -1):
            self._made[i] = self._make(i)
        return self._made[index]

    def _make(self, index: int) -> BaseException:
        node = self._nodes[index]
        exc = self._rebuilt(index)
        attributes: dict[str, object] = {
            "__traceback__": joined(node.frames),
            "__cause__": self._made.get(node.cause),
            "__context__": self._made.get(node.context),
            "__suppress_context__": node.suppress,  # after the cause, which sets it
        }
        if node.notes:
            attributes["__notes__"] = list(node.notes)
        for name, value in attributes.items():
            object.__setattr__(exc, name, value)
        return exc

    def _rebuilt(self, index: int) -> BaseException:
        node = self._nodes[index]
        reason = node.reason
        if node.pickled:
            try:
                return self._unpickled(node)
            except _ANYTHING as error:
                reason = (
                    f"class {node.type_name} cannot be rebuilt here: "
                    f"{type(error).__name__}: {_message(error)[:500]}"
                )
        texts = node.type_name, node.message, self._chain_text(node), reason
        return RemoteError(*map(lines_for_terminal, texts))

    def _unpickled(self, node: Node) -> BaseException:
        value = self._serializer.loads(node.pickled)
        if isinstance(value, tuple):
            cls, args, state = value
            if issubclass(cls, BaseExceptionGroup):
                args = (*args, [self._made[m] for m in node.members])
            value = _build(cls, args, state)
        if not isinstance(value, BaseException):
            raise TypeError(f"it became a {type(value).__name__}")
        if isinstance(value, _CONTROL):
            raise TypeError("it would end what runs here")
        return value

    def _chain_text(self, node: Node, depth: int = 0) -> str:
        """The traceback as Python prints it, causes first."""
        before, between = -1, ""
        if node.cause >= 0:
            before, between = node.cause, _BECAUSE
        elif node.context >= 0 and not node.suppress:
            before, between = node.context, _DURING
        if not 0 <= before < len(self._nodes) or depth > MOST_NODES:
            return node.text
        earlier = self._chain_text(self._nodes[before], depth + 1)
        return f"{earlier}{between}{node.text}"


def _build(
    cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    new: Any = cls.__new__
    try:
        exc: BaseException = new(cls, *args)
    except TypeError:
        if not isinstance(new, types.BuiltinFunctionType):
            raise
        # Of a MemoryError that is not the first base, whose own one refuses.
        exc = BaseException.__new__(cls, *args)
    native = next(c for c in cls.__mro__ if not c.__flags__ & _HEAP_TYPE)
    native.__init__(exc, *args)  # type: ignore[misc]  # of the built-in class, on purpose
    for name, value in state.items():
        object.__setattr__(exc, name, value)  # its own __setattr__ may refuse
    return exc
