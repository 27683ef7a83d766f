"""The command line: ``mrun [options] CMD...``, and its end.

What stands here is what a user can type before a command, and which role that gives
mrun. Its sub-commands stand in ``commands``, which options go together in ``roles`` and
``asked``. Click is known in these, and in ``options``, alone.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..config import DYNAMIC
from ..environment import MONITOR_HOST, MONITOR_PORT
from ..errors import MosaicError
from .asked import ELSEWHERE, JOINING, checked, cluster_of
from .commands import COMMANDS, be_node, program
from .options import (
    HOSTS,
    LOG,
    REST,
    ROLES,
    RUN,
    Mrun,
    all_of_them,
    at_least_1,
    directory,
    flag,
    option,
    workers,
    writable,
)
from .roles import LEVELS, Role, index_of, role_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_HELP = """Start a cluster, run a program in it, and stop it again.

\b
  mrun python hello.py             as many workers as there are usable cores
  mrun -nw 4 python hello.py       four workers
  mrun -nw 4 python -c "..."       options after the program's name are its own
  mrun repl -nw 4                  a Python prompt with a cluster
  mrun status                      which clusters of mine are running
  mrun --hosts a,b:4 python x.py   on two hosts, by ssh; four workers on b

The cluster is on this machine, or in a job of Slurm, Grid Engine, PBS or LSF on all
hosts that it was given.

