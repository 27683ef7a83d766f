"""Values there and back: within one process, and between two real ones."""

from __future__ import annotations

import collections
import contextvars
import enum
import functools
import gc
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import types
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.comms.serialization import (
    LARGE_BYTES,
    Payload,
    Referent,
    Serializer,
    is_importable,
)
from mosaic_like.errors import SerializationError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Handle:
    kind: int
    uid: int
    owner: int = 1


class Proxy(Referent):
    """As proxies are: every public name belongs to somebody else."""

    __slots__ = ("_handle", "_how")

    def __init__(self, handle: Handle, how: tuple[Any, ...] = ("task",)) -> None:
        self._handle = handle
        self._how = how

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} of a proxy was touched")

    def __reference__(self) -> tuple[Handle, tuple[Any, ...]]:
        return self._handle, self._how


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value


def there_and_back(serializer: Serializer, *args: Any, **kwargs: Any) -> Any:
    sent = serializer.dumps_call(args, kwargs)
    if isinstance(sent, bytes):
        return serializer.loads_call(sent)
    return serializer.loads_call(sent.data, sent.buffers)


@pytest.fixture
def serializer() -> Serializer:
    return Serializer()


scalars = (
    st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.booleans()
    | st.none()
)


@given(st.lists(scalars).map(tuple))
def test_plain_arguments_arrive_as_they_were(args: tuple[Any, ...]) -> None:
    serializer = Serializer()
    sent = serializer.dumps_call(args, {})
    assert isinstance(sent, bytes)
    assert sent[0] != 0x80
    got, kwargs = serializer.loads_call(sent)
    assert got == args
    assert [type(a) for a in got] == [type(a) for a in args]
    assert kwargs == {}


@given(st.recursive(scalars, lambda c: st.lists(c) | st.dictionaries(st.text(), c)))
def test_any_value_arrives_as_it_was(value: Any) -> None:
    serializer = Serializer()
    sent = serializer.dumps(value)
    assert isinstance(sent, bytes)
    assert serializer.loads(sent) == value
    assert type(serializer.loads(sent)) is type(value)


def test_a_subclass_of_a_plain_type_keeps_its_class(serializer: Serializer) -> None:
    class Colour(int):
        pass

    (got,), _ = there_and_back(serializer, Colour(3))
    assert type(got) is Colour
    assert serializer.loads(bytes(serializer.dumps(True))) is True  # type: ignore[arg-type]


def test_identity_inside_one_call_holds(serializer: Serializer) -> None:
    shared = Plain([1])
    (a, b, f), kwargs = there_and_back(
        serializer, shared, [shared], lambda: 1, k=shared
    )
    assert a is b[0]
    assert a is kwargs["k"]
    assert f() == 1


def test_arguments_are_those_of_the_moment_of_the_call(serializer: Serializer) -> None:
    array = np.zeros(LARGE_BYTES)
    sent = serializer.dumps_call((array,), {})
    array[:] = 1
    assert isinstance(sent, Payload)
    (got,), _ = serializer.loads_call(sent.data, sent.buffers)
    assert not got.any()
    assert not got.flags.writeable


def test_an_array_that_arrived_goes_on_without_a_copy(serializer: Serializer) -> None:
    sent = serializer.dumps(np.zeros(LARGE_BYTES))
    assert isinstance(sent, Payload)
    got = serializer.loads(sent.data, sent.buffers)
    again = serializer.dumps(got)
    assert isinstance(again, Payload)
    assert isinstance(again.buffers[0], memoryview)
    assert np.shares_memory(np.frombuffer(again.buffers[0]), got)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(40_000.0)[::2],
        np.arange(40_000.0).reshape(200, 200).T,
        np.arange(80_000.0).reshape(20, 40, 100).transpose(1, 0, 2)[::2],
        np.ma.masked_less(np.arange(20_000.0), 7),
        np.ma.MaskedArray(np.arange(20_000.0), fill_value=5.0),
        np.zeros(20_000, dtype=[("a", "f8"), ("b", "i4")])[::2],
        np.zeros(20_000, dtype="M8[s]"),
    ],
    ids=["strided", "fortran", "transposed", "masked", "no-mask", "records", "dates"],
)
def test_large_arrays_of_any_layout_arrive(serializer: Serializer, array: Any) -> None:
    sent = serializer.dumps(array)
    assert isinstance(sent, Payload)
    assert len(sent.data) < LARGE_BYTES
    got = serializer.loads(sent.data, sent.buffers)
    assert type(got) is type(array)
    assert got.dtype == array.dtype
    assert (got == array).all()
    if isinstance(array, np.ma.MaskedArray):
        assert (np.ma.getmaskarray(got) == np.ma.getmaskarray(array)).all()
        assert got.fill_value == array.fill_value


