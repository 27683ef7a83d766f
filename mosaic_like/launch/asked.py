"""From what was typed to what is to be: how a new cluster is, and on which hosts.

What cannot be is wrong usage, and is said before anything is started.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from ..config import Config
from .listening import network_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .job import Elsewhere

# Options that say which hosts there are.
ELSEWHERE = (
    *("local", "cluster", "hosts", "hostfile", "num_nodes", "free_head"),
    *("strict", "python", "mpi"),
)
_OF_HOSTS = ("num_workers", "num_threads", "address")
JOINING = ("key", "dynamic")


def checked(function: Callable[..., Any], *given: Any) -> Any:
    """What it gives; what is wrong with what was typed is wrong usage."""
    try:
        return function(*given)
    except ValueError as error:
        raise click.UsageError(str(error), ctx=root()) from None


def cluster_of(ctx: click.Context) -> tuple[Config, Elsewhere | None]:
    """How a new cluster is to be, and on which other hosts."""
    options = ctx.obj
    elsewhere = _elsewhere(ctx.meta["asked"], options)
    if elsewhere is None:
        from .layout import local_warnings

        config = _config(options)
        warnings = local_warnings(config)
    else:
        config = _config({**options, **elsewhere.layout.options})
        warnings = elsewhere.layout.warnings
    for line in [] if config.quiet else warnings:
        click.echo(f"mosaic: {line}", err=True)
    return config, elsewhere


def _elsewhere(asked: dict[str, Any], options: dict[str, Any]) -> Elsewhere | None:
    """The hosts of the cluster; None: this one, and nothing was said of any.

    Raises:
        UsageError: what was asked for cannot be.
    """
    from .engines import mpi
    from .job import Elsewhere
    from .layout import allocated, lay_out, named

    try:
        found = named(asked["hosts"], asked["hostfile"])
        if found is None and not asked["local"] and not asked["dynamic"]:
            found = allocated(os.environ)
        if found is None:
            _refuse_hosts(asked)
            return None
        layout = lay_out(
            found,
            os.environ,
            num_nodes=asked["num_nodes"],
            **{name: _given(options, name) for name in _OF_HOSTS},
            free_head=asked["free_head"],
            starter=mpi.NAME if asked["mpi"] else "",
        )
    except ValueError as error:
        raise click.UsageError(str(error), ctx=root()) from None
    return Elsewhere(layout, asked["python"] or sys.executable, asked["strict"])


def _given(options: dict[str, Any], name: str) -> Any:
    """An option, or what the environment says of it; None: neither says anything."""
    option = next(each for each in Config.options() if each.name == name)
    text = os.environ.get(option.environment)
    return option.parse(text) if options[name] is None and text else options[name]


def _refuse_hosts(asked: dict[str, Any]) -> None:
    """There is this host alone."""
    from .engines import VARIABLES

    nodes = asked["num_nodes"] or 1
    if nodes > 1 or asked["cluster"]:
        what = f"-n {nodes}" if nodes > 1 else "--cluster"
        raise ValueError(
            f"{what} needs the hosts of a job, and this is none: looked for "
            f"{', '.join(VARIABLES)}; outside of jobs name hosts by --hosts or "
            "--hostfile"
        )
    if asked["mpi"]:
        raise ValueError(
            "--mpi starts the nodes of other hosts, and there are none: be in a job, "
            "or name them by --hosts or --hostfile"
        )
    if asked["free_head"]:
        raise ValueError("--free-head leaves no host for workers: there is this one")


def root() -> click.Context:
    return click.get_current_context().find_root()  # not that of a hidden command


def _config(options: dict[str, Any]) -> Config:
    try:
        config = Config.make(**options)
        network_of(config)  # an address that is none of this machine's
        return config
    except (TypeError, ValueError, NotImplementedError) as error:
        raise click.UsageError(str(error), ctx=root()) from None
