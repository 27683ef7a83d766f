"""Which of a host's cores and GPUs each of its workers gets.

What there is to share out is what this process was given: the cores of its affinity,
and the GPUs that the scheduler, or the user, names in its environment. Nothing is set
here; the node passes it on to the workers that it forks.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ..cgroups import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")

SYS: Final = Path("/sys/devices/system")
_AMD = "/dev/kfd"  # the device of its driver
_ROCR = "ROCR_VISIBLE_DEVICES"
# Those in which an engine or a user lists GPUs, with commas between them.
_OF_GPUS: Final = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",  # OpenCL's
    "ZE_AFFINITY_MASK",  # Intel's
)
# These count within what ROCR_VISIBLE_DEVICES leaves, where AMD's driver reads it.
_WITHIN_ROCR: Final = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
)
# What Slurm says where a site has not told it of which maker its GPUs are.
_OF_SLURM: Final = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
_GPU = re.compile(r"[A-Za-z0-9./_-]+")  # 0, GPU-8932f937, MIG-GPU-.../1/0, 0.1
_NO_GPU = ("-1", "NoDevFiles", "none", "void")


def portion(items: Sequence[T], index: int, count: int) -> tuple[T, ...]:
    """The part of one of several, in the order of the items.

    Where there are fewer items than parts, each has one, and some have the same.

    >>> [portion("abcdef", index, 4) for index in range(4)]
    [('a',), ('b', 'c'), ('d',), ('e', 'f')]
    >>> [portion("ab", index, 4) for index in range(4)]
    [('a',), ('a',), ('b',), ('b',)]
    """
    first, last = (at * len(items) // count for at in (index, index + 1))
    return tuple(items[first : max(last, first + 1)])


def cores(sys: Path = SYS) -> list[int]:
    """Those that this process may use, in an order in which neighbors are near.

    None where workers cannot be given cores of their own.

    Args:
        sys: where the kernel tells how the cores are placed.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []  # macOS
    return sorted(os.sched_getaffinity(0), key=lambda core: _place(core, sys))


def _place(core: int, sys: Path) -> tuple[int, int, int, int]:
    """Cores that share memory or caches come after each other by it."""
    folder = sys / "cpu" / f"cpu{core}"
    nodes = [int(path.name[4:]) for path in folder.glob("node[0-9]*")]
    package, own = (
        _number(folder / "topology" / name)
        for name in ("physical_package_id", "core_id")
    )
    return min(nodes, default=0), package, own, core


def _number(path: Path) -> int:
    text = (read_text(path) or "").strip()
    return int(text) if text.isdigit() else 0  # -1: a virtual machine that has none


def gpus(
    index: int,
    count: int,
    environ: Mapping[str, str],
    *,
    is_amd: bool | None = None,
) -> dict[str, str | None]:
    """The changes to the environment of one worker that give it its GPUs.

    Args:
        index: of the worker on its node.
        count: of the node's workers.
        environ: of the node.
        is_amd: AMD's driver is on this host; None: look.

    >>> gpus(1, 2, {"CUDA_VISIBLE_DEVICES": "4,5,6,7"})
    {'CUDA_VISIBLE_DEVICES': '6,7'}
    """
    if is_amd is None:
        is_amd = os.path.exists(_AMD)
    named = [name for name in (_ROCR, *_OF_GPUS) if name in environ]
    found = {name: listed for name in named if (listed := _listed(environ[name]))}
    changes: dict[str, str | None] = {}
    if is_amd and _ROCR in found:
        # Numbers that were right for the host are not for what is left of it.
        for name in _WITHIN_ROCR:
            if name in environ:
                changes[name] = None
                found.pop(name, None)
    if not named:
        ours = _ROCR if is_amd else _OF_GPUS[0]
        for name in _OF_SLURM:
            if listed := _listed(environ.get(name, "")):
                found = {ours: listed}
                break
    for name, listed in found.items():
        changes[name] = ",".join(portion(listed, index, count))
    return changes


def _listed(text: str) -> list[str]:
    """The GPUs of such a variable; none if it is no list of them."""
    names = [name.strip() for name in text.split(",")]
    if any(name in _NO_GPU or _GPU.fullmatch(name) is None for name in names):
        return []
    return names