def test_small_arrays_stay_in_the_bytes(serializer: Serializer) -> None:
    assert isinstance(serializer.dumps(np.zeros(100)), bytes)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_large_bytes_go_beside_the_bytes(serializer: Serializer, kind: Any) -> None:
    value = kind(b"ab" * LARGE_BYTES)
    sent = serializer.dumps_call((value, value), {"k": value})
    assert isinstance(sent, Payload)
    assert len(sent.data) < 200
    assert len(sent.buffers) == 1
    (a, b), kwargs = serializer.loads_call(sent.data, sent.buffers)
    assert a == value
    assert type(a) is kind
    assert a is b is kwargs["k"]
    result = serializer.dumps(value)
    assert isinstance(result, Payload)
    assert serializer.loads(result.data, result.buffers) == value


def test_references_are_found_at_any_depth_and_counted_once(
    serializer: Serializer,
) -> None:
    one, two = Handle(0, 11), Handle(1, 12)
    args = (Proxy(one), {"a": [Proxy(one, ("output", 3)), Plain(Proxy(two))]})
    sent = serializer.dumps_call(args, {})
    assert isinstance(sent, Payload)
    assert sent.handles == (one, two)
    got, _ = serializer.loads_call(sent.data, (), lambda i, how: (i, how))
    assert got[0] == (0, ("task",))
    assert got[1]["a"][0] == (0, ("output", 3))
    assert got[1]["a"][1].value == (1, ("task",))
    # The next payload begins anew.
    again = serializer.dumps(Proxy(two))
    assert isinstance(again, Payload)
    assert again.handles == (two,)


def test_references_are_found_when_code_travels_too(serializer: Serializer) -> None:
    proxy = Proxy(Handle(0, 11))
    sent = serializer.dumps_call((lambda: proxy, np.zeros(LARGE_BYTES)), {})
    assert isinstance(sent, Payload)
    assert sent.handles == (proxy._handle,)
    assert len(sent.buffers) == 1
    (f, _), _ = serializer.loads_call(sent.data, sent.buffers, lambda i, how: "value")
    assert f() == "value"


def test_a_failed_pickling_leaves_nothing_to_the_next(serializer: Serializer) -> None:
    with pytest.raises(SerializationError):
        serializer.dumps([Proxy(Handle(0, 11)), threading.Lock()])
    sent = serializer.dumps([1])
    assert isinstance(sent, bytes)


def test_a_payload_without_a_resolver_says_so(serializer: Serializer) -> None:
    sent = serializer.dumps(Proxy(Handle(0, 11)))
    assert isinstance(sent, Payload)
    with pytest.raises(pickle.UnpicklingError, match="reference"):
        serializer.loads(sent.data)


def test_threads_may_pickle_at_the_same_time(serializer: Serializer) -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        for i in range(200):
            value = [number, i, Plain(i), Proxy(Handle(0, i))]
            sent = serializer.dumps(value)
            assert isinstance(sent, Payload)
            got = serializer.loads(sent.data, (), lambda index, how: "p")
            if got[:2] != [number, i] or sent.handles != (Handle(0, i),):
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


# -- what travels by value -------------------------------------------------------------


def test_what_is_importable() -> None:
    assert is_importable(Plain)
    assert is_importable(collections.OrderedDict)
    assert not is_importable(lambda: 1)
    assert not is_importable(types.new_class("Nowhere"))


def test_a_local_class_is_the_same_class_when_it_comes_back(
    serializer: Serializer,
) -> None:
    class Local:
        pass

    sent = serializer.dumps([Local(), Local])
    assert isinstance(sent, Payload)
    assert len(sent.definitions) == 1
    instance, cls = serializer.loads(sent.data)
    assert cls is Local
    assert type(instance) is Local


