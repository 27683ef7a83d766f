"""What mrun is to be, and which options go with it.

A head, with the program, is what it is if nothing else is said; ``--monitor`` is a
cluster without a program, ``--node`` a node that joins one. Here is decided what
excludes each other, before anything is started; who does the work is not known.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from ..environment import CLUSTER, MONITOR_HOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STANDARD_INPUT: Final = "-"  # instead of the path of a key file
LEVELS: Final = ("debug", "perf", "info", "error")
_SIZE: Final = ("num_workers", "num_threads")
# What says how a new cluster is to be; who joins one finds it as it is.
_HOSTS: Final = (
    *("hosts", "hostfile", "num_nodes", "cluster", "strict", "python"),
    "mpi",
)
_SHAPE: Final = (
    *(*_HOSTS, "local", "dynamic", "reuse_head", "free_head"),
    *("port", "insecure", "record", "profile", "logs", "logs_limit"),
    *("no_encryption", "pin"),
)
_JOINING: Final = ("key", "monitor_address", "monitor_port")

# Of each of these at most one may be given.
_EXCLUSIVE: Final = (
    ("local", "cluster"),
    ("local", "hosts", "hostfile"),
    ("cluster", "hosts", "hostfile"),
    ("local", "free_head"),
    ("local", "dynamic"),
    ("local", "mpi"),
    ("head", "monitor", "node"),
    ("daemon", "inproc"),
    ("reuse_head", "free_head"),
    ("record", "profile"),
    ("insecure", "no_encryption"),
    LEVELS,
)


class Role(enum.Enum):
    """What mrun does."""

    PROGRAM = "a cluster, and a program in it"
    HEAD = "a program in a cluster that runs"
    MONITOR = "a cluster alone"
    NODE = "a node of a cluster that runs"


def role_of(options: Mapping[str, Any], environ: Mapping[str, str]) -> Role:
    """What is asked for.

    Args:
        options: of the command line, by name; what was not given is None or False.
        environ: of this process.

    Raises:
        ValueError: some of them exclude each other; the text says which, and why.
    """
    for names in _EXCLUSIVE:
        both = _given(options, names)
        if len(both) > 1:
            raise ValueError(f"{' and '.join(both)} exclude each other")
    role = _asked(options, environ)
    if role is Role.NODE:
        _refuse(options, _SHAPE, "is for a new cluster; --node joins one that runs")
    elif options["indices"] is not None:
        raise ValueError("-i/--indices goes with --node: it is the index of that")
    if role is Role.HEAD:
        other = (*_SHAPE, *_SIZE, "address")
        _refuse(options, other, f"is for a new cluster; {_joined(options)}")
        if options["key"] == STANDARD_INPUT:
            raise ValueError(
                "--key - is for --node: with --head name a file, which the program "
                "reads when it joins"
            )
    if role in (Role.MONITOR, Role.PROGRAM):
        why = "names a cluster that runs; it goes with --head or --node"
        _refuse(options, _JOINING, why)
        _check_new(options)
    if options["daemon"] and role not in (Role.MONITOR, Role.NODE):
        raise ValueError(
            "--daemon goes with --monitor or --node: a program ends by itself; for it "
            "write nohup mrun ... &"
        )
    return role


def index_of(text: str | None) -> int | None:
    """The index of a node that ``-i`` gives.

    Raises:
        ValueError: it is none.

    >>> index_of("3")
    3
    """
    if text is None:
        return None
    if ":" in text:
        raise ValueError(
            f"-i {text}: a node has one index, such as -i 3; its workers count from 0"
        )
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(f"-i {text}: expected an index such as 3")
    return int(text)


def _asked(options: Mapping[str, Any], environ: Mapping[str, str]) -> Role:
    if options["node"]:
        return Role.NODE
    if options["monitor"]:
        return Role.MONITOR
    named = any(options[name] is not None for name in _JOINING)
    if options["head"] and (named or environ.get(CLUSTER)):
        return Role.HEAD
    if options["head"] and environ.get(MONITOR_HOST):
        raise ValueError(
            f"{MONITOR_HOST} says where the monitor is, but not its key: name the "
            f"cluster's key file by --key or {CLUSTER}"
        )
    return Role.PROGRAM


def _check_new(options: Mapping[str, Any]) -> None:
    """Of a new cluster."""
    nodes = options["num_nodes"] or 1
    if nodes > 1 and options["local"]:
        raise ValueError(f"--local is one machine, -n {nodes} are more")
    if options["insecure"] and (options["hosts"] or options["hostfile"]):
        raise ValueError(
            "--insecure is for this machine alone, --hosts and --hostfile name others"
        )
    if not options["dynamic"]:
        return
    why = "names hosts at the start; with --dynamic they come by themselves"
    _refuse(options, (*_HOSTS, "free_head"), why)
    if not options["reuse_head"]:
        why = (
            "is for a node here, and --dynamic starts none: say it to those that join "
            "(mrun --node), or add --reuse-head"
        )
        _refuse(options, _SIZE, why)


def _joined(options: Mapping[str, Any]) -> str:
    if any(options[name] is not None for name in _JOINING):
        return "--head joins the one that is named"
    return f"--head joins the one that {CLUSTER} names"


def _refuse(options: Mapping[str, Any], names: Iterable[str], why: str) -> None:
    for text in _given(options, names):
        raise ValueError(f"{text} {why}")


def _given(options: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [dashed(name) for name in names if options[name] not in (None, False)]


_SPELLED: Final = {
    "num_nodes": "-n",
    "num_workers": "-nw",
    "num_threads": "-nth",
}


def dashed(name: str) -> str:
    """As it is typed.

    >>> dashed("reuse_head"), dashed("num_nodes")
    ('--reuse-head', '-n')
    """
    return _SPELLED.get(name) or "--" + name.replace("_", "-")
