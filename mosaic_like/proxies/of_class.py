"""What a marked class has and its instances have not: ``Klass.remote`` and the like.

What they give is in ``decorator``, which is imported when the first of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decorator import RemoteClass

OPTIONS_ATTRIBUTE = "__mosaic_options__"  # of a class that was marked


class OfClass:
    """A descriptor that belongs to the class and not to its instances."""

    __mosaic__ = True

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None:
            raise AttributeError(
                f"{owner.__name__!r} object has no attribute {self._name!r}; it "
                f"belongs to the class: {owner.__name__}.{self._name}(...)"
            )
        from .decorator import RemoteClass, select_worker

        if self._name == "select_worker":
            return select_worker
        remote: RemoteClass[..., Any]
        remote = RemoteClass(owner, getattr(owner, OPTIONS_ATTRIBUTE, {}))
        return getattr(remote, self._name)


NAMES = (
    "remote",
    "options",
    "local",
    "parameter",
    "local_parameter",
    "select_worker",
)
