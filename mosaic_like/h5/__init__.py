"""Trees of dicts, lists and arrays in HDF5 files: ``save``, ``load`` and ``append``.

How a tree stands in a file, for those who read it by other programs, is in ``layout``;
``files`` sees that none is ever half written. h5py is imported when it is first needed.
Nothing here speaks to the runtime: in a coroutine, whose loop should not wait for a
disk, write ``await asyncio.to_thread(h5.save, path, tree)``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from .files import Path, alone_in, opened, place_of, replacing
from .joining import Joiner
from .layout import mark
from .reading import part
from .writing import Writer

__all__ = ["append", "load", "save"]


def save(
    path: Path, tree: Mapping[str, Any], *, compression: str | None = None
) -> None:
    """Write a tree of dicts, lists and arrays to a file, in place of what it was.

    The file is written beside its place and then renamed: readers have the old one or
    the new one, and after an error the old one is still there.

    Args:
        path: the file; its folder must exist.
        tree: a dict or Struct with string keys. Inside: dicts, Structs, lists, tuples,
            NumPy arrays and scalars, int, float, complex, bool, str, bytes and None.
        compression: of arrays of 4 KiB and more: a filter of h5py, such as ``"gzip"``
            or ``"lzf"``; None for none, which is the fastest to read and to write.

    Raises:
        ModuleNotFoundError: h5py is missing; the text has the command.
        TypeError: something inside cannot be written; the text says where it is: put
            an array, or a dict of arrays, in its place.
        ValueError: a dict or list holds itself, or there is no such compression.
        OSError: the folder does not exist, the disk is full, ...

    >>> import numpy, tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "model.h5"
    >>> save(file, {"vp": numpy.full((2, 2), 1500.0), "shots": [{"id": 1}]})
    >>> load(file)["shots"]
    [{'id': 1}]
    """
    h5py = _h5py()
    _check("save", h5py, tree, compression)
    with replacing(path) as new, opened(h5py, path, "w", new) as file:
        _write(h5py, file, tree, compression, is_growable=False)


def load(path: Path, *keys: str | int) -> Any:
    """Read a file, or a part of it, back into dicts, lists and arrays.

    Args:
        path: a file of ``save``, or any other HDF5 file.
        keys: of the part to be read, from the top; only that is read. For a list they
            are indices.

    Returns:
        What was saved: dicts and Structs as they were, arrays in memory. To read
        slices of arrays larger than memory, open the file by h5py itself.

    Raises:
        ModuleNotFoundError: h5py is missing; the text has the command.
        FileNotFoundError: there is no such file.
        OSError: it is no HDF5 file, or is damaged.
        LookupError: it has no such part; the text says what there is.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "run.h5"
    >>> save(file, {"misfit": [0.9, 0.5], "grid": {"h": 0.001}})
    >>> load(file, "grid", "h"), load(file, "misfit", 1)
    (0.001, 0.5)
    """
    h5py = _h5py()
    if not os.path.exists(path):
        raise FileNotFoundError(f"{os.fspath(path)}: there is no such file")
    with opened(h5py, path, "r") as file:
        return part(h5py, file, keys)


def append(
    path: Path,
    tree: Mapping[str, Any],
    *,
    compression: str | None = None,
    in_place: bool = False,
) -> None:
    """Add a tree to what a file holds; without a file it is ``save``.

    Dicts are joined key by key, lists get further items, arrays grow along their first
    axis. Nothing that is there is changed. Two programs that append to one file of a
    local disk at the same time do so one after the other.

    Args:
        path: the file.
        tree: as for ``save``.
        compression: of arrays that are new; those that grow keep their own.
        in_place: write into the file itself. Otherwise it is copied first and replaced
            when all is written, which takes time for a large file; in place, an error
            leaves what was written before it, and a program that is killed in the
            middle a file that may not be readable.

    Raises:
        ModuleNotFoundError: h5py is missing; the text has the command.
        TypeError: something inside cannot be written, or cannot be joined with what is
            there: a dict with a list, an array with one of another type.
        ValueError: a value that cannot grow is there already, or an array has other
            dimensions but the first: use another key, or ``save``.
        OSError: the file is no HDF5 file, the disk is full, ...

    >>> import numpy, tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "run.h5"
    >>> for n in range(3):
    ...     append(file, {"misfit": [1 / (n + 1)], "models": numpy.zeros((1, 70, 70))})
    >>> load(file)["models"].shape, len(load(file, "misfit"))
    ((3, 70, 70), 3)
    """
    h5py = _h5py()
    _check("append", h5py, tree, compression)
    target = place_of(path)
    with alone_in(os.path.dirname(target)):
        if not os.path.exists(target):
            with replacing(target) as new, opened(h5py, path, "w", new) as file:
                _write(h5py, file, tree, compression, is_growable=True)
            return
        with (
            contextlib.nullcontext(target)
            if in_place
            else replacing(target, of_copy=True) as place,
            opened(h5py, path, "r+", place) as file,
        ):
            writer = Writer(h5py, compression, is_growable=True)
            Joiner(writer).join(file, tree, ())


def _write(
    h5py: Any,
    file: Any,
    tree: Mapping[str, Any],
    compression: str | None,
    is_growable: bool,
) -> None:
    mark(file, tree)
    Writer(h5py, compression, is_growable).members(file, tree, ())


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'mosaic_like.h5 needs h5py: pip install "mosaic_like[h5]"', name="h5py"
        ) from None
    return h5py


def _check(what: str, h5py: Any, tree: Any, compression: str | None) -> None:
    if not isinstance(tree, Mapping):
        raise TypeError(
            f"h5.{what}() takes a dict or Struct, found {type(tree).__name__}; give "
            "the value a name: {'value': ...}"
        )
    known = h5py.filters.encode
    if compression is not None and compression not in known:
        raise ValueError(
            f"compression: found {compression!r}, expected None or "
            f"{' or '.join(map(repr, sorted(set(known) & {'gzip', 'lzf', 'szip'})))}"
        )
