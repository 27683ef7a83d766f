"""Values kept outside the cluster: where, under which key, and as which bytes.

A store is a directory, or any object with ``get``, ``put``, ``delete`` and
``__contains__``. In a directory each value is a file that only its user can read; it is
written beside its place and then renamed, so that nobody ever reads half of one. Which
values are kept, and when, is not known here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import SerializationError
from .digest import DIGEST_BYTES, digest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LONGEST_NAME = 255  # bytes, of one part of a path
OF_CALL = ("name", "key", "version", "run_name")  # what ``{info[...]}`` has


@runtime_checkable
class Store(Protocol):
    """What ``store=`` takes beside a directory; it travels to the workers.

    ``stored_at(key)``, the time in seconds since the epoch, is needed only where
    ``cache_expiration`` is given.
    """

    def get(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def delete(self, key: str) -> None: ...
    def __contains__(self, key: str) -> bool: ...


@runtime_checkable
class Serializer(Protocol):
    """What ``serializer=`` takes beside "pickle" and "json"."""

    def dumps(self, value: Any) -> bytes: ...
    def loads(self, data: bytes) -> Any: ...


class DirectoryStore:
    """Values as files of one directory.

    Args:
        path: of the directory, which is made when first needed, for its user alone.
    """

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()

    def file(self, key: str) -> Path:
        """Where the value of a key is.

        Raises:
            ValueError: the key leads out of the directory, or is no name of a file.
        """
        parts = key.split("/")
        if (
            "\0" in key
            or any(part in ("", ".", "..") for part in parts)
            or any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts)
        ):
            raise ValueError(
                f"store_key {key!r}: expected the name of a file below {self.path}, "
                "whose parts are neither empty nor '.' nor '..'"
            )
        file = self.path.joinpath(*parts)
        # A link below the directory may lead anywhere.
        if not file.parent.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(
                f"store_key {key!r}: it leads out of the store {self.path}, to "
                f"{file.parent.resolve()}"
            )
        return file

    def get(self, key: str) -> bytes:
        """The bytes under a key; KeyError if there are none."""
        try:
            return self.file(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def put(self, key: str, data: bytes) -> None:
        """Keep them, instead of those that were there."""
        file = self.file(key)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=".", suffix=".new", dir=file.parent)
        try:
            with open(number, "wb") as new:  # mode 0600, by mkstemp
                new.write(data)
                new.flush()
                os.fsync(new.fileno())  # or after a crash the name leads to nothing
            os.replace(name, file)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise

    def delete(self, key: str) -> None:
        """Forget it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.file(key).unlink()

    def __contains__(self, key: str) -> bool:
        return self.file(key).is_file()

    def stored_at(self, key: str) -> float:
        """When it was put, in seconds since the epoch."""
        try:
            return self.file(key).stat().st_mtime
        except FileNotFoundError:
            raise KeyError(key) from None

    def __repr__(self) -> str:
        return f"DirectoryStore({str(self.path)!r})"


class PickleSerializer:
    """Any value that can be pickled; classes of scripts go by value."""

    name = "pickle"

    def dumps(self, value: Any) -> bytes:
        try:
            return pickle.dumps(value, 5)
        except (pickle.PicklingError, AttributeError, TypeError):
            from ..comms.by_value import dump_alone  # it is heavy, and seldom needed

            return dump_alone(value)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


class JsonSerializer:
    """What JSON can say: a tuple is read as a list, keys of dicts as texts."""

    name = "json"

    def dumps(self, value: Any) -> bytes:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


def store_of(option: Any) -> Store | None:
    """The option ``store``.

    Raises:
        TypeError: neither a directory nor an object with the methods of ``Store``.
    """
    if option is None or isinstance(option, DirectoryStore):
        return option
    if isinstance(option, str | os.PathLike):
        return DirectoryStore(option)
    if isinstance(option, Store) and not isinstance(option, type):
        return option
    raise TypeError(
        f"option 'store': found {option!r}, expected the path of a directory, or an "
        "object with get(key), put(key, data), delete(key) and __contains__(key)"
    )


def serializer_of(option: Any) -> Serializer:
    """The option ``serializer``.

    Raises:
        ValueError: a text that is neither "pickle" nor "json".
        TypeError: an object without ``dumps`` and ``loads``.
    """
    if option == "pickle":
        return PickleSerializer()
    if option == "json":
        return JsonSerializer()
    if isinstance(option, str):
        raise ValueError(
            f"option 'serializer': found {option!r}, expected 'pickle', 'json', or an "
            "object with dumps(value) and loads(data)"
        )
    if isinstance(option, Serializer) and not isinstance(option, type):
        return option
    raise TypeError(
        f"option 'serializer': found {option!r}, expected 'pickle', 'json', or an "
        "object with dumps(value) and loads(data)"
    )


