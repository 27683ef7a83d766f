"""The command line: ``mrun [options] CMD...`` and its sub-commands.

What stands here is what a user can type and what is said to what was typed wrong. The
work is done in job.py, program.py, repl.py and status.py, which are imported when
they are needed. Click is known here, in ``options`` and in ``asked`` alone.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..config import DYNAMIC
from ..environment import CLUSTER, MONITOR_HOST, MONITOR_PORT
from ..errors import MosaicError
from .asked import ELSEWHERE, JOINING, checked, cluster_of
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

_OF_NODES = ("num_workers", "num_threads", "log_level", "in_job")

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
        return _node(ctx.obj, options["key"], options["address"], index)
    from .job import run_alone

    return run_alone(*cluster_of(ctx))


def _profile() -> str:
    """The path of a new file for the times of this run."""
    return os.path.abspath(f"{time.strftime('%Y-%m-%d-%H%M%S')}.profile.jsonl")


def _node(
    options: dict[str, Any], key: str | None, address: str | None, index: int | None
) -> int:
    from .joining import run_node

    own = {name: options[name] for name in _OF_NODES if options.get(name) is not None}
    return int(checked(run_node, key, own, address, index))


# Not among the sub-commands: it is what all other words are.
@click.command(add_help_option=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def _run(ctx: click.Context, command: tuple[str, ...]) -> int:
    from .job import run_joined, run_program

    if ctx.meta["role"] is Role.HEAD:
        return run_joined(command, ctx.meta["asked"]["key"])
    return run_program(command, *cluster_of(ctx))


cli.program = _run


@cli.command(short_help="A Python prompt with a cluster.")
@workers
@click.pass_obj
def repl(options: dict[str, Any], /, **own: Any) -> int:
    """A Python prompt with a cluster: await works at it.

    Ready are mosaic, runtime, tessera, task and gather. Ctrl-C cancels what is awaited;
    exit() or Ctrl-D stops the cluster.
    """
    ctx = click.get_current_context()
    given = {name: value for name, value in own.items() if value is not None}
    options.update(given)  # they count for the cluster, wherever they stand
    is_joined = bool(os.environ.get(CLUSTER))
    if ctx.meta["role"] is Role.HEAD or not is_joined:
        prompt = [sys.executable, "-m", __name__.partition(".")[0], "repl"]
        if ctx.meta["role"] is Role.HEAD:
            from .job import run_joined

            return run_joined(prompt, ctx.meta["asked"]["key"])
        config, elsewhere = cluster_of(ctx)
        if elsewhere is not None or config.mode == DYNAMIC:
            from .job import run_program

            # The prompt is a program that joins what mrun has started.
            return run_program(prompt, config, elsewhere)
    from .repl import run_repl

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


@cli.command(short_help="A node that joins a cluster that runs.")
@click.option(
    "--key",
    metavar="FILE",
    help="The cluster's key file; - reads it from standard input [default: "
    "$MOSAIC_CLUSTER]",
)
@click.option(
    "--address",
    metavar="HOST",
    help="Of this machine, for the other hosts [default: the one towards the monitor]",
)
# What mrun says to those that it starts in its job: signals are the program's.
@click.option("--in-job", is_flag=True, hidden=True)
@workers
@click.pass_obj
def node(
    options: dict[str, Any], /, key: str | None, address: str | None, **own: Any
) -> int:
    """Be a node, with workers, of a cluster that runs on this or another host.

    It stays until the cluster stops. SIGINT or SIGTERM: it leaves in order, a second
    one ends it at once. A cluster that other hosts are to join is started with
    --address; the key says all else and lets in whoever has it, so it is never an
    argument: it comes by a file that is yours alone, or by standard input.
    """
    options.update({name: own[name] for name in own if own[name] is not None})
    return _node(options, key, address, None)


@cli.command(short_help="A job script for Slurm, Grid Engine, PBS or LSF.")
@click.argument("engine", type=click.Choice(["slurm", "sge", "pbs", "lsf"]))
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-n",
    "--nnodes",
    type=int,
    callback=at_least_1,
    default=1,
    metavar="N",
    help="Hosts [default: 1]",
)
@click.option("-m", "--memory", metavar="SIZE", help="On each host, such as '8 GiB'")
@click.option("-t", "--time", metavar="H:MM:SS", default="", help="Limit of the job")
@click.option(
    "--pe",
    metavar="NAME",
    default="mpi",
    help="Grid Engine's parallel environment [default: mpi]",
)
@workers
@click.pass_obj
def script(
    options: dict[str, Any],
    /,
    engine: str,
    name: str,
    command: tuple[str, ...],
    nnodes: int,
    memory: str | None,
    time: str,
    pe: str,
    **own: Any,
) -> int:
    """Write a job script, which can be read and changed, to standard output.

    It runs COMMAND, or else python NAME.py, with one worker of one thread on each host
    if no other numbers are given.

    \b
      mrun script slurm fwi -n 4 -nw 8 -nth 4 >job.sh
      sbatch job.sh
    """
    from ..sizes import parse_size
    from .scripts import ENGINES, Job

    try:
        job = Job(
            name,
            command or ("python", f"{name}.py"),
            nodes=nnodes,
            workers=own["num_workers"] or options["num_workers"] or 1,
            threads=own["num_threads"] or options["num_threads"] or 1,
            memory=None if memory is None else parse_size(memory),
            time=time,
            environment=pe,
            path=_programs(),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(ENGINES[engine](job), nl=False)
    return 0


@cli.command(short_help="Whether hosts are fit for a cluster.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
# Where the host that asks this one listens, to see that it can be reached.
@click.option("--back", metavar="TCP", hidden=True)
@click.argument("hosts", nargs=-1)
@click.pass_context
def doctor(
    ctx: click.Context, as_json: bool, back: str | None, hosts: tuple[str, ...]
) -> int:
    """Look at what a cluster needs of this host, and of HOSTS, which are asked by ssh.

    What is not well is marked and says what to do; the exit code is then 1.
    """
    from .doctor import examine

    asked = ctx.meta["asked"]
    try:
        python = asked["python"] or sys.executable
        return examine(hosts, python, as_json=as_json, back=back)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@cli.command(short_help="Stop a cluster of mine.")
@click.argument("cluster", required=False, metavar="[ID]")
def stop(cluster: str | None) -> int:
    """Stop the cluster of this ID (see mrun status); it may be left out if one runs.

    What runs is given two seconds, __close__ of all tesserae is called.
    """
    from .status import stop_cluster

    return stop_cluster(cluster)


def _programs() -> str:
    """Where mrun and python are, for PATH: pip may have put them apart."""
    folders = [os.path.dirname(sys.executable)]
    if shutil.which("mrun", path=folders[0]) is None:
        folders += [os.path.dirname(each) for each in [shutil.which("mrun")] if each]
    return os.pathsep.join(folders)


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
