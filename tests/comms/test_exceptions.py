"""Errors there and back, whatever they are."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like import errors
from mosaic_like.comms import exceptions
from mosaic_like.comms.exceptions import dump_error, error_summary, load_error
from mosaic_like.comms.serialization import Referent, Serializer
from mosaic_like.errors import RemoteError

ROOT = Path(__file__).parents[2]


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


def travelled(exc: BaseException, note: str | None = None) -> BaseException:
    data = dump_error(exc, Serializer(), note=note)
    assert isinstance(error_summary(data), str)
    return load_error(data, Serializer())


class TwoArguments(Exception):
    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} failed with {code}")
        self.name = name
        self.code = code


class Formats(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(f"no {name}")


class OwnReduce(Exception):
    def __reduce__(self) -> Any:
        return OwnReduce, ("again",)


class ReduceRaises(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit("never")


class LoadsNowhere(Exception):
    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> Any:
    raise SystemExit("not here")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class BadAttributes(Exception):
    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError("fixed")


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("x", 1),
        KeyError("k"),
        FileNotFoundError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ImportError("no", name="mod", path="there"),
        TwoArguments("solver", 3),
        Formats("disk"),
        OwnReduce("again"),
        asyncio.CancelledError("why"),
        errors.InvalidTransitionError("done", "start"),
        errors.WorkerDied("gone", "worker:0:1", errors.Verdict.NOT_STARTED, "SIGKILL"),
        errors.TaskTimeoutError("late", "3-4"),
        errors.RemoteError("a.B", "text", "tb", "why"),
        RecursionError("deep"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_exception_keeps_its_type_text_and_attributes(exc: BaseException) -> None:
    got = travelled(raised(exc))
    assert type(got) is type(exc)
    assert str(got) == str(exc)
    assert got.args == exc.args
    assert vars(got) == vars(exc)


def test_fields_of_built_in_errors_are_kept() -> None:
    got = travelled(FileNotFoundError(2, "No such file", "name"))
    assert isinstance(got, FileNotFoundError)
    assert (got.errno, got.filename) == (2, "name")
    decode = travelled(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"))
    assert isinstance(decode, UnicodeDecodeError)
    assert decode.object == b"\xff"
    missing = travelled(ImportError("no", name="mod"))
    assert isinstance(missing, ImportError)
    assert missing.name == "mod"


OURS = [
    errors.TaskCancelledError("it was cancelled", "6-1", errors.Verdict.MAYBE_RAN),
    errors.TaskTimeoutError("late", "6-2"),
    errors.RuntimeDisconnectedError(
        "it is lost", "worker:0:1", errors.Verdict.MAYBE_RAN
    ),
    errors.WorkerDied("two\nlines", "worker:0:1", errors.Verdict.NOT_STARTED, "why"),
    errors.MosaicError("\udcff" + "x" * 20_000),
]


@pytest.mark.parametrize("exc", OURS, ids=lambda exc: type(exc).__name__)
def test_errors_of_ours_travel_alike_by_the_short_way_and_the_long(
    exc: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = exceptions._describe_ours(exc)
    assert short is not None
    monkeypatch.setattr(exceptions, "_describe_ours", lambda _: None)
    long = exceptions._describe(exc, Serializer())
    assert pickle.loads(short.pickled) == pickle.loads(long.pickled)
    short.pickled = long.pickled = b""
    assert short == long


@pytest.mark.parametrize("attribute", [Exception("of a user"), ["a note"]])
def test_errors_of_ours_with_more_than_text_go_the_long_way(attribute: Any) -> None:
    exc = errors.TaskCancelledError("it was cancelled")
    exc.more = attribute  # type: ignore[attr-defined]  # as any code may
    assert exceptions._describe_ours(exc) is None
    assert exceptions._describe_ours(errors.TaskError("")) is None
    assert exceptions._describe_ours(raised(errors.TaskError("raised"))) is None


@pytest.mark.parametrize(
    "exc",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(5),
     StopAsyncIteration()],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_what_would_end_the_program_arrives_as_remote(exc: BaseException) -> None:
    got = travelled(raised(exc))
    assert type(got) is RemoteError
    assert got.type_name == type(exc).__name__
    cause = ValueError("x")
    cause.__cause__ = exc
    assert type(travelled(cause).__cause__) is RemoteError


@pytest.mark.parametrize(
    "exc",
    [
        ReduceRaises("a"),
        LoadsNowhere("a"),
        ValueError(threading.Lock()),
        ValueError(Referent()),
    ],
    ids=["reduce", "load", "lock", "proxy"],
)
def test_what_cannot_be_rebuilt_says_why(exc: BaseException) -> None:
    got = travelled(raised(exc))
    assert type(got) is RemoteError
    assert got.type_name.endswith(type(exc).__name__)
    assert "cannot be" in got.reason
    assert "in raised" in got.traceback


def test_attributes_that_cannot_travel_stay_behind_with_a_note() -> None:
    exc = TwoArguments("a", 1)
    exc.lock = threading.Lock()  # type: ignore[attr-defined]
    got = travelled(exc)
    assert type(got) is TwoArguments
    assert got.code == 1
    assert got.__notes__ == ["attributes that could not be sent: lock"]


def test_strange_exceptions_travel() -> None:
    assert type(travelled(Mute("a"))) is Mute
    assert "cannot be shown" in error_summary(dump_error(Mute(), Serializer()))
    assert type(travelled(BadAttributes("a"))) is BadAttributes
    lone = travelled(ValueError("\ud800"))
    assert lone.args == ("\ud800",)
    assert len(dump_error(ValueError("\ud800" * 3), Serializer())) > 0


def test_the_text_that_people_see_is_bounded() -> None:
    data = dump_error(ValueError("x" * 1_000_000), Serializer())
    assert len(error_summary(data)) < 20_000


def test_what_we_say_of_an_error_does_nothing_to_a_terminal() -> None:
    """Its own arguments and notes stay as they are: it is to be equal."""
    evil = "\x1b[2J\rall is well\x07"
    error = ValueError(evil)
    error.add_note(evil)
    copy = travelled(error, note=f"in f on {evil}")
    assert copy.args == (evil,)
    assert copy.__notes__ == [evil, "in f on all is well"]
    assert error_summary(dump_error(error, Serializer())).isprintable()
    lost = travelled(SystemExit(f"one\n\x1b[31mtwo{evil}"))
    assert isinstance(lost, RemoteError)
    assert lost.message == "one\n\x1b[31mtwoall is well\x1b[0m"
    assert not {"\r", "\x07"} & set(str(lost) + lost.traceback)


def test_the_name_of_a_remote_file_does_nothing_to_a_terminal() -> None:
    code = compile("raise ValueError", "\x1b[2J.py", "exec")
    try:
        exec(code)
    except ValueError as error:
        tb = travelled(error).__traceback__
    frames = [frame.filename for frame in traceback.extract_tb(tb)]
    assert frames[-1] == "?[2J.py"


def deep(n: int) -> None:
    if n == 0:
        raise ValueError("bottom")
    deep(n - 1)


def test_remote_frames_are_in_the_traceback() -> None:
    try:
        deep(3)
    except ValueError as error:
        got = travelled(error, note="on w0:1")
        untouched = not hasattr(error, "__notes__")
    assert untouched
    names = [f.name for f in traceback.extract_tb(got.__traceback__)]
    assert names == ["test_remote_frames_are_in_the_traceback", *["deep"] * 4]
    text = "".join(traceback.format_exception(got))
    assert 'raise ValueError("bottom")' in text
    assert text.endswith("ValueError: bottom\non w0:1\n")


def test_a_very_deep_traceback_travels() -> None:
    try:
        deep(700)
    except ValueError as error:
        got = travelled(error)
    assert len(traceback.extract_tb(got.__traceback__)) == 100


def in_package(name: str, function: Any) -> Any:
    space = {"__name__": name, "function": function}
    exec("def ours(): return function()", space)
    return space["ours"]


def test_the_runtimes_own_frames_are_left_out(monkeypatch: Any) -> None:
    call = in_package("mosaic_like.core.worker", lambda: deep(0))
    try:
        in_package("mosaic_like", call)()
    except ValueError as error:
        exc = error.with_traceback(error.__traceback__.tb_next)  # type: ignore[union-attr]

    def names(error: BaseException) -> list[str]:
        return [f.name for f in traceback.extract_tb(error.__traceback__)]

    assert names(travelled(exc)) == ["<lambda>", "deep"]
    monkeypatch.setenv("MOSAIC_FULL_TRACEBACK", "1")
    assert names(travelled(exc)) == ["ours", "ours", "<lambda>", "deep"]


def test_causes_contexts_and_notes_are_kept() -> None:
    try:
        try:
            try:
                raise KeyError("first")
            except KeyError as first:
                first.add_note("a note")
                raise ValueError("second") from first
        except ValueError:
            raise TypeError("third") from None
    except TypeError as error:
        got = travelled(error)
    assert got.__cause__ is None
    assert got.__suppress_context__
    second = got.__context__
    assert type(second) is ValueError
    first_again = second.__cause__
    assert type(first_again) is KeyError
    assert second.__context__ is first_again
    assert first_again.__notes__ == ["a note"]
    assert first_again.__traceback__ is not None


def test_chains_in_a_circle_and_endless_chains_are_cut() -> None:
    a, b = ValueError("a"), KeyError("b")
    a.__cause__, b.__context__ = b, a
    got = travelled(a)
    assert type(got.__cause__) is KeyError
    assert got.__cause__.__context__ is None
    top = ValueError("top")
    last: BaseException = top
    links = []
    for i in range(5000):
        links.append(ValueError(i))
        last.__cause__ = links[-1]
        last = links[-1]
    got = travelled(top)
    length = 0
    step: BaseException | None = got
    while step is not None:
        length, step = length + 1, step.__cause__
    assert 10 < length < 100
    for link in links:
        link.__cause__ = None


def test_groups_keep_their_members_with_their_tracebacks() -> None:
    one = TwoArguments("a", 1)
    raised(one)
    group = ExceptionGroup("some", [one, ExceptionGroup("in", [KeyError(2)])])
    got = travelled(raised(group))
    assert type(got) is ExceptionGroup
    assert got.message == "some"
    first, inner = got.exceptions
    assert type(first) is TwoArguments
    assert first.__traceback__ is not None
    assert isinstance(inner, ExceptionGroup)
    assert type(inner.exceptions[0]) is KeyError
    stop = travelled(BaseExceptionGroup("b", [SystemExit(1), ValueError(2)]))
    assert isinstance(stop, BaseExceptionGroup)
    assert type(stop.exceptions[0]) is RemoteError


def test_a_large_group_is_cut_and_still_a_group() -> None:
    got = travelled(ExceptionGroup("many", [ValueError(i) for i in range(500)]))
    assert isinstance(got, ExceptionGroup)


@given(st.binary())
def test_reading_garbage_never_raises(data: bytes) -> None:
    assert isinstance(load_error(data, Serializer()), BaseException)
    assert isinstance(error_summary(data), str)


def test_the_summary_is_one_line_with_the_type() -> None:
    data = dump_error(TwoArguments("a\nb", 1), Serializer())
    assert error_summary(data) == f"{__name__}.TwoArguments: a b failed with 1"
    assert error_summary(dump_error(KeyError(), Serializer())) == "KeyError"


HEAD = """
import subprocess, sys
from mosaic_like.comms.serialization import Serializer
from mosaic_like.comms.exceptions import load_error, error_summary
from mosaic_like.errors import RemoteError
s = Serializer()
class Mine(Exception):
    def __init__(self, a, b): super().__init__(a); self.b = b