class Kept:
    """Where the value of one call is kept: what travels with the call.

    Args:
        store: where.
        key: under which; None: to be set where the call runs, before it is used.
        serializer: as which bytes.
        owner: of all calls that have this key, the one whose value is to be read;
            None: there is no other. It is kept beside the value, with a digest of
            the value's bytes: so whoever writes between the two spoils nothing.
    """

    __slots__ = ("key", "owner", "serializer", "store")

    def __init__(
        self,
        store: Store,
        key: str | None,
        serializer: Serializer,
        owner: str | None = None,
    ) -> None:
        self.store = store
        self.key = key
        self.serializer = serializer
        self.owner = owner

    @property
    def _name(self) -> str:
        assert self.key is not None, "it is set by now"
        return self.key

    def write(self, value: Any, name: str) -> None:
        """Keep a value.

        Raises:
            SerializationError: the serializer cannot say it.
            Exception: what the store raises, with its name and the task's.
        """
        try:
            data = self.serializer.dumps(value)
        except Exception as error:
            kind = getattr(self.serializer, "name", type(self.serializer).__name__)
            raise SerializationError(
                f"the value of {name}, a {type(value).__qualname__}, cannot be kept: "
                f"serializer={kind!r} raised {type(error).__name__}: {error}; return "
                "what it can say, or give the task another serializer"
            ) from error
        try:
            self.store.put(self._name, data)
            if self.owner is not None:
                self.store.put(self._beside, self._mark(data))
        except Exception as error:
            text = (
                f"the value of {name} cannot be kept in store={self.store!r}, as "
                f"{self._name!r}"
            )
            hint = "let the workers write there, or give the task another store"
            if isinstance(error, OSError) and error.strerror:
                text = f"{text}: {error.strerror}; {hint}"
                raise OSError(error.errno, text, error.filename) from error
            error.add_note(f"  {text}; {hint}")
            raise

    @property
    def _beside(self) -> str:
        """The key of what tells whose value it is: hidden, and never too long."""
        where, slash, name = self._name.rpartition("/")
        return f"{where}{slash}.{digest_of(name)}.of"

    def _mark(self, data: bytes) -> bytes:
        digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()
        return f"{self.owner} {digest}".encode()

    def is_there(self, now_s: float, expiration_s: float | None) -> bool:
        """Whether a value is there and not too old; what cannot be asked is not."""
        try:
            if self._name not in self.store:
                return False
            if expiration_s is None:
                return True
            stored_s: float = self.store.stored_at(self._name)  # type: ignore[attr-defined]  # asked for at decoration
        except ValueError:
            raise  # the key is at fault
        except Exception:
            return False
        return now_s < stored_s + expiration_s

    def read(self) -> Any:
        """The value; it raises whatever store and serializer raise.

        Raises:
            LookupError: it is of another call.
        """
        data = self.store.get(self._name)
        if self.owner is not None and self.store.get(self._beside) != self._mark(data):
            raise LookupError(f"{self._name!r} has the value of another call")
        return self.serializer.loads(data)


class _Attributes(dict[str, Any]):
    """So that ``{info.name}`` and ``{info[name]}`` are the same."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def key_from(
    template: str, parameters: Mapping[str, Any], info: Mapping[str, Any]
) -> str:
    """The option ``store_key`` of one call.

    Raises:
        ValueError: it mentions what is not there.
    """
    try:
        return template.format(
            parameters=_Attributes(parameters), info=_Attributes(info)
        )
    except ValueError as error:
        raise ValueError(f"option 'store_key': {template!r}: {error}") from None
    except (LookupError, AttributeError) as error:
        raise ValueError(
            f"option 'store_key': {template!r} mentions {error}; there are "
            f"parameters[{', '.join(parameters)}] and info[{', '.join(info)}]"
        ) from None


class _Anything:
    """Stands for a value that is not known yet: it is there, and so are its parts."""

    def __getattr__(self, name: str) -> _Anything:
        return self

    def __getitem__(self, key: Any) -> _Anything:
        return self

    def __format__(self, spec: str) -> str:
        return "x"

    def __repr__(self) -> str:
        return "x"


def check_store_key(template: str, store: Any, parameters: Iterable[str]) -> None:
    """Raise for what no call can have as its key, whatever its arguments are.

    Args:
        template: the option ``store_key``.
        store: the option ``store``.
        parameters: their names.

    Raises:
        ValueError: it mentions what is not there, or leads out of the directory.
    """
    anything = _Anything()
    known = dict.fromkeys(parameters, anything)
    key = key_from(template, known, dict.fromkeys(OF_CALL, anything))
    if isinstance(store, DirectoryStore):
        store.file(key)