def test_closures_made_in_a_loop_are_no_definitions(serializer: Serializer) -> None:
    for i in range(5):
        sent = serializer.dumps(lambda i=i: i)
        assert isinstance(sent, bytes)
        assert serializer.loads(sent)() == i
    assert not serializer._known._blobs


def test_what_is_known_of_a_class_goes_with_the_class(serializer: Serializer) -> None:
    serializer.dumps(types.new_class("Gone", (), {}, lambda ns: ns.update(
        __module__="__main__")))  # fmt: skip
    gc.collect()
    assert not serializer._known._made


def test_an_unknown_definition_is_named(serializer: Serializer) -> None:
    class Local:
        pass

    sent = serializer.dumps(Local)
    assert isinstance(sent, Payload)
    with pytest.raises(LookupError, match=sent.definitions[0].hex()):
        Serializer().loads(sent.data)


def test_a_local_class_that_mentions_a_proxy_keeps_it_counted(
    serializer: Serializer,
) -> None:
    handle = Handle(1, 5)

    class Local:
        proxy = Proxy(handle)

    sent = serializer.dumps(Local)
    assert isinstance(sent, Payload)
    assert sent.handles == (handle,)
    assert sent.definitions == ()


# The other end of a pipe: calls what it is sent, and sends what that gives.
WORKER = """
import pickle, sys
from mosaic_like.comms.serialization import Payload, Serializer
serializer = Serializer()
told = set()

def send(value, pipe):
    sent = serializer.dumps(value)
    if isinstance(sent, bytes):
        sent = Payload(sent)
    new = [d for d in sent.definitions if d not in told]
    told.update(new)
    blobs = [(d, serializer.blob(d)) for d in new]
    pickle.dump((sent.data, blobs, [bytes(b) for b in sent.buffers]), pipe)
    pipe.flush()
    return len(blobs)

def receive(pipe):
    data, blobs, buffers = pickle.load(pipe)
    for digest, blob in blobs:
        told.add(digest)
        serializer.define(digest, blob)
    return serializer.loads(data, buffers)

if __name__ == "__main__" and sys.argv[-1] == "worker":
    while True:
        try:
            function, args = receive(sys.stdin.buffer)
        except EOFError:
            break
        send(function(*args), sys.stdout.buffer)
"""

DRIVER = """
import subprocess, sys, operator, enum, dataclasses, threading
import numpy as np
import link
worker = subprocess.Popen([sys.executable, "-W", "error", link.__file__, "worker"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE)

def call(function, *args):
    call.blobs = link.send((function, args), worker.stdin)
    return link.receive(worker.stdout)

try:
{body}
finally:
    worker.stdin.close()
    worker.wait(20)
    worker.stdout.close()
print("all is well")
"""


def run_as_main(tmp_path: Path, head: str, body: str) -> None:
    """Run ``body`` in a script whose ``call`` runs functions in a second process."""
    (tmp_path / "link.py").write_text(WORKER)
    (tmp_path / "script.py").write_text(
        textwrap.dedent(head)
        + DRIVER.replace("{body}", textwrap.indent(textwrap.dedent(body), "    "))
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "script.py")],
        capture_output=True,
        text=True,
        timeout=50,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all is well\n"


def test_a_class_of_main_is_one_class_on_both_sides(tmp_path: Path) -> None:
    run_as_main(
        tmp_path,
        """
        class Point:
            made = 0
            def __init__(self, x): self.x = x
            def twin(self): return Point(self.x)
            def same(self, other): return type(other) is Point is type(self)
        class Sub(Point):
            def __init__(self, x): super().__init__(x)
        def kind(p): return Point
        def bump(p): type(p).made += 1; return type(p).made
        """,
        """
        p = call(Point, 3)
        assert type(p) is Point and p.x == 3, p
        assert call.blobs == 1
        assert type(call(Point.twin, p)) is Point
        assert type(call(Point.twin, p)) is Point
        assert call.blobs == 0
        assert call(Point.same, p, Point(4)) is True
        assert call(kind, p) is Point
        s = call(Sub, 5)
        assert type(s) is Sub and isinstance(s, Point)
        # What the class keeps there is not put back by a later definition that has it.
        assert call(bump, p) == 1
        assert call(lambda q: type(q).made, Sub(1)) == 1
        assert call(lambda: Point.made) == 1
        assert Point.made == 0
        """,
    )


