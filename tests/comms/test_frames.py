"""What of a traceback is ours is left out, and never a frame of the user's."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from mosaic_like.comms.frames import UNSEEN, hide_own, without_own

if TYPE_CHECKING:
    from collections.abc import Callable


def ours(text: str, **names: Any) -> Callable[[], Any]:
    """A function ``ours`` of a module of the package, with this body."""
    space = {"__name__": "mosaic_like.core.worker", **names}
    exec(f"def ours():\n    {text}", space)
    made: Callable[[], Any] = space["ours"]
    return made


def users(function: Callable[[], Any]) -> Any:
    return function()


def fail() -> None:
    raise ValueError("of the user's")


def names(error: BaseException) -> list[str]:
    return [f.name for f in traceback.extract_tb(error.__traceback__)][1:]


def shown(function: Callable[[], Any]) -> list[str]:
    """The functions below the test's own, as they are shown."""
    with pytest.raises(BaseException) as caught:
        function()
    hide_own(caught.value)
    return names(caught.value)


def test_ours_go_and_the_users_stay_wherever_they_are() -> None:
    inner = ours("return function()", function=fail)
    outer = ours("return users(inner)", users=users, inner=inner)
    assert shown(lambda: users(outer)) == ["<lambda>", "users", "users", "fail"]


def test_an_error_that_we_raise_ends_at_the_users_line() -> None:
    refuse = ours("raise TypeError('no')")
    assert shown(lambda: users(refuse)) == ["<lambda>", "users"]


def test_a_fault_of_ours_is_shown_from_the_users_line_on() -> None:
    faulty = ours("return 1 / 0")
    outer = ours("return users(faulty)", users=users, faulty=faulty)
    assert shown(lambda: users(outer)) == ["<lambda>", "users", "ours", "users", "ours"]
    with pytest.raises(ZeroDivisionError) as caught:
        outer()
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # type: ignore[union-attr]  # it was raised
    hide_own(caught.value)
    assert names(caught.value) == ["ours"]


def test_who_is_cancelled_where_we_wait_sees_no_frame_of_ours() -> None:
    wait = ours("x = 1; error(x)", error=_cancel)
    assert shown(lambda: users(wait)) == ["<lambda>", "users", "_cancel"]


def _cancel(_: int) -> None:
    raise asyncio.CancelledError


def test_what_we_say_it_means_hides_what_we_were_told() -> None:
    say = ours(
        "try: 1 / 0\n    except ZeroDivisionError as error: raise TypeError from error"
    )
    with pytest.raises(TypeError) as caught:
        users(say)
    hide_own(caught.value)
    assert names(caught.value) == ["users"]
    cause = caught.value.__cause__
    assert cause is not None
    assert cause.__traceback__ is None


def test_the_users_frames_of_a_cause_stay() -> None:
    say = ours(
        "try: function()\n    except ValueError as error: raise TypeError from error",
        function=fail,
    )
    with pytest.raises(TypeError) as caught:
        users(say)
    hide_own(caught.value)
    cause = caught.value.__cause__
    assert cause is not None
    assert [f.name for f in traceback.extract_tb(cause.__traceback__)] == ["fail"]


def test_all_members_of_a_group_are_looked_at() -> None:
    members = []
    for _ in range(2):
        with pytest.raises(ValueError, match="of the user's") as caught:
            users(ours("function()", function=fail))
        members.append(caught.value)
    hide_own(ExceptionGroup("both", members))
    assert [names(member) for member in members] == [["users", "fail"]] * 2


def test_a_frame_that_lets_an_error_out_of_unseen_is_not_added() -> None:
    body = "with UNSEEN: return function()"
    assert shown_raw(ours(body, UNSEEN=UNSEEN, function=fail)) == ["fail"]
    assert shown_raw(ours("with UNSEEN: raise TypeError", UNSEEN=UNSEEN)) == []
    assert shown_raw(ours("with UNSEEN: return 1 / 0", UNSEEN=UNSEEN)) == ["ours"]
    assert ours("with UNSEEN: return 3", UNSEEN=UNSEEN)() == 3


def shown_raw(function: Callable[[], Any]) -> list[str]:
    try:
        function()
    except Exception as error:
        return names(error)
    raise AssertionError("it did not raise")


def test_a_traceback_that_is_looked_at_is_not_changed() -> None:
    with pytest.raises(ValueError, match="of the user's") as caught:
        users(ours("function()", function=fail))
    before = names(caught.value)
    assert without_own(caught.value.__traceback__) is not caught.value.__traceback__
    assert names(caught.value) == before == ["users", "ours", "fail"]


def test_everything_is_shown_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOSAIC_FULL_TRACEBACK", "1")
    assert shown(lambda: users(ours("raise TypeError"))) == [
        "<lambda>",
        "users",
        "ours",
    ]


def test_an_exception_that_refuses_attributes_and_a_long_chain_do_no_harm() -> None:
    class Refuses(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    def refuse() -> None:
        raise Refuses

    assert shown(ours("function()", function=refuse)) == ["refuse"]
    first = error = ValueError()
    for _ in range(100):
        error.__context__ = ValueError()
        error = error.__context__
    error.__cause__ = first
    hide_own(first)
