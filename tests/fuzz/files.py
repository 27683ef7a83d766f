"""Files that were damaged, or written by hand: each is read, or refused in words.

For each reader of a file: some that are as they should be, what is to come of them when
they are changed a little, and how a refusal looks. Pickles that a user keeps (results
of tasks, states in checkpoints) are not changed here: to read one is to run it. Nor are
spilled values, which are nothing but the value.
"""

from __future__ import annotations

import functools
import json
import os
import random
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import nonsense

from mosaic_like import cgroups
from mosaic_like.core.verdicts import Remains
from mosaic_like.errors import ConnectError, MosaicError
from mosaic_like.launch import keys
from mosaic_like.launch.engines import hostlist, lsf, pbs, sge, slurm, ssh
from mosaic_like.runtimes import journal, orders
from mosaic_like.runtimes.checkpoint_files import CheckpointFiles, read_checkpoint
from mosaic_like.runtimes.directory import KEY_NAME
from mosaic_like.tasks.storage import DirectoryStore, JsonSerializer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LIMIT_S = 2.0  # that any one of them may take
_UID = 7
_OLDER, _NEWER = ["the", "state", "before"], {"the last": 1}


class Reader(NamedTuple):
    """One reader.

    Args:
        valid: contents of files that are as they should be.
        read: writes a content below a folder and has it read; it returns whether what
            came of it may be.
        refuses: by what, if it raises.
        names: what the text of a refusal has in it; empty: it is not ours.
    """

    valid: list[bytes]
    read: Callable[[Path, bytes], bool]
    refuses: tuple[type[Exception], ...] = ()
    names: str = ""


# -- what is read ----------------------------------------------------------------------


@functools.cache
def _checkpoints(folder: Path) -> tuple[CheckpointFiles, bytes, bytes]:
    """Where they are, and both contents."""
    import pickle

    files = CheckpointFiles(str(folder), b"cluster.")
    for number, state in ((1, _OLDER), (2, _NEWER)):
        files.write(_UID, number, pickle.dumps(state))
    older, newer = (folder / f"{files.path(_UID)}.{n}" for n in (1, 0))
    return files, older.read_bytes(), newer.read_bytes()


def _checkpoint(folder: Path, body: bytes) -> bool:
    """The one before stands when the last one is damaged, and nothing is unpickled."""
    files, _, newer = _checkpoints(folder)
    last = folder / f"{files.path(_UID)}.0"
    last.write_bytes(body)
    found = files.read(_UID)
    if body == newer:
        return read_checkpoint(last) == _NEWER and found.number == 2
    before = read_checkpoint(files.path(_UID))
    return bool(found.damaged and found.number == 1 and before == _OLDER)


def _lone_checkpoint(folder: Path, body: bytes) -> bool:
    path = folder / "1.0"
    path.write_bytes(body)
    path.chmod(0o600)
    return bool(read_checkpoint(path) == _NEWER)


def _key(folder: Path, body: bytes) -> bool:
    path = folder / KEY_NAME
    path.touch(0o600)
    path.write_bytes(body)
    return "://" in keys.read(path).address


def _journal(folder: Path, body: bytes) -> bool:
    for path in journal.paths(str(folder), _UID):
        with open(path, "wb") as file:
            file.write(body)
    assert isinstance(journal.printing(str(folder), _UID), str)
    assert journal.is_closing(str(folder), _UID) in (True, False)
    return isinstance(journal.collect(str(folder), _UID), Remains)


def _order(folder: Path, body: bytes) -> bool:
    path = folder / "i1"
    path.unlink(missing_ok=True)
    # What a link can hold of it.
    os.symlink(body.replace(b"\0", b"0")[:1000] or b"-", os.fsencode(path))
    uid, late = orders.read(str(path))
    return uid >= 0 and late in (True, False)


def _text(parse: Callable[[str], Any]) -> Callable[[Path, bytes], bool]:
    """Of a file that is text, whatever its bytes are."""
    return lambda folder, body: bool(parse(body.decode("utf-8", "replace")))


def _slurm(text: str) -> Any:
    names, _, cores = text.partition("\n")
    environ = {slurm.VARIABLE: names or "n", "SLURM_JOB_CPUS_PER_NODE": cores}
    return slurm.read(environ).hosts


def _groups(folder: Path, body: bytes) -> bool:
    """What the kernel says of the control groups, which containers may make up."""
    here = folder / "self"
    here.mkdir(exist_ok=True)
    for name in ("cgroup", "mountinfo"):
        (here / name).write_bytes(body)
    numbers = body.rpartition(b"\n")[2]
    (folder / "cpu.max").write_bytes(numbers)
    (folder / "memory.max").write_bytes(numbers.partition(b" ")[0])
    cores = cgroups.cpu_quota_cores(folder, folder)
    limits = [limit for limit, _, _ in cgroups.memory_bytes(folder, folder)]
    return isinstance(cores, float | None) and all(type(n) is int for n in limits)


def _json(folder: Path, body: bytes) -> bool:
    store = DirectoryStore(folder)
    store.put("key", body)
    JsonSerializer().loads(store.get("key"))
    return True


