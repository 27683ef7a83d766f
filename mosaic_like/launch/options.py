"""How mrun has its options: under headings, each value looked at by itself.

Also which words of a command line are a program. What the options are stands in
``mrun`` and ``commands``, and what they mean together in ``roles`` and ``asked``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = "Cluster"
LOG = "What is said"
HOSTS = "More than one host"
ROLES = "What mrun is"
REST = "About"


def at_least_1(
    ctx: click.Context, parameter: click.Parameter, value: int | None
) -> int | None:
    # click.IntRange would say [x>=1] in the help.
    if value is not None and value < 1:
        raise click.BadParameter(f"found {value}, expected at least 1")
    return value


class Option(click.Option):
    """An option that knows under which heading it stands in the help."""

    def __init__(self, *args: Any, heading: str = RUN, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class Mrun(click.Group):
    """A group of which every word that is no sub-command is a program."""

    # What these words are: a command that is not among the others.
    program: click.Command | None = None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # The words that are left are the tail of what was typed. After `--` they are
        # a program, whatever its name is.
        before = list(args)
        if not before and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        rest = super().parse_args(ctx, args)
        at = len(before) - len(ctx.args) - 2  # before the first word
        ctx.meta["program"] = at >= 0 and before[at] == "--"
        ctx.meta["words"] = before
        return rest

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in self.commands and not ctx.meta.get("program"):
            return super().resolve_command(ctx, args)
        assert self.program is not None
        return "run", self.program, ["--", *args]

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        headings: dict[str, list[tuple[str, str]]]
        headings = {RUN: [], HOSTS: [], ROLES: [], LOG: [], REST: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = getattr(parameter, "heading", REST)
                headings[heading].append(record)
        self.format_commands(ctx, formatter)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def option(*names: str, **more: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=Option, **more)


def writable(ctx: click.Context, parameter: Any, value: str | None) -> str | None:
    """The whole path of a file to which something can be added."""
    if value is None:
        return None
    path = os.path.abspath(value)
    try:
        with open(path, "a"):
            return path
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}") from None


def directory(ctx: click.Context, parameter: Any, value: str | None) -> str | None:
    """The whole path of a directory, which is made."""
    if value is None:
        return None
    path = os.path.abspath(value)
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}") from None
    return path


def all_of_them(
    ctx: click.Context, parameter: Any, value: tuple[str, ...]
) -> str | None:
    """Of an option that may be given several times, as if it were one list."""
    return ",".join(value) if value else None


def workers(function: Any) -> Any:
    """The options that mrun and its REPL share."""
    for decorate in (
        option(
            "-nth",
            "--nthreads",
            "num_threads",
            type=int,
            callback=at_least_1,
            metavar="N",
            help="Threads of numerical libraries in each worker "
            "[default: usable cores // workers]",
        ),
        option(
            "-nw",
            "--nworkers",
            "num_workers",
            type=int,
            callback=at_least_1,
            metavar="N",
            help="Worker processes [default: usable cores // threads]",
        ),
    ):
        function = decorate(function)
    return function


def flag(*names: str, heading: str, help: str) -> Callable[[Any], Any]:
    return option(*names, is_flag=True, heading=heading, help=help)