def test_functions_of_main_travel_with_what_they_use(tmp_path: Path) -> None:
    run_as_main(
        tmp_path,
        """
        SCALE = 2
        def even(n): return True if n == 0 else odd(n - 1)
        def odd(n): return False if n == 0 else even(n - 1)
        def scaled(x): return helper(x)
        def helper(x): return SCALE * x
        def make():
            class Inner:
                def get(self): return Inner, self
            return Inner
        """,
        """
        assert call(even, 10) is True
        assert call.blobs == 1
        assert call(even, 11) is False
        assert call.blobs == 0
        assert call(scaled, 4) == 8
        SCALE = 3                       # as in a notebook
        assert call(scaled, 4) == 12
        def helper(x): return -x
        assert call(scaled, 4) == -4
        Inner = make()
        cls, one = call(Inner.get, Inner())
        assert cls is Inner and type(one) is Inner
        Again = make()
        assert type(call(Again)) is Again
        assert not isinstance(call(Again), Inner)
        base = 5
        assert call(lambda a: (a + base).sum(), np.ones(20000)) == 120000
        assert call(call_twice := (lambda f, x: f(f(x))), lambda x: x + 1, 1) == 3
        """,
    )


def test_caches_and_types_of_main_that_have_only_a_name_travel(tmp_path: Path) -> None:
    run_as_main(
        tmp_path,
        """
        import functools
        from typing import Callable, Generic, NewType, ParamSpec, TypeVarTuple, Unpack
        UserId = NewType("UserId", int)
        P = ParamSpec("P")
        Ts = TypeVarTuple("Ts")

        @functools.lru_cache(maxsize=50)
        def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)

        @functools.singledispatch
        def size(x): return "one"
        @size.register
        def _(x: list): return [size(item) for item in x]
        @size.register(int)
        def number(x): return "number"

        class Model:
            def __init__(self, k): self.k = k
            @functools.cached_property
            def square(self):
                "What it is."
                return self.k ** 2, type(self) is Model
            @functools.cache
            def cached(self, n): return self.k + fib(n)
            @functools.singledispatchmethod
            def of(self, x): return size(x)
            @of.register
            def _(self, x: str): return "text"
            def typed(self, u: UserId, f: Callable[P, int], *a: Unpack[Ts]): return u
            def parts(self):
                return self.square, self.cached(10), self.of([1]), self.of("")
            def documented(self): return Model.square.__doc__, Model.cached.__name__
        def hints(): return Model.typed.__annotations__["u"].__supertype__
        """,
        """
        m = call(Model, 3)
        assert type(m) is Model
        assert call(Model.parts, m) == ((9, True), 58, ["number"], "text")
        assert m.square == (9, True) and m.cached(10) == 58
        assert call(Model.documented, m) == ("What it is.", "cached")
        assert call(Model.typed, m, UserId(4), None) == 4
        assert call(hints) is int
        # By themselves, and in values that go by the ordinary pickler.
        assert call(fib, 80) == 23416728348467685
        there = call(lambda f: (f(30), f.cache_info().maxsize, f.__name__), fib)
        assert there == (832040, 50, "fib")
        assert call(map, size, [[1], 1.5]).__next__() == ["number"]
        assert call(operator.itemgetter(0), [UserId])(3) == 3
        assert call(operator.itemgetter(0), [P]).__name__ == "P"
        # What both can import stays itself.
        import fnmatch
        known = fnmatch._compile_pattern
        assert call(operator.itemgetter(0), [known]) is known
        """,
    )


def test_a_class_that_was_written_anew_is_another_class(tmp_path: Path) -> None:
    run_as_main(
        tmp_path,
        """
        class Model:
            def say(self): return "old"
        """,
        """
        old = Model()
        assert call(lambda m: m.say(), old) == "old"
        class Model:
            def say(self): return "new"
        assert call(lambda m: m.say(), Model()) == "new"
        assert call(lambda m: m.say(), old) == "old"
        assert call(lambda a, b: type(a) is type(b), old, Model()) is False

        class Colour(enum.Enum):
            RED = 1
        assert call(lambda c: c, Colour.RED) is Colour.RED
        assert call(lambda c: [c, c is type(c).RED], Colour.RED) == [Colour.RED, True]

        @dataclasses.dataclass
        class Row:
            a: int = 1
        assert call(lambda r: dataclasses.replace(r, a=2), Row()) == Row(2)
        """,
    )


