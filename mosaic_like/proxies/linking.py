"""``mosaic.link``: two tesserae of which one does not live without the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .tessera import TesseraProxy

if TYPE_CHECKING:
    from .handles import TesseraHandle


def link(one: TesseraProxy[Any], other: TesseraProxy[Any]) -> None:
    """Let two tesserae end together: when one fails, the other is ended too.

    It fails when its worker is lost or drained, its constructor raises, or it is killed
    by ``mosaic.kill``; with ``max_restarts`` a lost worker is no end as long as it is
    built again. It does not when it was closed by ``mosaic.close``, or because nobody
    holds it any more, nor when a method raises: then the other one lives on.

    The other is ended as by ``mosaic.kill``: what it runs and what is queued is
    cancelled, its ``__close__`` runs, and later calls raise LookupError; the texts name
    the first one and its end. It ends what it is linked to in its turn. A link holds
    neither of the two, and holds from now on: if one has failed already, the other
    ends.

    Args:
        one: a proxy.
        other: a proxy of another tessera, wherever it lives.

    Raises:
        TypeError: one of them is no proxy of a tessera.
        ValueError: both are of the same tessera, or of different clusters.

    >>> import mosaic_like as mosaic
    >>> @mosaic.tessera
    ... class Part:
    ...     def ping(self): return "here"
    >>> async def main():
    ...     reader, writer = await Part.remote(), await Part.remote()
    ...     mosaic.link(reader, writer)
    ...     await mosaic.kill(reader)
    ...     try:
    ...         while await writer.ping().result(): pass
    ...     except (LookupError, mosaic.TaskCancelledError) as error:
    ...         return "it was linked to Part#1" in str(error)
    >>> mosaic.run(main, num_workers=1)
    True
    """
    first, second = _handle_of(one), _handle_of(other)
    if first.runtime is not second.runtime:
        raise ValueError("link() takes tesserae of one cluster, found one of another")
    if one == other:
        raise ValueError(f"link() takes two tesserae, found {first.stream.label} twice")
    runtime: Any = first.runtime
    runtime.linking.link(first, second)


def _handle_of(proxy: Any) -> TesseraHandle:
    if not isinstance(proxy, TesseraProxy):
        raise TypeError(
            f"link() takes proxies of two tesserae, found {proxy!r}; the members of an "
            "array are linked one by one"
        )
    return proxy._mosaic_handle
