"""Joins a tree with what a group has: nothing that is there is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .layout import (
    DTYPE,
    MAPPINGS,
    MARK,
    Keys,
    Kind,
    at,
    is_flat,
    kind_of,
    kind_of_items,
    name_of,
)
from .reading import read
from .writing import Inside, Writer


class Joiner:
    """Adds to what is there; what is new it gives to a writer.

    Args:
        writer: of the same file.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._h5py = writer.h5py
        self._np = writer.np

    def join(self, group: Any, tree: Mapping[str, Any], path: Keys) -> None:
        """Add the members of a mapping to those of a group."""
        with Inside(self._writer.above, tree, path):
            for key, value in tree.items():
                where = (*path, key)
                name = name_of(key) if isinstance(key, str) else ""
                if name in group:
                    self._join_one(group, name, value, where)
                else:
                    self._writer.members(group, {key: value}, path)

    def _join_one(self, group: Any, name: str, value: Any, path: Keys) -> None:
        old = group[name]
        kind = kind_of(old, path)
        if isinstance(value, Mapping) and kind in MAPPINGS:
            self.join(old, value, path)
        elif isinstance(value, list | tuple) and kind is kind_of_items(value):
            self._join_items(group, name, value, path)
        elif isinstance(value, self._np.ndarray) and kind is Kind.ARRAY:
            self._join_array(group, name, self._writer.checked(value, path), path)
        else:
            grows = isinstance(value, Mapping | list | tuple | self._np.ndarray)
            raise (TypeError if grows or kind in MAPPINGS else ValueError)(
                f"{at(path)}: there is a value ({kind}) already, to which "
                f"{type(value).__name__} cannot be appended: use another key, or "
                "write all anew by save()"
            )

    def _join_items(
        self, group: Any, name: str, value: Sequence[Any], path: Keys
    ) -> None:
        old = group[name]
        if not value:
            return
        if not len(old):
            del group[name]
            self._writer.write(group, name, value, path)
        elif isinstance(old, self._h5py.Group):
            self._writer.items(old, value, len(old), path)
        elif is_flat(value) and self._writer.flat(value).dtype == old.dtype:
            self._extend(group, name, self._writer.flat(value))
        else:  # of several kinds from now on
            kind = kind_of(old, path)
            before = read(self._h5py, old, path)
            del group[name]
            new = group.create_group(name, track_order=True)
            new.attrs[MARK] = kind.value
            self._writer.items(new, before, 0, path)
            self._writer.items(new, value, len(before), path)

    def _join_array(self, group: Any, name: str, value: Any, path: Keys) -> None:
        np, old = self._np, group[name]
        if not value.ndim or not old.shape:
            raise ValueError(
                f"{at(path)}: what has no dimensions cannot grow; append arrays of one "
                "dimension or more, such as value[None]"
            )
        if old.shape[1:] != value.shape[1:]:
            raise ValueError(
                f"{at(path)}: found an array of shape {value.shape}, expected "
                f"{('n', *old.shape[1:])} as it is in the file: only the first axis "
                "grows"
            )
        dtype = np.dtype(old.attrs.get(DTYPE, old.dtype))
        if value.dtype.kind == "U" == dtype.kind:
            dtype = np.promote_types(dtype, value.dtype)  # the longer of the two
        elif not np.can_cast(value.dtype, dtype, "safe"):
            raise TypeError(
                f"{at(path)}: found an array of dtype {value.dtype}, in the file it is "
                f"{dtype}; convert it by astype({str(dtype)!r}) if nothing is lost"
            )
        self._extend(group, name, self._writer.stored(value.astype(dtype)))
        if dtype.kind in "UMm":
            group[name].attrs[DTYPE] = dtype.str

    def _extend(self, group: Any, name: str, more: Any) -> None:
        """Let a dataset grow along its first axis."""
        old = group[name]
        shape = (old.shape[0] + more.shape[0], *old.shape[1:])
        if old.maxshape[0] is None:
            start = old.shape[0]
            old.resize(shape)
            old[start:] = more
            return
        # It was saved in one piece: laid out anew once.
        attributes = dict(old.attrs)
        options: dict[str, Any] = {}
        if all(shape[1:]):
            options = {"maxshape": (None, *shape[1:]), "chunks": True}
            options["compression"] = old.compression
        data = self._np.concatenate([old[()], more])
        dtype = old.dtype
        del group[name]
        new = group.create_dataset(name, data=data, dtype=dtype, **options)
        new.attrs.update(attributes)