In the program, mosaic.run(main) and mosaic.init() join this cluster instead of starting
one; the environment variable MOSAIC_CLUSTER names its key file. The exit code is the
program's own, 128 + N if signal N ended it (130 after Ctrl-C, 143 after SIGTERM), 126
or 127 if it cannot be run, 2 for wrong usage, 1 if there was no cluster. When the
program has ended, or mrun is killed, nothing is left.
"""


@click.group(
    cls=Mrun,
    help=_HELP,
    subcommand_metavar="CMD [ARGS]...",
    invoke_without_command=True,  # --monitor and --node have none
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@workers
@flag("--pin", heading=RUN, help="Each worker on cores of its own")
@flag("-l", "--local", heading=RUN, help="On this machine, also inside a job")
@option(
    "--record",
    metavar="FILE",
    callback=writable,
    heading=RUN,
    help="Add a line of JSON to FILE for each task that has ended",
)
@flag(
    "--profile",
    heading=RUN,
    help="As --record, to a new file DATE.profile.jsonl in this directory",
)
@option(
    "--logs",
    metavar="DIR",
    callback=directory,
    heading=LOG,
    help="Add all that workers print and log to DIR, a file for each",
)
@option(
    "--logs-limit",
    metavar="SIZE",
    heading=LOG,
    help="Of each of these files; what was before it is kept in one more of that size "
    "[default: 256 MiB]",
)
@flag("--debug", heading=LOG, help="The runtime's log: everything")
@flag("--perf", heading=LOG, help="The runtime's log: times too")
@flag("--info", heading=LOG, help="The runtime's log: what matters [default]")
@flag("--error", heading=LOG, help="The runtime's log: errors only")
@flag("-q", "--quiet", heading=LOG, help="No start line")
@option(
    "--hosts",
    metavar="A,B:N",
    multiple=True,
    callback=all_of_them,
    heading=HOSTS,
    help="Hosts to reach by ssh; N workers there",
)
@option(
    "--hostfile",
    type=click.Path(),
    metavar="FILE",
    heading=HOSTS,
    help="A file with one on each line: B slots=N",
)
@option(
    "-n",
    "--nnodes",
    "num_nodes",
    type=int,
    callback=at_least_1,
    metavar="N",
    heading=HOSTS,
    help="So many of the hosts [default: all]",
)
@flag("-c", "--cluster", heading=HOSTS, help="On the hosts of the job, or not at all")
@flag("--strict", heading=HOSTS, help="Do not start with fewer hosts")
@option(
    "--python",
    metavar="PATH",
    heading=HOSTS,
    help="The interpreter there [default: the path of this one]",
)
@flag(
    "--mpi",
    heading=HOSTS,
    help="Start the nodes by mpiexec, or what $MPIEXEC says",
)
@flag(
    "-rh",
    "--reuse-head",
    heading=HOSTS,
    help="Workers on this host too, if it is one of them [default]",
)
@flag("-fh", "--free-head", heading=HOSTS, help="No workers on this host")
@flag(
    "--dynamic",
    heading=HOSTS,
    help="Nodes join, by mrun --node, and leave at any time",
)
@flag("--head", heading=ROLES, help="A program, in the cluster that is named if any")
@flag("--monitor", heading=ROLES, help="A cluster without a program: others join it")
@flag("--node", heading=ROLES, help="A node, with workers, of a cluster that runs")
@option(
    "--key",
    metavar="FILE",
    heading=ROLES,
    help="The key file of that cluster [default: $MOSAIC_CLUSTER]; --node takes - too",
)
@option(
    "--monitor-address",
    metavar="HOST",
    heading=ROLES,
    help="Where its monitor is, if not as the key says [default: $MOSAIC_MONITOR_HOST]",
)
@option(
    "--monitor-port",
    type=int,
    metavar="PORT",
    heading=ROLES,
    help="The port there [default: $MOSAIC_MONITOR_PORT]",
)
@option(
    "-i",
    "--indices",
    metavar="I",
    heading=ROLES,
    help="Index of the node [default: the next]",
)
@flag(
    "--daemon",
    heading=ROLES,
    help="With --monitor or --node: in the background when it is ready",
)
@flag("--inproc", heading=ROLES, help="In the foreground [default]")
@option(
    "--address",
    metavar="HOST",
    heading=RUN,
    help="Of this machine: other hosts may join there, by mrun node; with several "
    "hosts also an interface, such as ib0",
)
@option("--port", type=int, metavar="PORT", heading=RUN, help="The monitor's, there")
@flag(
    "--no-encryption",
    heading=HOSTS,
    help="On a network that you trust: connections show the key, in clear",
)
@flag("--insecure", heading=RUN, help="There without keys: on 127.0.0.1 alone")
@option(
    "--pubsub-port",
    type=int,
    metavar="PORT",
    heading=REST,
    help="Means nothing: news comes over the monitor's own port",
)
@click.version_option(
    __version__,
    message=f"mrun %(version)s (mosaic_like, Python {platform.python_version()})",
)
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> int | None:
    ctx.meta["role"] = role = checked(role_of, options, os.environ)
    ctx.meta["asked"] = {name: options[name] for name in (*ELSEWHERE, *JOINING)}
    ctx.obj = {
        "num_workers": options["num_workers"],
        "num_threads": options["num_threads"],
        "mode": DYNAMIC if options["dynamic"] else None,
        "reuse_head": options["reuse_head"] or None,
        "record": _profile() if options["profile"] else options["record"],
        "quiet": options["quiet"] or None,
        "pin": options["pin"] or None,
        "logs": options["logs"],
        "logs_limit": options["logs_limit"],
        "address": options["address"],
        "port": options["port"],
        "insecure": options["insecure"] or None,
        "encryption": False if options["no_encryption"] else None,
        "log_level": next((name for name in LEVELS if options[name]), None),
    }
    for name, text in (
        (MONITOR_HOST, options["monitor_address"]),
        (MONITOR_PORT, options["monitor_port"]),
    ):
        if text is not None:
            os.environ[name] = str(text)  # for who joins, here or in the program
    is_alone = role in (Role.MONITOR, Role.NODE)
    if (ctx.invoked_subcommand is None) != is_alone:
        why = f"--{role.name.lower()} runs no program: leave CMD out"
        raise click.UsageError(why if is_alone else "Missing command.")
    if not is_alone:
        return None
    if options["daemon"]:
        from .background import run_in_background

        return run_in_background(ctx.meta["words"])
    if role is Role.NODE:
        index = checked(index_of, options["indices"])
        return be_node(ctx.obj, options["key"], options["address"], index)
    from .job import run_alone

    return run_alone(*cluster_of(ctx))


def _profile() -> str:
    """The path of a new file for the times of this run."""
    return os.path.abspath(f"{time.strftime('%Y-%m-%d-%H%M%S')}.profile.jsonl")


cli.program = program
for command in COMMANDS:
    cli.add_command(command)


def script_main() -> None:
    """The console script mscript: mrun script."""
    main(["script", *sys.argv[1:]])


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