def test_a_class_made_by_the_worker_keeps_ours_as_it_is(tmp_path: Path) -> None:
    run_as_main(
        tmp_path,
        """
        class Base:
            def hello(self): return "hello"
        def derive():
            class Derived(Base):
                pass
            return Derived
        """,
        """
        before = Base.__dict__["hello"]
        Derived = call(derive)
        assert issubclass(Derived, Base)
        assert Base.__dict__["hello"] is before
        made = call(Derived)
        assert type(made) is Derived and made.hello() == "hello"
        """,
    )


# -- what cannot travel ----------------------------------------------------------------


def failure(serializer: Serializer, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(SerializationError) as caught:
        serializer.dumps_call(
            args, kwargs, describe=lambda: ("Solver.solve", ("cfg", "steps"))
        )
    return str(caught.value)


def test_the_path_to_what_cannot_travel_is_told(serializer: Serializer) -> None:
    model = types.SimpleNamespace(
        layers=[1, types.SimpleNamespace(guard=threading.RLock())]
    )
    text = failure(serializer, {"log": model})
    assert text == (
        "cannot send argument 'cfg' of Solver.solve: "
        "cfg['log'].layers[1].guard is a _thread.RLock\n"
        "  inside  dict -> SimpleNamespace -> SimpleNamespace -> RLock\n"
        "  reason  TypeError: cannot pickle '_thread.RLock' object\n"
        "  hint    make it inside the tessera, "
        "or give the class __getstate__ without it"
    )


def test_keywords_and_further_arguments_are_named(serializer: Serializer) -> None:
    lock = threading.Lock()
    assert "argument 'steps' of Solver.solve: steps[0] is" in failure(
        serializer, 1, [lock]
    )
    assert "args[2] of Solver.solve: args[2] is a _thread.lock" in failure(
        serializer, 1, 2, lock
    )
    assert "argument 'opt' of Solver.solve: opt is a generator" in failure(
        serializer, opt=(i for i in "ab")
    )
    assert "argument 'value' of Solver.solve: value's variable lock is" in failure(
        serializer, value=lambda: lock
    )


def test_what_a_function_holds_is_found(serializer: Serializer) -> None:
    lock = threading.Lock()
    assert "cfg's variable lock is a _thread.lock" in failure(serializer, lambda: lock)
    bound = functools.partial(print, lock)
    assert "cfg.args[0] is a _thread.lock" in failure(serializer, bound)


def test_of_a_context_variable_it_is_said_what_does_travel(
    serializer: Serializer,
) -> None:
    var = contextvars.ContextVar("var", default=1)
    with pytest.raises(SerializationError) as caught:
        serializer.dumps(lambda: var.get(), what="the function f")
    assert str(caught.value) == (
        "cannot send the function f: its variable var is a _contextvars.ContextVar\n"
        "  inside  function -> ContextVar\n"
        "  reason  TypeError: cannot pickle '_contextvars.ContextVar' object\n"
        "  hint    pass its value, var.get(), as an argument; or make the variable "
        "in a module, import that and write module.var, which is then the one of the "
        "process where this runs"
    )


class Slotted:
    __slots__ = ("inner",)
    inner: Any


class Raises:
    def __reduce__(self) -> Any:
        raise ValueError("not me")

    def __repr__(self) -> str:
        raise RuntimeError("nor my repr")

    def __getattribute__(self, name: str) -> Any:
        if name in ("__dict__", "__class__"):
            raise RuntimeError("nor my attributes")
        return object.__getattribute__(self, name)


class Unspeakable:
    def __reduce__(self) -> Any:
        raise Mute


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Hidden:
    """What it holds shows only in its state."""

    def __getstate__(self) -> Any:
        return {"made": threading.Lock()}


def test_strange_objects_do_not_break_the_search(serializer: Serializer) -> None:
    slotted = Slotted()
    slotted.inner = {(1, 2): Raises()}
    text = failure(serializer, slotted)
    assert "cfg.inner[<tuple>] is a" in text
    assert "Raises" in text
    assert "RuntimeError: nor my" in text
    assert "cannot be shown" in failure(serializer, Unspeakable())
    assert "cfg holds a _thread.lock" in failure(serializer, [Hidden()])


def test_cycles_and_large_containers_do_not_hang_the_search(
    serializer: Serializer,
) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    many = [{"i": [i]} for i in range(200_000)]
    began_s = time.monotonic()
    assert "_thread.lock" in failure(serializer, [cycle, threading.Lock()])
    assert "Solver.solve" in failure(serializer, [many, threading.Lock()])
    assert time.monotonic() - began_s < 20


def test_a_value_that_is_nested_too_deeply_is_an_error(serializer: Serializer) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in failure(serializer, deep)
    while deep:  # else its end would recurse as deeply
        deep = deep[0]


def test_a_result_that_cannot_travel_is_an_error(serializer: Serializer) -> None:
    with pytest.raises(SerializationError, match="the result of f"):
        serializer.dumps([threading.Lock()], what="the result of f")


def test_an_interrupt_passes_through(serializer: Serializer) -> None:
    class Interrupts:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serializer.dumps([Interrupts()])


def test_errors_of_our_own_pass_through(serializer: Serializer) -> None:
    from mosaic_like.errors import TaskError

    class Closed(Referent):
        def __reference__(self) -> Any:
            raise TaskError("it was closed")

    with pytest.raises(TaskError, match="it was closed"):
        serializer.dumps_call(([Closed()],), {})


class Shade(enum.Enum):
    DARK = 1


def test_members_of_an_importable_enum_stay_themselves(serializer: Serializer) -> None:
    (got,), _ = there_and_back(serializer, Shade.DARK)
    assert got is Shade.DARK


class _Handle:
    kind, uid, owner = 0, 7, 2


class _Mention(Referent):
    __slots__ = ()

    def __reference__(self) -> tuple[Any, tuple[Any, ...]]:
        return _Handle(), ("task",)


class _Resolve:
    def __call__(self, index: int, args: tuple[Any, ...]) -> Any:
        return index, *args


def test_what_resolves_references_is_freed_without_the_collector(
    serializer: Serializer,
) -> None:
    payload = serializer.dumps([_Mention()])
    assert isinstance(payload, Payload)
    resolve = _Resolve()
    alive = weakref.ref(resolve)
    gc.collect()
    gc.disable()
    try:
        assert serializer.loads(payload.data, (), resolve) == [(0, "task")]
        del resolve
        assert alive() is None
    finally:
        gc.enable()


class _Thing:
    """Can be watched."""


def test_what_is_sent_by_value_is_freed_without_the_collector(
    serializer: Serializer,
) -> None:
    thing = _Thing()
    alive = weakref.ref(thing)
    gc.collect()
    gc.disable()
    try:
        serializer.dumps([thing, _Mention(), lambda: threading])
        del thing
        assert alive() is None
    finally:
        gc.enable()


def test_masked_arrays_are_known_that_are_imported_after_the_first_value(
    serializer: Serializer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # numpy imports numpy.ma when it is first used.
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "numpy.ma")
        serializer.dumps([1])
    sent = serializer.dumps(np.ma.MaskedArray(np.arange(20_000.0)))
    assert isinstance(sent, Payload)
    assert len(sent.data) < 1000
    got = serializer.loads(sent.data, sent.buffers)
    assert got._mask is np.ma.nomask


@pytest.mark.parametrize("limit", [0, 1000], ids=["by value", "under a digest"])
def test_a_class_travels_without_buffers_beside_it(
    serializer: Serializer, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr("mosaic_like.comms.definitions.MAX_LOCAL", limit)

    class Table:
        rows = np.arange(20_000.0)
        words = list(map(str, range(60_000)))

        def total(self) -> float:
            return float(self.rows.sum()) + len(self.words)

    sent = serializer.dumps_class(Table)
    if limit:
        assert isinstance(sent, Payload)
        assert not sent.handles
        assert not sent.buffers
        assert serializer.loads(sent.data) is Table
    else:
        assert isinstance(sent, bytes)
        assert serializer.loads(sent)().total() == Table().total()


def test_a_class_that_mentions_a_tessera_is_refused_where_it_is_used(
    serializer: Serializer,
) -> None:
    proxy = Proxy(Handle(1, 5))

    class Mentioning:
        def ask(self) -> Any:
            return proxy

    with pytest.raises(SerializationError, match=r"Mentioning mentions a tessera"):
        serializer.dumps_class(Mentioning)
