"""Names of single runs: ``run_name=`` as a format string or a function."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Mapping

_LONGEST = 200  # characters


def check_run_name(option: Any, name: str, signature: inspect.Signature) -> None:
    """The option ``run_name``, as far as it can be known without a call.

    Args:
        option: of the task.
        name: of the task, for errors.
        signature: of its function.

    Raises:
        TypeError: neither a format string nor a function of the parameters.
        ValueError: a field that is no parameter.
    """
    if option is None:
        return
    if callable(option):
        return
    if not isinstance(option, str):
        raise TypeError(
            f"option 'run_name': found {option!r}, expected a format string over the "
            "parameters, or a function (parameters) -> str"
        )
    fields = _fields(option)
    unknown = [field for field in fields if field not in signature.parameters]
    if unknown:
        raise ValueError(
            f"option 'run_name': {option!r} mentions "
            f"{', '.join(map(repr, unknown))}; {name}{signature} has no such parameter"
        )


def _fields(template: str) -> list[str]:
    """The names that a format string begins its fields with, nested ones too."""
    found = []
    try:
        for _, field, spec, _ in string.Formatter().parse(template):
            if field is not None:
                found.append(field.partition(".")[0].partition("[")[0])
                found += _fields(spec or "")
    except ValueError as error:
        raise ValueError(f"option 'run_name': {template!r}: {error}") from None
    return found


def run_name_of(
    option: str | Callable[[Mapping[str, Any]], str],
    parameters: Mapping[str, Any],
    name: str,
) -> str:
    """The name of one run.

    Raises:
        TypeError: the function did not give a text.
        Exception: what formatting a parameter, or the function, raises.
    """
    if isinstance(option, str):
        return option.format(**parameters)[:_LONGEST]
    found = option(parameters)
    if not isinstance(found, str):
        raise TypeError(
            f"the run_name function of {name} gave {found!r}, expected a str"
        )
    return found[:_LONGEST]
