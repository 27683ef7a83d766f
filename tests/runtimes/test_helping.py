"""What a node hears of threads that stand still, from whom it may and may not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mosaic_like.comms import messages as wire
from mosaic_like.config import Config
from mosaic_like.errors import ProtocolError
from mosaic_like.runtimes.helping import Helping


def member(uid: str, incarnation: int) -> wire.Member:
    return wire.Member(incarnation, uid, b"", "", "here", 7)


def test_one_that_leaves_may_still_say_it_and_others_may_not() -> None:
    members = {i: member(uid, i) for i, uid in ((3, "worker:0:0"), (4, "worker:1:0"))}
    node = SimpleNamespace(
        uid="node:0",
        config=Config(num_workers=1),
        handlers={},
        loop=SimpleNamespace(time=lambda: 1.0),
        members=members,
        stopping=False,
    )
    helping = Helping(cast("Any", node))
    say_still = node.handlers[wire.Still]
    for each in members.values():
        helping.joined(each)
    say_still(wire.Still(0.5, []), (), 3)
    helping.gone(3)
    say_still(wire.Still(None, []), (), 3)
    for stranger in (4, 5):
        with pytest.raises(ProtocolError, match="no worker of this node"):
            say_still(wire.Still(0.5, []), (), stranger)
