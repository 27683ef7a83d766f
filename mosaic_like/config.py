"""Every option: its default, unit, range and environment name, in one frozen dataclass.

An option given in the call counts more than ``MOSAIC_<OPTION>`` in the environment, and
that more than the default. Everything is checked here and at once, so no other file
reads the environment or judges a value; children get the result as bytes. How one
option is read and checked is in ``option``; what it *does* must not be here.
"""

from __future__ import annotations

import dataclasses
import math
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from .cgroups import CGROUP, PROC, cpu_quota_cores
from .environment import OF_JOBS
from .option import BYTES, Option, field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Options of the original that mean nothing here: programs that are ported may go on
# giving them, and nothing happens.
PORTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "asyncio_loop": "the running loop is used",
        "dump_init": "the key file is always written",
        "pubsub_port": "news comes over the monitor's own port",
    }
)

DYNAMIC: Final = "dynamic"  # the mode of a cluster whose nodes come by themselves
_CONNECT: Final = "a cluster that runs is joined by mosaic.connect(key file)"


def usable_cores(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: its affinity, cut by the cgroup's CPU quota.

    Args:
        proc: where the process file system is mounted.
        cgroup: where the cgroup file systems are mounted, if ``proc`` does not say it.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS
        cores = os.cpu_count() or 1
    quota = cpu_quota_cores(proc, cgroup)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def workers_for(threads: int) -> int:
    """How many workers a node has if nobody says it.

    Args:
        threads: of each; 0: nobody has said it.
    """
    return max(1, usable_cores() // max(1, threads))


def _in_job() -> bool:
    return any(os.environ.get(name) for name in OF_JOBS)


def _writable(directory: str, name: str) -> str:
    """The absolute path of a directory, if files can be made there."""
    path = os.path.abspath(directory)
    if not os.path.isdir(path) or not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(
            f"{name}: found {directory!r}, expected a directory in which files can be "
            "made: make it, or choose another"
        )
    return path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All options, checked. ``Config.make`` is the way to one.

    >>> Config.make(num_workers=2, num_threads=3).num_threads
    3
    """

    # the cluster
    num_workers: int = field(
        usable_cores,
        int,
        "workers on each node; default: usable cores // num_threads",
        minimum=1,
    )
    num_threads: int = field(
        0,
        int,
        "threads of numerical libraries in each worker; "
        "0: usable cores // num_workers, at least 1",
        minimum=0,
    )
    num_helpers: int | None = field(
        None,
        int,
        "workers more that a node may start for function tasks while all of its own "
        "stand still in calls that wait; None: as many as num_workers",
        minimum=0,
        optional=True,
    )
    mode: str = field(
        "local",
        str,
        "where nodes come from; dynamic: they join, and may leave, at any time",
        choices=("local", "interactive", "cluster", "dynamic"),
        instead="leave it out: mrun finds the hosts of a job, and at a prompt there is "
        "await mosaic.interactive('on')",
        there=("dynamic",),
    )
    node_list: tuple[str, ...] = field(
        (),
        tuple,
        "hosts to start nodes on",
        instead="hosts are named to mrun, which starts nodes there and the program "
        "here: mrun --hosts a,b:4 python program.py; in a job it finds them by itself",
    )
    reuse_head: bool = field(
        False,
        bool,
        "with mode='dynamic': the head's host gets workers too; else it does anyway",
    )
    monitor_strategy: str = field(
        "round-robin",
        str,
        "how workers are chosen for tesserae",
        choices=("round-robin", "least-loaded"),
    )

    # addresses
    address: str | None = field(
        None,
        str,
        "host name or address of this machine at which other hosts reach it; None: the "
        "cluster is on this machine alone",
    )
    port: int | None = field(
        None,
        int,
        "the monitor's tcp port there; None or 0: a free one",
        minimum=0,
        maximum=65535,
    )
    monitor_address: str | None = field(
        None, str, "the monitor's host to join", instead=_CONNECT
    )
    monitor_port: int | None = field(
        None,
        int,
        "the monitor's tcp port",
        minimum=0,
        maximum=65535,
        instead=_CONNECT,
    )
    insecure: bool = field(
        False, bool, "tcp without keys and encryption, on loopback alone"
    )

    encryption: bool = field(
        True,
        bool,
        "what goes between hosts is encrypted; False, for networks that you trust: "
        "each connection still has to show the cluster's secret, but in clear",
    )

    control_limit: int = field(
        1 << 20,
        int,
        "of each message without a value, such as one that takes slots or claims a "
        "name; a larger one is dropped by who receives it",
        unit=BYTES,
        minimum=512 << 10,
    )

    # time
    timeout: float | None = field(
        30.0,
        float,
        "limit of starting or joining; None: no limit",
        unit="seconds",
        minimum=0,
        optional=True,
    )
    worker_timeout: float | None = field(
        None,
        float,
        "a worker that is not heard for so long is killed: it is frozen, or what it "
        "runs holds its loop or, as an import may, its interpreter; None: never",
        unit="seconds",
        minimum=3,
    )
    stop_timeout_s: float = field(
        2.0,
        float,
        "time that running calls are given when all stops",
        unit="seconds",
        minimum=0,
    )
    node_timeout_s: float = field(
        15.0,
        float,
        "a node that is not heard for so long is lost; it warns after a third of it",
        unit="seconds",
        minimum=3,
    )
    drain_timeout_s: float = field(
        10.0,
        float,
        "time that running calls are given when a worker or node gets SIGTERM",
        unit="seconds",
        minimum=0,
    )
    wait: bool = field(
        False,
        bool,
        "stay until the cluster is stopped from outside",
        instead="a cluster that stays until it is stopped is mrun --monitor, which "
        "others join by mosaic.connect(key file); a program's own ends with it",
    )

    # memory
    segments: bool = field(
        True,
        bool,
        "large values go through memory that processes of one host share; False: in "
        "messages, several times slower",
    )
    memory: int | None = field(
        None,
        int,
        "memory that large values may take on each node, in bytes or as '2 GiB'; "
        "None: 60 % of what its control group or the machine allow",
        unit=BYTES,
        minimum=1 << 20,
        optional=True,
    )
    spill_directory: str | None = field(
        None,
        str,
        "where values go for which there is no memory; None: the job's own disk if "
        "SLURM_TMPDIR, PBS_JOBFS or LOCAL_SCRATCH names it, else the run directory, or "
        "/var/tmp if that is in memory",
        optional=True,
    )
    checkpoint_directory: str | None = field(
        None,
        str,
        "where the checkpoints of tesserae go while the cluster runs, for several "
        "hosts one that all of them see; the last one of what is not built again stays "
        "there; None: the run directory of each host",
        optional=True,
    )
    spill_limit: int | None = field(
        None,
        int,
        "disk space that they may take on each node, in bytes or as '2 GiB'; 0: none; "
        "None: half of what is free there",
        unit=BYTES,
        minimum=0,
        optional=True,
    )

    # what people see
    log_level: str = field(
        "info",
        str,
        "the runtime's own log",
        choices=("debug", "perf", "info", "warning", "error"),
    )
    quiet: bool = field(False, bool, "no start line")
    logs: str | None = field(
        None,
        str,
        "a directory that gets all that workers print and log, a file for each",
        optional=True,
    )
    logs_limit: int = field(
        256 << 20,
        int,
        "of each of these files, in bytes or as '2 GiB'; what was before it is kept in "
        "one more of that size",
        unit=BYTES,
        minimum=1 << 12,
    )
    record: str | None = field(
        None,
        str,
        "a file that gets one line of JSON for each task of the program that has ended",
        optional=True,
    )
    profile: bool = field(
        False,
        bool,
        "record the times of every call",
        instead="record='times.jsonl', or mrun --profile, writes down the times of "
        "each task, and task.history has those of one",
    )
    dashboard: bool = field(
        False,
        bool,
        "serve the page",
        instead="no page is served; mrun status shows who is there, mrun memory what "
        "values there are, and mosaic.Graph draws tasks",
    )
    full_traceback: bool = field(
        False,
        bool,
        "show our own frames in tracebacks: sets MOSAIC_FULL_TRACEBACK in this process",
    )

    # workers
    pin: bool = field(
        False,
        bool,
        "each worker runs on cores of its own; its loop's thread then shares them with "
        "its methods",
    )
    split_gpus: bool = field(
        True,
        bool,
        "the GPUs that CUDA_VISIBLE_DEVICES and its like name are split over a node's "
        "workers; False: each sees all of them",
    )
    in_job: bool = field(
        _in_job,
        bool,
        "an engine may send SIGTERM, SIGUSR1 or SIGUSR2 to all processes at once: what "
        "serves the program leaves it to that; default: whether this is in a job",
    )
    worker_gc_threshold: int = field(
        50_000, int, "first threshold of gc in workers", unit="objects", minimum=0
    )

    def __post_init__(self) -> None:
        for option in self.options():
            kept = option.check(getattr(self, option.name))
            object.__setattr__(self, option.name, kept)
        listens = self.address is not None or self.mode == DYNAMIC
        for name, given in (
            ("port", bool(self.port)),
            ("insecure", self.insecure),
            ("encryption", not self.encryption),
        ):
            if given and not listens:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} goes with address=: without it "
                    "the cluster is on this machine alone, and listens to no network"
                )
        if self.num_threads == 0:
            share = max(1, usable_cores() // self.num_workers)
            object.__setattr__(self, "num_threads", share)

    @classmethod
    def make(cls, **options: Any) -> Self:
        """The options given, else those of the environment, else the defaults.

        None counts as not given, except for options that may be None.

        Raises:
            TypeError: an option is unknown or not of its kind.
            ValueError: an option has a value that is not allowed.
            NotImplementedError: an option asks for what is still to come.
        """
        known = {option.name: option for option in cls.options()}
        for name in options:
            if name not in known and name not in PORTED:
                import difflib  # only for what ends here

                close = difflib.get_close_matches(name, [*known, *PORTED], n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise TypeError(f"unknown option {name!r}{hint}")
        values: dict[str, Any] = {}
        for name, option in known.items():
            if name in options and (options[name] is not None or option.optional):
                values[name] = option.check(options[name])
            elif text := os.environ.get(option.environment):
                values[name] = option.parse(text)
        for name in ("spill_directory", "checkpoint_directory", "logs"):
            if values.get(name) is not None:
                values[name] = _writable(values[name], name)
        if "num_workers" not in values:
            values["num_workers"] = workers_for(values.get("num_threads", 0))
        return cls(**values)

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """Every option, in the order in which they are declared."""
        fields = dataclasses.fields(cls)
        return tuple(Option(field.name, **field.metadata) for field in fields)

    def to_bytes(self) -> bytes:
        """For a child, which so has the resolved values and not its own defaults."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        return msgspec.msgpack.decode(data, type=cls)
