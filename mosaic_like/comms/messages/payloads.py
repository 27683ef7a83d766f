"""What stands in many messages: values, what they mention, and what few of them need.

The data of a payload are pickled or plain; what most payloads and calls do not need
stands in ``Extra``, so that the common call is six small fields. No message is here but
the base of all.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 -- msgspec reads it
from typing import Annotated

import msgspec

# How the data of a payload begin that is a pickle; plain values begin otherwise.
PICKLED = 0x80

# Who runs a call looks at the first byte.
Filled = Annotated[bytes, msgspec.Meta(min_length=1)]

# What a Submit asks for.
CALL = 0
GET_ATTRIBUTE = 1
SET_ATTRIBUTE = 2
STREAM = 3  # a generator method: answered by Items, then Done
RESULT_CALL = 4  # a method of a task's value: ``tessera`` is the uid of that task
APPLY = 5  # the first argument, a function, on the others; no tessera
PART = 6  # the first argument's parts, whose keys are the others; no tessera
CLOSE = 7  # the tessera: after what is queued
KILL = 8  # the tessera: now
# These go to a warehouse; their method is the key, if they have one.
PUT = 9  # keep this value for who holds the task
PUT_KEY = 10  # and under a key that is free
GET_KEY = 11  # the value of the task is the one that is under the key now
TAKE_KEY = 12  # the same, None if there is none; its key is taken until it is replaced
REPLACE_KEY = 13  # by the value of the first reference, a task; the second took it
DROP_KEY = 14
DROP = 15  # the value of the task whose uid is in the data
PUBLISH = 16  # that: give all warehouses a copy

# What a reference points to.
TASK = 0
TESSERA = 1
SEGMENT = 2  # shared memory that a warehouse owns
QUOTED = 3  # a task, as an argument that stands for itself
ALLOWED = 4  # a task, as an argument that may have failed


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""


class Reference(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A tessera or task that is mentioned in a payload."""

    kind: int
    uid: int
    owner: int  # incarnation of the runtime where it lives


class Place(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Where a segment can be opened: a descriptor of a process on the same host.

    Numbers of processes and descriptors are used again: who opens it compares the rest.
    """

    pid: int
    fd: int
    device: int
    inode: int
    size: int  # bytes
    token: int = 0  # of a file, behind its content; 0: it is memory


class SharedBuffers(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The large buffers of a payload, where they stand in segments."""

    places: list[Place]  # of the references that are segments, in their order
    layout: list[tuple[int, int, int]]  # of each buffer: which place, offset, bytes


class Parts(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The large buffers of a payload that follow in chunks: see ``transfers``."""

    number: int  # of the transfer, by its sender's count for this peer
    lengths: list[int]  # bytes of each buffer


class Known(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The value of a task that a call takes, from who has it and sends the call."""

    index: int  # of the reference
    data: bytes
    references: list[Reference] = []  # to the segments that ``shared`` is about
    shared: SharedBuffers | None = None


class Extra(msgspec.Struct, array_like=True, gc=False):
    """What only some payloads and calls have."""

    references: list[Reference] = []
    definitions: list[bytes] = []  # digests of what must have been Defined before
    buffers: int = 0  # out-of-band frames of this payload, in the order of the batch
    size: int = 0  # bytes of a value that stayed where it was made
    kind: int = CALL
    remaining_s: float | None = None  # of the time that the calls around it have
    ordered: bool = True
    max_retries: int | None = None  # of a method that raises; None: the tessera's
    shared: SharedBuffers | None = None  # instead of buffers beside the bytes
    timeout_s: float | None = None  # that each attempt has
    interrupt: int | None = None  # FLAG, RAISE or KILL; None: the tessera's
    parts: Parts | None = None  # instead of buffers beside the bytes
    retry: bytes = b""  # when it runs again, as ``proxies.retries`` has it
    # Of the tasks of which a call takes only parts: index of the reference, and key.
    outputs: Sequence[tuple[int, int | str]] = ()
    told: bool = False  # its caller wants to hear when attempts begin, and of each
    attempt: int = 1  # the first that is made of it where it is sent
    # Of what its user has retried: the uid that people know, and the attempts before.
    retried: tuple[int, int] | None = None
    known: list[Known] = []  # so that their owners need not be asked
