"""What is known of one option: its kind, unit and range, and how its text is read.

Which options there are stands in ``config``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec

from .sizes import parse_size, size_text

_ENVIRONMENT_PREFIX = "MOSAIC_"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
BYTES = "bytes"  # the unit of options that may be written as "2 GiB"
_KINDS = {
    int: "an integer",
    float: "a number",
    bool: "a bool",
    str: "a string",
    tuple: "a sequence of strings",
}


class Option(msgspec.Struct, frozen=True):
    """What is known of one option; ``Config.options()`` gives all of them."""

    name: str
    kind: type
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False
    default: Any = None
    # Of an option of the original's that is not needed here: what to use instead. It
    # may have no value but its default, so that nothing is accepted and ignored.
    instead: str = ""
    there: tuple[Any, ...] = ()  # values of such a one that are there already

    @property
    def environment(self) -> str:
        return _ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def expected(self) -> str:
        """The values it takes, in words, for errors and for help."""
        words = " or ".join(map(repr, self.choices)) or _KINDS[self.kind]
        if self.unit == BYTES:
            words = "bytes, or a size such as '2 GiB'"
        elif self.unit:
            words += f" of {self.unit}"
        if self.unit == BYTES:
            words += f", at least {size_text(int(self.minimum or 0))}"
        elif self.minimum is not None and self.maximum is not None:
            words += f" from {self.minimum:g} to {self.maximum:g}"
        elif self.minimum is not None:
            words += f", at least {self.minimum:g}"
        return words + " or None" if self.optional else words

    def check(self, value: Any, source: str = "") -> Any:
        """The value as it is kept.

        Raises:
            TypeError: it is not of the option's kind.
            ValueError: it is out of range or not one of the choices.
            NotImplementedError: it is none of ours; the text says what is instead.
        """
        if value is None and self.optional:
            return None
        source = source or self.name
        kept = self._of_kind(value)
        if kept is None:
            raise TypeError(
                f"{source}: found {value!r} ({type(value).__name__}), "
                f"expected {self.expected}"
            )
        if self.choices:
            allowed = kept in self.choices
        elif self.kind in (int, float):
            # nan compares false, so it is refused wherever there is a minimum
            above = self.minimum is None or kept >= self.minimum
            allowed = above and (self.maximum is None or kept <= self.maximum)
        else:
            allowed = True
        if not allowed:
            raise ValueError(f"{source}: found {value!r}, expected {self.expected}")
        if self.instead and kept not in (self.default, *self.there):
            raise NotImplementedError(f"{source}={value!r}: {self.instead}")
        return kept

    def parse(self, text: str) -> Any:
        """The value of an environment variable.

        Raises:
            ValueError: the text cannot be read, or its value is not allowed.
        """
        if self.optional and text.lower() == "none":
            return None
        try:
            value = self._read(text)
        except ValueError:
            raise ValueError(
                f"{self.environment}: found {text!r}, expected {self.expected}"
            ) from None
        return self.check(value, self.environment)

    def _of_kind(self, value: Any) -> Any:
        if self.kind is bool or isinstance(value, bool):
            return value if self.kind is bool and isinstance(value, bool) else None
        if self.kind is float and isinstance(value, int):
            return float(value)
        if self.unit == BYTES and isinstance(value, str):
            try:
                return parse_size(value)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from None
        if self.kind is tuple and isinstance(value, Sequence):
            strings = not isinstance(value, str | bytes) and all(
                isinstance(item, str) for item in value
            )
            return tuple(value) if strings else None
        return value if isinstance(value, self.kind) else None

    def _read(self, text: str) -> Any:
        if self.kind is bool:
            if text.lower() not in _TRUE | _FALSE:
                raise ValueError(text)
            return text.lower() in _TRUE
        if self.kind is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return parse_size(text) if self.unit == BYTES else self.kind(text)


def field(default: Any, kind: type, help: str, **more: Any) -> Any:
    """A field of Config; the field's own name becomes the option's."""
    metadata = {"kind": kind, "help": help, "optional": default is None, **more}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata={**metadata, "default": default})