def fail():
    raise Mine("x", 2)
sent = s.dumps(fail)
blobs = [(d, s.blob(d)) for d in sent.definitions]
import pickle
worker = subprocess.run([sys.executable, "-W", "error", sys.argv[1]],
    input=pickle.dumps((sent.data, blobs)), stdout=subprocess.PIPE, timeout=60)
mine, alien = pickle.loads(worker.stdout)
try:
    raise load_error(mine, s)
except Mine as error:
    assert error.b == 2 and error.args == ("x",)
    import traceback
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"
error = load_error(alien, s)
assert type(error) is RemoteError, error
assert error.type_name == "onlythere.Alien", error.type_name
assert "cannot be rebuilt here" in error.reason and "onlythere" in error.reason
assert "raise Alien" in error.traceback
assert error_summary(alien) == "onlythere.Alien: far"
print("all is well")
"""

WORKER = """
import pickle, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent / "there"))
from mosaic_like.comms.serialization import Serializer
from mosaic_like.comms.exceptions import dump_error
import onlythere
s = Serializer()
data, blobs = pickle.load(sys.stdin.buffer)
for digest, blob in blobs:
    s.define(digest, blob)
out = []
for function in (s.loads(data), onlythere.fail):
    try:
        function()
    except Exception as error:
        out.append(dump_error(error, s))
sys.stdout.buffer.write(pickle.dumps(out))
"""


def test_errors_between_two_processes(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "onlythere.py").write_text(
        "class Alien(Exception): pass\ndef fail():\n    raise Alien('far')\n"
    )
    (tmp_path / "head.py").write_text(HEAD)
    (tmp_path / "worker.py").write_text(WORKER)
    done = subprocess.run(
        [sys.executable, "-W", "error", "head.py", str(tmp_path / "worker.py")],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all is well\n"


class AlsoOfMemory(TwoArguments, MemoryError):
    pass


@pytest.mark.parametrize(
    "error",
    [
        errors.MemoryOverflowError("3 GiB do not fit", "3-4"),
        AlsoOfMemory("a", 3),
        MemoryError("plain"),
    ],
)
def test_an_error_that_is_also_a_memory_error_keeps_its_type(
    error: BaseException,
) -> None:
    back = travelled(error)
    assert type(back) is type(error)
    assert back.args == error.args
    assert isinstance(back, MemoryError)
