"""``mosaic.supervise``: tesserae that are built again together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.groups import Restart
from ..core.restarts import Intensity
from ..core.retries import seconds_of
from ..ids import maker
from .restarts import supervised_handle

if TYPE_CHECKING:
    from .tessera import TesseraProxy


def supervise(
    *proxies: TesseraProxy[Any],
    restart: str = "all",
    max_restarts: int | None = None,
    restart_within: float | None = None,
) -> None:
    """Build tesserae again together: for those that are of no use without each other.

    When the worker of one is lost, the others that ``restart`` names are ended, the
    last one first: what they run is interrupted, and raises RuntimeDisconnectedError
    unless it is idempotent, and their ``__close__`` runs. When all have ended they are
    built again, each when the one before it is built, and calls that had not started,
    or were made meanwhile, go there; each has its last checkpoint again. Who does not
    end within 15 s is built again all the same, and of its calls it is not known
    whether they had started. One that is closed or killed leaves the others as they
    are; when one is not built again, since it has no restarts left or its constructor
    raises, all end.

    Args:
        proxies: of tesserae with ``max_restarts`` that this program, or this method's
            worker, has made; in the order in which they are built.
        restart: ``"one"``: the lost one alone; ``"rest"``: it and those behind it;
            ``"all"``.
        max_restarts: how many losses there may be among them all; None: as many as
            each one's own ``max_restarts`` allows. One that is only built again with
            another counts for nothing.
        restart_within: seconds; only losses within the last so many count. None: all.

    Raises:
        TypeError: one is no proxy of a tessera.
        ValueError: one is not built again, was made elsewhere, is named twice or is
            supervised with others already; or an option is out of range.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera(max_restarts=3)
    ... class Stage:
    ...     def ping(self): return "here"
    >>> async def main():
    ...     reader, filter, writer = Stage.remote(), Stage.remote(), Stage.remote()
    ...     mosaic.supervise(reader, filter, writer, restart="rest")
    ...     return await writer.ping().result()
    >>> mosaic.run(main, num_workers=1)
    'here'
    """
    strategy, often = _options(restart, max_restarts, restart_within)
    if not proxies:
        raise ValueError("supervise() takes tesserae, found none")
    handles = [supervised_handle(proxy, "supervise") for proxy in proxies]
    uids = [handle.uid for handle in handles]
    runtime: Any = handles[0].runtime
    for handle in handles:
        label = handle.stream.label
        if uids.count(handle.uid) > 1:
            raise ValueError(
                f"supervise() takes each tessera once, found {label} twice"
            )
        if maker(handle.uid) != runtime.incarnation:
            raise ValueError(
                f"supervise(): {label} was made elsewhere; who makes the tesserae of a "
                "group builds them again: call this there"
            )
    supervising = runtime.restarts.homes.supervising
    runtime.at_once(supervising.supervise, uids, strategy, often)


def _options(restart: Any, most: Any, within_s: Any) -> tuple[Restart, Intensity]:
    try:
        strategy = Restart(restart)
    except ValueError:
        known = ", ".join(repr(one.value) for one in Restart)
        raise ValueError(
            f"option 'restart': found {restart!r}, expected one of {known}"
        ) from None
    if most is not None and (type(most) is not int or most < 0):
        raise ValueError(
            f"option 'max_restarts': found {most!r}, expected an int of at least 0, or "
            "None"
        )
    name = "option 'restart_within'"
    if within_s is not None and not seconds_of(within_s, name):
        raise ValueError(
            f"{name}: found {within_s!r}, expected more than 0 seconds, or None"
        )
    return strategy, Intensity(most, within_s)
