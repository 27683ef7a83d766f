"""The command line: ``mrun [options] CMD...`` and its sub-commands.

What stands here is what a user can type and what is said to what was typed wrong. The
work is done in job.py, program.py, repl.py and status.py, which are imported when
they are needed. Only here is click known.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..config import Config
from ..errors import MosaicError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

USAGE = 2
ALLOCATIONS = ("SLURM_JOB_NODELIST", "PBS_NODEFILE", "PE_HOSTFILE", "LSB_HOSTS")
LEVELS = ("debug", "perf", "info", "error")
# Words that will be sub-commands: a program of such a name is run by `mrun -- NAME`.
LATER = (
    "config",
    "dashboard",
    "doctor",
    "logs",
    "ls",
    "report",
    "script",
    "stack",
    "timeline",
    "top",
    "wait",
)

_HELP = """Start a cluster on this machine, run a program in it, and stop it again.

\b
  mrun python hello.py             as many workers as there are usable cores
  mrun -nw 4 python hello.py       four workers
  mrun -nw 4 python -c "..."       options after the program's name are its own
  mrun repl -nw 4                  a Python prompt with a cluster
  mrun status                      which clusters of mine are running

In the program, mosaic.run(main) and mosaic.init() join this cluster instead of starting
one; the environment variable MOSAIC_CLUSTER names its key file. The exit code is the
program's own, 128 + N if signal N ended it. When the program has ended, or mrun is
killed, nothing is left.
"""

_RUN = "Cluster"
_LOG = "What is said"
_HOSTS = "More than one host (not yet: exit code 2)"
_REST = "About"


def _at_least_1(
    ctx: click.Context, parameter: click.Parameter, value: int | None
) -> int | None:
    # click.IntRange would say [x>=1] in the help.
    if value is not None and value < 1:
        raise click.BadParameter(f"found {value}, expected at least 1")
    return value


class _Option(click.Option):
    """An option that knows under which heading it stands in the help."""

    def __init__(self, *args: Any, heading: str = _RUN, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class _Mrun(click.Group):
    """A group of which every word that is no sub-command is a program."""

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
        return rest

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not ctx.meta.get("program"):
            if name in self.commands:
                return super().resolve_command(ctx, args)
            if name in LATER:
                raise _not_yet(f"mrun {name}", f"for a program: mrun -- {name}")
        return "run", _run, ["--", *args]

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        headings: dict[str, list[tuple[str, str]]]
        headings = {_RUN: [], _LOG: [], _HOSTS: [], _REST: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = getattr(parameter, "heading", _REST)
                headings[heading].append(record)
        self.format_commands(ctx, formatter)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _not_yet(what: str, hint: str = "") -> click.UsageError:
    return click.UsageError(
        f"{what} is not there yet: this version runs clusters on one machine"
        + (f"; {hint}" if hint else "")
    )


def _option(*names: str, **more: Any) -> Callable[[Any], Any]:
    return click.option(*names, cls=_Option, **more)


def _workers(function: Any) -> Any:
    """The options that mrun and its REPL share."""
    for decorate in (
        _option(
            "-nth",
            "--nthreads",
            "num_threads",
            type=int,
            callback=_at_least_1,
            metavar="N",
            help="Threads of numerical libraries in each worker "
            "[default: usable cores // workers]",
        ),
        _option(
            "-nw",
            "--nworkers",
            "num_workers",
            type=int,
            callback=_at_least_1,
            metavar="N",
            help="Worker processes [default: usable cores]",
        ),
    ):
        function = decorate(function)
    return function


def _flag(*names: str, heading: str, help: str) -> Callable[[Any], Any]:
    return _option(*names, is_flag=True, heading=heading, help=help)


@click.group(
    cls=_Mrun,
    help=_HELP,
    subcommand_metavar="CMD [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@_workers
@_flag("-l", "--local", heading=_RUN, help="On this machine [default]")
@_flag("--profile", heading=_RUN, help="Record the times of every call (not yet)")
@_flag("--debug", heading=_LOG, help="The runtime's log: everything")
@_flag("--perf", heading=_LOG, help="The runtime's log: times too")
@_flag("--info", heading=_LOG, help="The runtime's log: what matters [default]")
@_flag("--error", heading=_LOG, help="The runtime's log: errors only")
@_flag("-q", "--quiet", heading=_LOG, help="No start line")
@_option(
    "-n",
    "--nnodes",
    "num_nodes",
    type=int,
    callback=_at_least_1,
    metavar="N",
    heading=_HOSTS,
    help="Hosts; 1 is this machine",
)
@_flag("-c", "--cluster", heading=_HOSTS, help="On the hosts of the allocation")
@_flag("--dynamic", heading=_HOSTS, help="Hosts may join later")
# With one host this is so, and there is nothing to refuse.
@_flag("-rh", "--reuse-head", heading=_HOSTS, help="Workers on the head's host too")
@_flag("-fh", "--free-head", heading=_HOSTS, help="No workers on the head's host")
@_flag("--head", heading=_HOSTS, help="Be the head alone")
@_flag("--monitor", heading=_HOSTS, help="Be the monitor alone")
@_flag("--node", heading=_HOSTS, help="Be a node alone")
@_option("-i", "--indices", metavar="I[:J]", heading=_HOSTS, help="Index of that node")
@_flag("--daemon", heading=_HOSTS, help="In the background")
@_flag("--inproc", heading=_HOSTS, help="In the foreground")
@_option("--address", metavar="HOST", heading=_HOSTS, help="Where to listen")
@_option("--port", type=int, metavar="PORT", heading=_HOSTS, help="Where to listen")
@_option("--monitor-address", metavar="HOST", heading=_HOSTS, help="Monitor to join")
@_option("--monitor-port", type=int, metavar="PORT", heading=_HOSTS, help="Its port")
@_option(
    "--pubsub-port",
    type=int,
    metavar="PORT",
    heading=_HOSTS,
    help="Means nothing any more",
)
@click.version_option(
    __version__,
    message=f"mrun %(version)s (mosaic_like, Python {platform.python_version()})",
)
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    _check(options)
    ctx.obj = {
        "num_workers": options["num_workers"],
        "num_threads": options["num_threads"],
        "profile": options["profile"] or None,
        "quiet": options["quiet"] or None,
        "log_level": next((name for name in LEVELS if options[name]), None),
    }


def _check(options: dict[str, Any]) -> None:
    """Raise UsageError for what excludes each other, and for what is not there yet."""
    for names in (
        ("local", "cluster"),
        ("local", "dynamic"),
        ("head", "monitor", "node"),
        ("daemon", "inproc"),
        ("reuse_head", "free_head"),
        LEVELS,
    ):
        given = [_dashed(name) for name in names if options[name]]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} exclude each other")
    nodes = options["num_nodes"] or 1
    if nodes > 1 and options["local"]:
        raise click.UsageError(f"--local is one machine, -n {nodes} are more")
    if options["indices"] is not None and not options["node"]:
        raise click.UsageError("-i/--indices goes with --node")
    if nodes > 1 or options["cluster"]:
        asked = f"-n {nodes}" if nodes > 1 else "--cluster"
        found = [name for name in ALLOCATIONS if os.environ.get(name)]
        if not found:
            looked = ", ".join(ALLOCATIONS)
            raise click.UsageError(
                f"{asked} needs the hosts of an allocation, and this is none: looked "
                f"for {looked}"
            )
        raise _not_yet(f"{asked} (found {found[0]})")
    for name in (
        *("head", "monitor", "node", "daemon", "inproc", "dynamic", "free_head"),
        *("address", "port", "monitor_address", "monitor_port"),
    ):
        if options[name] not in (None, False):
            raise _not_yet(_dashed(name))


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


def _config(options: dict[str, Any]) -> Config:
    try:
        return Config.make(**options)
    except (TypeError, ValueError, NotImplementedError) as error:
        root = click.get_current_context().find_root()  # not that of a hidden command
        raise click.UsageError(str(error), ctx=root) from None


# Not among the sub-commands: it is what all other words are.
@click.command(add_help_option=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def _run(options: dict[str, Any], command: tuple[str, ...]) -> int:
    from .job import run_program

    return run_program(command, _config(options))


@cli.command(short_help="A Python prompt with a cluster.")
@_workers
@click.pass_obj
def repl(options: dict[str, Any], /, **own: Any) -> int:
    """A Python prompt with a cluster: await works at it.

    Ready are mosaic, runtime, tessera, task and gather. Ctrl-C cancels what is awaited;
    exit() or Ctrl-D stops the cluster.
    """
    from .repl import run_repl

    given = {name: value for name, value in own.items() if value is not None}
    options = {**options, **given}
    _config(options)  # what is wrong is said as usage
    return run_repl({k: v for k, v in options.items() if v is not None})


@cli.command(short_help="The clusters of mine that run.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("key_file", required=False, type=click.Path())
def status(as_json: bool, key_file: str | None) -> int:
    """The clusters of mine that run, with their workers; or the one of KEY_FILE."""
    from .status import show

    return show(key_file, as_json=as_json)


@cli.command(short_help="The large values of my clusters.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("key_file", required=False, type=click.Path())
def memory(as_json: bool, key_file: str | None) -> int:
    """The large values of my clusters, where they are and who holds them."""
    from .status import show_memory

    return show_memory(key_file, as_json=as_json)


@cli.command(short_help="Stop a cluster of mine.")
@click.argument("cluster", required=False, metavar="[ID]")
def stop(cluster: str | None) -> int:
    """Stop the cluster of this ID (see mrun status); it may be left out if one runs.

    What runs is given two seconds, __close__ of all tesserae is called.
    """
    from .status import stop_cluster

    return stop_cluster(cluster)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="mrun",
            standalone_mode=False,
        )
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 128 + signal.SIGINT
    except (MosaicError, OSError) as error:
        print(f"mrun: {error}", file=sys.stderr)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
