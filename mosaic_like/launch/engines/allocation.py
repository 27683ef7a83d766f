"""What an engine says, in words that are the same for all of them."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# What a remote shell has to be told, so that the package is found as it is here.
_PASSED_ON = ("PYTHONPATH",)


@dataclasses.dataclass(frozen=True)
class Host:
    """A host that may be used.

    Args:
        name: as the engine knows it.
        cores: that are ours there; None: the host knows.
        workers: that were asked for where the host was named; None: none were.
        threads: of each worker, that the job was asked for.
        tasks: processes that the job was asked for there.
    """

    name: str
    cores: int | None = None
    workers: int | None = None
    threads: int | None = None
    tasks: int | None = None

    def planned(self, workers: int | None, threads: int | None) -> Host:
        """The same with what it is to have, where that is known.

        Args:
            workers: of the command line, for all hosts.
            threads: the same.

        >>> Host("a", cores=8).planned(None, 4).workers
        2
        """
        threads = threads or self.threads
        count = self.workers or workers or self.tasks
        if self.cores is not None:
            count = count or max(1, self.cores // (threads or 1))
            threads = threads or max(1, self.cores // count)
        return dataclasses.replace(self, workers=count, threads=threads)


@dataclasses.dataclass(frozen=True)
class Allocation:
    """Hosts, and where they come from.

    Args:
        engine: its name; of ``engines.STARTERS``.
        hosts: each once, that of the first process first.
        job: its number there, for people.
        starter: of nodes, instead of the engine's own; of ``engines.STARTERS``.
    """

    engine: str
    hosts: tuple[Host, ...]
    job: str = ""
    starter: str = ""

    @property
    def title(self) -> str:
        """For people: ``slurm 118233``."""
        engine = self.engine if self.job else self.starter or self.engine
        return f"{engine} {self.job}".rstrip()


@dataclasses.dataclass(frozen=True)
class Step:
    """A command, and the hosts on each of which it starts one process.

    Args:
        command: its arguments.
        hosts: their names.
        is_labelled: what they say has to be taken apart by ``slurm.Output``.
    """

    command: tuple[str, ...]
    hosts: tuple[str, ...]
    is_labelled: bool = False


def collected(
    engine: str, slots: Iterable[tuple[str, int]], job: str = ""
) -> Allocation:
    """Of hosts that may be named several times, each time with some of their cores.

    >>> found = collected("pbs", [("a", 1), ("b", 1), ("a", 1)])
    >>> [(host.name, host.cores) for host in found.hosts]
    [('a', 2), ('b', 1)]
    """
    counts: dict[str, int] = {}
    for name, count in slots:
        counts[name] = counts.get(name, 0) + count
    hosts = tuple(Host(name, count) for name, count in counts.items())
    return Allocation(engine, hosts, job)


def is_count(text: str) -> bool:
    """Whether it is a number that so many cores or workers can be.

    >>> is_count("12"), is_count("-1"), is_count("²"), is_count("9" * 5000)
    (True, False, False, False)
    """
    return text.isascii() and text.isdigit() and len(text) <= 9


def counted(count: int, thing: str) -> str:
    """For people.

    >>> counted(1, "node"), counted(2, "node")
    ('1 node', '2 nodes')
    """
    return f"{count} {thing}{'' if count == 1 else 's'}"


def shortage(cores: int, workers: int, threads: int) -> str:
    """What people are told where more is asked for than there is; empty: it is not.

    Args:
        cores: of a host.
        workers: there.
        threads: of each.

    >>> shortage(2, 4, 1)
    '2 cores for 4 workers with 1 thread each: they will wait for each other'
    """
    if workers * threads <= cores:
        return ""
    return (
        f"{counted(cores, 'core')} for {counted(workers, 'worker')} with "
        f"{counted(threads, 'thread')} each: they will wait for each other"
    )


def node_command(python: str, host: Host, *, in_job: bool = False) -> list[str]:
    """What is to run on a host; it reads the key from its standard input.

    Args:
        python: the interpreter there.
        host: it, with what it is to have.
        in_job: the engine may send it signals that are for the program.
    """
    words = [python, "-m", __name__.partition(".")[0], "node", "--key", "-"]
    if in_job:
        words.append("--in-job")
    if host.workers is not None:
        words += ["-nw", str(host.workers)]
    if host.threads is not None:
        words += ["-nth", str(host.threads)]
    return words


def shell_steps(
    command: Sequence[str],
    hosts: Iterable[Host],
    node: Callable[[Host], Sequence[str]],
    environ: Mapping[str, str],
    before: str = "",
) -> list[Step]:
    """One for each host, by a command that takes its name and a line for its shell.

    Args:
        command: with its options.
        hosts: of the steps.
        node: gives what is to run on a host.
        environ: of this process.
        before: see ``shell_line``.
    """
    return [
        Step(
            (*command, host.name, shell_line(node(host), environ, before)),
            (host.name,),
        )
        for host in hosts
    ]


def shell_line(
    words: Sequence[str], environ: Mapping[str, str], before: str = ""
) -> str:
    """A line for a shell that has nothing of our environment.

    Args:
        words: of the command.
        environ: of this process.
        before: what the user wants to be run there first.

    >>> shell_line(["/my python", "-V"], {"PYTHONPATH": "/a"}, "module load x")
    "module load x; exec env PYTHONPATH=/a '/my python' -V"
    """
    line = "exec " + shlex.join(passed_on(words, environ))
    return f"{before}; {line}" if before else line


def passed_on(words: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The same command, for where there is nothing of our environment."""
    passed = [f"{name}={environ[name]}" for name in _PASSED_ON if environ.get(name)]
    return ["env", *passed, *words] if passed else list(words)
