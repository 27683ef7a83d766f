"""``Struct``: a dictionary whose fields are attributes too.

It knows nothing of tesserae or of files: it travels as any other object does, and
``h5`` writes it. Options must not come here: a keyword of the constructor is a field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from reprlib import recursive_repr
from typing import Any, Self

__all__ = ["Struct"]


class Struct(MutableMapping[str, Any]):
    """A dictionary with string keys that can be read and set as attributes.

    Plain dicts become Structs where they are put in, at any depth of dicts; lists are
    left as they are. Everything that works with a mapping works with it: ``dict(s)``,
    ``f(**s)``, ``s == {...}``, ``for key in s``. A field that has the name of a method,
    such as ``items``, is read and set as ``s["items"]``.

    For type checkers a field is ``Any``; a subclass may say what its fields are by
    annotations without values.

    Args:
        sources: mappings, or iterables of pairs; later ones win.
        fields: further fields; they win over the sources.

    Raises:
        TypeError: a key is no string.

    >>> grid = Struct(shape=(70, 70), time={"step": 0.22e-6, "num": 420})
    >>> grid.time.num
    420
    >>> grid.time.num = 500
    >>> grid["time"]["num"]
    500
    >>> grid.time
    Struct(step=2.2e-07, num=500)
    """

    __slots__ = ("_fields", "_is_write_once")
    _fields: dict[str, Any]
    _is_write_once: bool

    def __init__(
        self, /, *sources: Mapping[str, Any] | Iterable[tuple[str, Any]], **fields: Any
    ) -> None:
        self._fill(False, sources, fields)

    @classmethod
    def write_once(
        cls, /, *sources: Mapping[str, Any] | Iterable[tuple[str, Any]], **fields: Any
    ) -> Self:
        """One whose fields can be added, but neither changed nor deleted.

        Dicts that are put in become write-once too; a copy made by ``Struct(s)`` can be
        changed.

        Args:
            sources: mappings, or iterables of pairs; none may repeat a field.
            fields: further fields.

        Raises:
            TypeError: a key is no string.
            ValueError: a field is given twice; and, later, when one is set again or
                deleted: make a new Struct.

        >>> model = Struct.write_once(vp=1500.0)
        >>> model.rho = 1000.0
        >>> model.vp = 1600.0
        Traceback (most recent call last):
        ...
        ValueError: field 'vp' of a write-once Struct is set already (1500.0); ...
        """
        made = cls.__new__(cls)
        made._fill(True, sources, fields)
        return made

    def _fill(
        self, is_write_once: bool, sources: Iterable[Any], fields: dict[str, Any]
    ) -> None:
        # Past our own __setattr__, which makes fields.
        object.__setattr__(self, "_fields", {})
        object.__setattr__(self, "_is_write_once", is_write_once)
        for source in (*sources, fields):
            # A source may itself have a field called `keys`, so dict() is not asked.
            pairs = source.items() if isinstance(source, Mapping) else source
            for key, value in pairs:
                self[key] = value

    # -- as a mapping ------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        try:
            return self._fields[key]
        except KeyError:
            raise KeyError(f"no field {key!r}; {self._known()}") from None

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"the fields of a Struct are strings, found {key!r}")
        self._check_free(key, "set")
        if type(value) is dict and all(isinstance(name, str) for name in value):
            nested = Struct.__new__(Struct)
            nested._fill(self._is_write_once, (value,), {})
            value = nested
        self._fields[key] = value

    def __delitem__(self, key: str) -> None:
        self[key]  # says which there are
        self._check_free(key, "deleted")
        del self._fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, key: object) -> bool:
        return key in self._fields

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The field; ``default``, which is put in, if there is none."""
        if key not in self._fields:
            self[key] = default
        return self._fields[key]  # a dict has become a Struct

    def copy(self) -> Self:
        """A shallow copy, write-once if this is."""
        made = type(self).__new__(type(self))
        made.__setstate__((dict(self._fields), self._is_write_once))
        return made

    __copy__ = copy  # that of copy.copy would share the fields

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, also of the Structs in dicts, lists and tuples inside.

        >>> Struct(a={"b": [Struct(c=1)]}).to_dict()
        {'a': {'b': [{'c': 1}]}}
        """
        return {key: _plain(value) for key, value in self._fields.items()}

    # -- as an object ------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # Reached only for what is no method. A slot is found here while the object is
        # rebuilt and has none yet.
        if name in Struct.__slots__:
            raise AttributeError(name)
        try:
            return self._fields[name]
        except KeyError:
            # With the name and the object, Python adds "Did you mean".
            raise AttributeError(
                f"{type(self).__name__} has no field {name!r}; {self._known()}",
                name=name,
                obj=self,
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        # Not hasattr, which finds the names of the metaclass too.
        if any(name in vars(cls) for cls in type(self).__mro__):
            raise AttributeError(
                f"{name!r} is a name of {type(self).__name__} itself; the field of "
                f"that name is set by s[{name!r}] = ..."
            )
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self._fields:
            raise AttributeError(
                f"{type(self).__name__} has no field {name!r}; {self._known()}",
                name=name,
                obj=self,
            )
        del self[name]

    def __dir__(self) -> list[str]:
        names = [key for key in self._fields if key.isidentifier()]
        return sorted({*super().__dir__(), *names})

    def __getstate__(self) -> tuple[dict[str, Any], bool]:
        return self._fields, self._is_write_once

    def __setstate__(self, state: tuple[dict[str, Any], bool]) -> None:
        object.__setattr__(self, "_fields", state[0])
        object.__setattr__(self, "_is_write_once", state[1])

    @recursive_repr()
    def __repr__(self) -> str:
        name = type(self).__name__ + (".write_once" if self._is_write_once else "")
        if not all(key.isidentifier() for key in self._fields):
            return f"{name}({self._fields!r})"
        return f"{name}({', '.join(f'{k}={v!r}' for k, v in self._fields.items())})"

    # -- mistakes ----------------------------------------------------------------------

    def _check_free(self, key: str, what: str) -> None:
        if self._is_write_once and key in self._fields:
            how = "set already" if what == "set" else "not to be deleted"
            raise ValueError(
                f"field {key!r} of a write-once Struct is {how} "
                f"({_short(self._fields[key])}); to change it, make a new one: "
                "Struct(s) can be changed"
            )

    def _known(self) -> str:
        keys = list(map(repr, self._fields))
        more = f" and {len(keys) - 10} more" if len(keys) > 10 else ""
        return f"there are {', '.join(keys[:10])}{more}" if keys else "it has none"


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return value.to_dict()
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    if type(value) is list or type(value) is tuple:
        return type(value)(_plain(item) for item in value)
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
