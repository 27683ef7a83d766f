"""The sub-commands of ``mrun``, and the program that any other word is.

What can be typed after each stands here, and what is said to what was typed wrong. The
work is done in job, joining, repl, status, scripts and doctor, which are imported when
they are needed. What stands before a sub-command is mrun's own: see ``mrun``.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import click

from ..config import DYNAMIC
from ..environment import CLUSTER
from .asked import checked, cluster_of
from .options import at_least_1, workers
from .roles import Role

_OF_NODES = ("num_workers", "num_threads", "log_level", "in_job")


# Not among the sub-commands: it is what all other words are.
@click.command(add_help_option=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def program(ctx: click.Context, command: tuple[str, ...]) -> int:
    from .job import run_joined, run_program

    if ctx.meta["role"] is Role.HEAD:
        return run_joined(command, ctx.meta["asked"]["key"])
    return run_program(command, *cluster_of(ctx))


@click.command(short_help="A Python prompt with a cluster.")
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


@click.command(short_help="The clusters of mine that run.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("key_file", required=False, type=click.Path())
def status(as_json: bool, key_file: str | None) -> int:
    """The clusters of mine that run, with their workers; or the one of KEY_FILE."""
    from .status import show

    return show(key_file, as_json=as_json)


@click.command(short_help="The large values of my clusters.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("key_file", required=False, type=click.Path())
def memory(as_json: bool, key_file: str | None) -> int:
    """The large values of my clusters, where they are and who holds them."""
    from .status import show_memory

    return show_memory(key_file, as_json=as_json)


@click.command(short_help="A node that joins a cluster that runs.")
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
    return be_node(options, key, address, None)


@click.command(short_help="A job script for Slurm, Grid Engine, PBS or LSF.")
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


@click.command(short_help="Whether hosts are fit for a cluster.")
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


@click.command(short_help="Stop a cluster of mine.")
@click.argument("cluster", required=False, metavar="[ID]")
def stop(cluster: str | None) -> int:
    """Stop the cluster of this ID (see mrun status); it may be left out if one runs.

    What runs is given two seconds, __close__ of all tesserae is called.
    """
    from .status import stop_cluster

    return stop_cluster(cluster)


def be_node(
    options: dict[str, Any], key: str | None, address: str | None, index: int | None
) -> int:
    """A node of a cluster that runs, until it leaves; the exit code."""
    from .joining import run_node

    own = {name: options[name] for name in _OF_NODES if options.get(name) is not None}
    return int(checked(run_node, key, own, address, index))


def _programs() -> str:
    """Where mrun and python are, for PATH: pip may have put them apart."""
    folders = [os.path.dirname(sys.executable)]
    if shutil.which("mrun", path=folders[0]) is None:
        folders += [os.path.dirname(each) for each in [shutil.which("mrun")] if each]
    return os.pathsep.join(folders)


COMMANDS = (repl, status, memory, node, script, doctor, stop)
