"""What stands for a value that is elsewhere, and is used in its place by mistake."""

from __future__ import annotations

from typing import Any

from ..text import is_utf8


def check_remote(name: str) -> None:
    """Refuse what can be no name of a remote method or attribute.

    Raises:
        TypeError: it is no text.
        AttributeError: it is empty, private, or no message can carry it.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an attribute is a str, not {name!r}")
    if not name:
        raise AttributeError("'' is no name of an attribute")
    if name.startswith("_"):
        raise AttributeError(
            f"{name!r} is private: names that begin with _ are never remote"
        )
    if not is_utf8(name):
        raise AttributeError(f"{name!r} is no name that can be sent: it is not UTF-8")


class NotAValue:
    """Has no operators: using one raises what says how to get the value."""

    __slots__ = ()

    def _forgot(self, hint: str = "") -> TypeError:
        """The error that says what this is, and what was probably forgotten.

        Args:
            hint: added to it.
        """
        raise NotImplementedError

    def __bool__(self, *_: Any, **__: Any) -> Any:
        raise self._forgot()

    __len__ = __iter__ = __getitem__ = __bool__
    __int__ = __float__ = __complex__ = __index__ = __bool__
    # Else NumPy would make an array of one object of it.
    __array__ = __bool__
    __neg__ = __pos__ = __abs__ = __invert__ = __bool__
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __bool__
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __bool__
    __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __bool__
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __bool__
    __lt__ = __le__ = __gt__ = __ge__ = __bool__