_KEY = {"address": "ipc:///x/m", "token": "00" * 8, "directory": "/x", "pid": 7}
_JOURNAL = struct.pack("<64q", journal._MAGIC, *range(63)).ljust(12_000, b"\n")


def readers(folder: Path) -> dict[str, Reader]:
    """All of them, by name."""
    _, _, newer = _checkpoints(folder)
    return {
        "checkpoint": Reader([newer], _checkpoint),
        "a lone checkpoint": Reader(
            [newer], _lone_checkpoint, (MosaicError,), "1.0 is damaged"
        ),
        "key file": Reader(
            [json.dumps(_KEY).encode()], _key, (ConnectError,), KEY_NAME
        ),
        "journal": Reader([_JOURNAL], _journal),
        "order": Reader([b"00" * 9, b"ff" * 9], _order),
        "hostfile": Reader(
            [b"# ours\nn[1-3] slots=4\nhead:2\n"],
            _text(lambda text: ssh.parse_hostfile(text, "hosts").hosts),
            (ValueError,),
            "hosts",
        ),
        "--hosts": Reader(
            [b"me@gpu1,n[1-2]:4"],
            _text(lambda text: ssh.parse_hosts(text).hosts),
            (ValueError,),
            "--hosts",
        ),
        "PE_HOSTFILE": Reader(
            [b"a 4 main@a UNDEFINED\nb 12 main@b <NULL>\n"],
            _text(lambda text: sge.parse(text).hosts),
            (ValueError,),
            "PE_HOSTFILE",
        ),
        "PBS_NODEFILE": Reader(
            [b"a\na\nb\n"],
            _text(lambda text: pbs.parse(text, ncpus=text[:2]).hosts),
            (ValueError,),
            "PBS_NODEFILE",
        ),
        "LSB_MCPU_HOSTS": Reader(
            [b"a 4 b 12"],
            _text(lambda text: lsf.parse(text).hosts),
            (ValueError,),
            "LSB_MCPU_HOSTS",
        ),
        "SLURM_JOB_NODELIST": Reader(
            [b"n[01-03],gpu7\n4(x3),16"], _text(_slurm), (ValueError,), "SLURM_J"
        ),
        "host list": Reader(
            [b"n[9-11],d[01-02]x,head"], _text(hostlist.expand), (ValueError,), "host"
        ),
        "control groups": Reader(
            [
                b"12:memory:/user.slice\n4:cpu,cpuacct:/\n0::/user.slice/a.scope\n"
                b"36 35 98:0 / %b rw,relatime - cgroup2 cgroup rw\n100000 200000"
                % bytes(folder)
            ],
            _groups,
        ),
        "a kept result": Reader(
            [b'{"a": [1, 2.5, null, "x"]}'], _json, (ValueError, RecursionError)
        ),
    }


# -- how it is fuzzed ------------------------------------------------------------------

# What readers of numbers and of nested things tend to take badly.
_STRANGE = tuple(
    text.encode()
    for text in (
        *("²", "٣", "9" * 5000, "[" * 2000, "-", "\0", "\u2028"),
        *("1-65536,", "1-65536," * 300, "1(x65536)," * 300),
    )
)
# What Python itself says of numbers is no word of ours.
_NOT_OURS = ("invalid literal", "Exceeds the limit")


def content(valid: list[bytes], rnd: random.Random) -> bytes:
    """A file that is nearly as it should be, or not at all."""
    few = rnd.random()
    if few < 0.02:
        return rnd.randbytes(rnd.choice((0, 1, 7, 40, 300)))
    body = rnd.choice(valid)
    if few < 0.05:
        return body
    if few < 0.3:
        at = rnd.randint(0, len(body))
        return body[:at] + rnd.choice(_STRANGE) + body[at + rnd.randint(0, 3) :]
    return nonsense.mutated(body, rnd)


def attempt(name: str, reader: Reader, folder: Path, body: bytes) -> str:
    """What is wrong with how this is read; empty: nothing."""
    began_s = time.process_time()
    try:
        if not reader.read(folder, body):
            return f"{name}: {body!r} was taken for something else"
    except reader.refuses as error:
        text = str(error)
        is_python = reader.names and any(words in text for words in _NOT_OURS)
        if not text or reader.names not in text or is_python:
            return f"{name}: {body!r} was refused by {error!r}"
    except Exception as error:
        return f"{name}: {body!r} raised {error!r}"
    took_s = time.process_time() - began_s
    return f"{name}: {body!r} took {took_s:.1f} s" if took_s > _LIMIT_S else ""


def fuzz(count: int, seed: int, folder: Path) -> list[str]:
    """Have so many files read; what is found, at most one finding of each reader."""
    rnd = random.Random(seed)
    found: dict[str, str] = {}
    before = set(os.listdir("/proc/self/fd"))
    every = readers(folder)
    names = list(every)
    for number in range(count):
        name = names[number % len(names)]
        body = content(every[name].valid, rnd)
        if why := attempt(name, every[name], folder, body):
            found.setdefault(name, why)
    left = set(os.listdir("/proc/self/fd")) - before
    if len(left) > 1:  # one is that of the listing itself
        found["descriptors"] = f"{len(left)} descriptors are left open"
    return list(found.values())
