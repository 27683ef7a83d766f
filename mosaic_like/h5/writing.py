"""Writes a tree as new members of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .layout import (
    DTYPE,
    INT64,
    MARK,
    SCALARS,
    Keys,
    Kind,
    at,
    is_flat,
    is_text,
    kind_of_items,
    mark,
    name_of,
)

_COMPRESSED_FROM_BYTES = 4096  # smaller arrays would only become larger
_GROWS_BY = 1024  # items of a list, a chunk
_NUMERIC = "biufcSV"  # kinds of dtypes that HDF5 has; V are records, of these


class Writer:
    """Writes trees below a group.

    Args:
        h5py: the module.
        compression: a filter for large arrays, or None.
        is_growable: lists and arrays are laid out so that they can grow in place.
    """

    def __init__(self, h5py: Any, compression: str | None, is_growable: bool) -> None:
        import numpy

        self.h5py = h5py
        self.np = numpy
        self._compression = compression
        self._is_growable = is_growable
        self.above: set[int] = set()  # what is being written: no part of itself

    def members(self, group: Any, tree: Mapping[str, Any], path: Keys) -> None:
        """Write the members of a mapping into a group that has none of them."""
        with Inside(self.above, tree, path):
            for key, value in tree.items():
                where = (*path, key)
                if not isinstance(key, str):
                    raise TypeError(
                        f"{at(where)}: keys are strings here, found {key!r} "
                        f"({type(key).__name__}); use str(key)"
                    )
                self.write(group, name_of(key), value, where)

    def write(self, group: Any, name: str, value: Any, path: Keys) -> None:
        """Write a value as a new member of a group."""
        kind = SCALARS.get(type(value))
        if kind is not None:
            self._scalar(group, name, value, kind)
        elif isinstance(value, Mapping):
            new = group.create_group(name, track_order=True)
            mark(new, value)
            self.members(new, value, path)
        elif isinstance(value, list | tuple):
            self._sequence(group, name, value, path)
        else:
            self._array(group, name, self.checked(value, path), path)

    def _scalar(self, group: Any, name: str, value: Any, kind: Kind) -> None:
        data = value
        if kind is Kind.NONE:
            data = self.h5py.Empty("u1")
        elif kind is Kind.BYTES:
            data = self.np.frombuffer(value, "u1")
        elif kind is Kind.INT and value not in INT64:
            data = str(value)
        elif kind is Kind.STR and not is_text(value):
            data = value.encode(errors="surrogatepass")
            data = self.np.frombuffer(data, "u1")
        group.create_dataset(name, data=data).attrs[MARK] = kind.value

    def _sequence(
        self, group: Any, name: str, value: Sequence[Any], path: Keys
    ) -> None:
        kind = kind_of_items(value)
        if is_flat(value):
            grows = {}
            if self._is_growable:
                grows = {"maxshape": (None,), "chunks": (_GROWS_BY,)}
            new = group.create_dataset(name, data=self.flat(value), **grows)
            new.attrs[MARK] = kind.value
            return
        new = group.create_group(name, track_order=True)
        new.attrs[MARK] = kind.value
        self.items(new, value, 0, path)

    def items(self, group: Any, value: Sequence[Any], start: int, path: Keys) -> None:
        with Inside(self.above, value, path):
            for index, item in enumerate(value, start):
                self.write(group, str(index), item, (*path, index))

    def flat(self, value: Sequence[Any]) -> Any:
        if isinstance(value[0], str):
            return self.np.array(value, self.h5py.string_dtype())
        return self.np.array(value)

    def checked(self, value: Any, path: Keys) -> Any:
        """An array or scalar of NumPy that can be written.

        Raises:
            TypeError: it is another thing.
        """
        np = self.np
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(
                f"{at(path)}: a masked array would lose its mask; save its .data and "
                ".mask as two arrays"
            )
        if not isinstance(value, np.ndarray | np.generic):
            raise TypeError(
                f"{at(path)}: {type(value).__name__} cannot be written to HDF5; put "
                "arrays, numbers, texts, or dicts and lists of these in its place"
            )
        if value.dtype.kind not in _NUMERIC + "UMm":
            raise TypeError(
                f"{at(path)}: an array of dtype {value.dtype} cannot be written to "
                "HDF5; convert it by astype(), or to a list by tolist()"
            )
        return value

    def _array(self, group: Any, name: str, value: Any, path: Keys) -> None:
        shape = value.shape
        options: dict[str, Any] = {}
        # HDF5 refuses to chunk what has no extent in an axis that cannot grow.
        if self._is_growable and shape and all(shape[1:]):
            options = {"maxshape": (None, *shape[1:]), "chunks": True}
        if value.nbytes >= _COMPRESSED_FROM_BYTES and shape:
            options["compression"] = self._compression
        try:
            new = group.create_dataset(name, data=self.stored(value), **options)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{at(path)}: an array of dtype {value.dtype} cannot be written to "
                f"HDF5: {error}"
            ) from error
        if value.dtype.kind in "UMm":
            new.attrs[DTYPE] = value.dtype.str
        if isinstance(value, self.np.ndarray) and not shape:
            new.attrs[MARK] = Kind.ARRAY.value  # and no scalar

    def stored(self, value: Any) -> Any:
        if value.dtype.kind == "U":
            return value.astype(self.h5py.string_dtype())
        if value.dtype.kind in "Mm":
            return value.astype("i8")
        return value


class Inside:
    """While a container is written: that it is no part of itself.

    Raises:
        ValueError: it is.
    """

    def __init__(self, above: set[int], value: Any, path: Keys) -> None:
        self._above = above
        self._id = id(value)
        if self._id in above:
            raise ValueError(f"{at(path)}: this {type(value).__name__} holds itself")

    def __enter__(self) -> None:
        self._above.add(self._id)

    def __exit__(self, *_: object) -> None:
        self._above.discard(self._id)
