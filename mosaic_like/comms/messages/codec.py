"""The table of all kinds of messages, and how a batch of them becomes bytes and back.

A kind that is not in the table cannot be received. What each means is in the files that
are named here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from . import bonds, calls, holding, members, moving, registers, values, waiting

PROTOCOL = 1

AnyMessage = (
    members.Hello
    | members.Welcome
    | members.Refused
    | members.Joined
    | members.Lost
    | members.LossSeen
    | members.SeenBy
    | members.Drain
    | members.Leaving
    | members.LeavingSeen
    | members.Exited
    | members.Stop
    | members.Beat
    | members.Stopped
    | members.Output
    | holding.Release
    | holding.ReleaseGrants
    | holding.Retain
    | holding.Holding
    | holding.Inherit
    | holding.HeldBy
    | holding.Inherited
    | calls.Create
    | calls.Submit
    | calls.Done
    | calls.Failed
    | calls.Cancel
    | calls.Running
    | calls.Ran
    | calls.Again
    | calls.Ending
    | calls.Interrupt
    | calls.Learn
    | calls.Transform
    | calls.Recall
    | calls.Recalled
    | calls.Subscribe
    | calls.Fetch
    | calls.Value
    | calls.Item
    | calls.Credit
    | waiting.Waits
    | waiting.Waiting
    | waiting.Circle
    | waiting.Quiesce
    | waiting.Quiet
    | waiting.Still
    | waiting.Helped
    | values.Define
    | values.Adopt
    | values.Returned
    | values.Locate
    | values.Located
    | values.Ledger
    | values.Spilled
    | values.Copy
    | values.Uncopy
    | values.Copied
    | values.Chunk
    | values.Taken
    | values.Unwanted
    | values.AskMemory
    | values.MemoryOf
    | registers.Claim
    | registers.Claimed
    | registers.Named
    | registers.Unnamed
    | registers.Share
    | registers.Shared
    | registers.AskNames
    | registers.Names
    | registers.TakeSlots
    | registers.TakenSlots
    | registers.FreeSlots
    | registers.SetLimit
    | moving.Find
    | moving.Moved
    | moving.Ended
    | moving.Closed
    | moving.Retire
    | moving.Retired
    | moving.Save
    | moving.Saved
    | moving.Seek
    | moving.Keep
    | moving.Resent
    | bonds.Bind
    | bonds.Broke
    | bonds.Unbound
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[AnyMessage])


def encode(batch: list[Any], reserve: int = 0) -> bytearray:
    """A batch as bytes, after ``reserve`` bytes left free for the link's header."""
    body = bytearray(reserve)
    try:
        _encoder.encode_into(batch, body, reserve)
    except UnicodeEncodeError:
        # Texts of users are checked where they are given. If one was overlooked, it is
        # for people; and nothing after it would ever be sent.
        plain = msgspec.to_builtins(batch, builtin_types=(bytes, bytearray))
        _encoder.encode_into(_sendable(plain), body, reserve)
    return body


def _sendable(value: Any) -> Any:
    """The same with lone surrogates escaped, as ``ascii`` shows them."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_sendable(key): _sendable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sendable(item) for item in value]
    return value


def decode(body: bytes | memoryview) -> list[Any]:
    """A batch from bytes; raises msgspec.DecodeError if it is not one."""
    try:
        return _decoder.decode(body)
    except UnicodeDecodeError as error:  # msgspec lets this one through
        raise msgspec.DecodeError(str(error)) from None
