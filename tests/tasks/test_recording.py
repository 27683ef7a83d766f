"""Records that come from other processes of the cluster; row 28."""

from __future__ import annotations

from typing import Any

import pytest

from mosaic_like.errors import ProtocolError
from mosaic_like.tasks.recording import Forwarder, Recorder


def test_a_record_arrives_as_it_was_made() -> None:
    found: list[dict[str, Any]] = []
    recorder = Recorder(found.append)
    record = {"name": "café \udc80", "tags": ["a"], "success": None}
    Forwarder(recorder.write_line).write(record)
    assert found == [record]


@pytest.mark.parametrize("text", ["", "3", "{", '"a"', "[" * 100_000])
def test_what_is_no_record_is_the_fault_of_who_sent_it(text: str) -> None:
    with pytest.raises(ProtocolError, match="a record that is no"):
        Recorder(print).write_line(text)
