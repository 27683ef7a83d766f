"""Functions that are sent to a runtime: kept until they are called, once each."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from mosaic_like import session
from mosaic_like.comms.messages import Learn
from mosaic_like.errors import ProtocolError
from mosaic_like.ids import NUMBER_BITS
from mosaic_like.tasks.code import Code, Located, located
from mosaic_like.tasks.host import FunctionHost, Learned

SENDER = 5
KEY = SENDER << NUMBER_BITS


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> Learned:
    values = SimpleNamespace(item=pickle.loads)
    runtime: Any = SimpleNamespace(values=values, unused=None)
    runtime.learned = Learned(runtime)
    monkeypatch.setattr(session, "current", lambda: runtime)
    found: Learned = runtime.learned
    return found


def test_a_function_is_read_by_its_first_call_and_kept(learned: Learned) -> None:
    host = FunctionHost(KEY)
    learned.learn(Learn(KEY, "size", pickle.dumps(len)), (), SENDER)
    assert host.size("abc") == 3
    assert host.__dict__["size"] is len


def test_a_function_that_is_not_called_any_more_is_forgotten(learned: Learned) -> None:
    host = FunctionHost(KEY)
    learned.learn(Learn(KEY, "size", pickle.dumps(len)), (), SENDER)
    assert host.size("abc") == 3
    learned.learn(Learn(KEY, "size", b""), (), SENDER)
    with pytest.raises(AttributeError, match="no function 'size' was sent here"):
        host.size("abc")


def test_functions_go_with_their_host_and_with_their_submitter(
    learned: Learned,
) -> None:
    host = FunctionHost(KEY)
    learned.learn(Learn(KEY, "one", pickle.dumps(len)), (), SENDER)
    learned.learn(Learn(KEY + 1, "two", pickle.dumps(len)), (), SENDER)
    host.__close__()
    with pytest.raises(AttributeError):
        host.one("abc")
    learned.lost(SENDER)
    with pytest.raises(AttributeError):
        learned.read(KEY + 1, "two")


def test_nobody_sends_functions_to_the_host_of_another(learned: Learned) -> None:
    with pytest.raises(ProtocolError, match="what another has made"):
        learned.learn(Learn(KEY, "size", b"x"), (), SENDER + 1)


def test_private_names_are_no_functions(learned: Learned) -> None:
    with pytest.raises(AttributeError):
        FunctionHost(KEY)._size  # noqa: B018 -- it raises


def test_importable_functions_go_by_name_and_others_by_value() -> None:
    assert located(len) == ("builtins", "len")
    assert located(lambda: 1) is None
    assert pickle.loads(pickle.dumps(Located("os.path", "join"))).load()("a", "b")
    assert not Code(len, "len").is_async
