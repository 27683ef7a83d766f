"""What is dropped is told, but not too often."""

from __future__ import annotations

from mosaic_like.runtimes.receiving import QUIET_S, Complaints


def test_each_sender_gets_one_line_in_a_while() -> None:
    now_s = 0.0
    lines: list[str] = []
    complaints = Complaints(lambda: now_s, lines.append)
    for _ in range(100):
        complaints.tell("worker:0:0", "Lost")
        complaints.tell("worker:0:1", "Stop")
    assert lines == [
        "Lost, from worker:0:0, was dropped",
        "Stop, from worker:0:1, was dropped",
    ]
    now_s = QUIET_S
    complaints.tell("worker:0:0", "Joined")
    assert lines[2:] == [
        "Joined, from worker:0:0, was dropped (and 99 more since the last time)"
    ]


def test_any_number_of_senders_takes_no_memory() -> None:
    lines: list[str] = []
    complaints = Complaints(lambda: 0.0, lines.append)
    for index in range(5000):
        complaints.tell(f"head:{index}", "Lost")
    assert len(complaints._told) <= 1000


def test_a_line_has_no_control_characters() -> None:
    lines: list[str] = []
    Complaints(lambda: 0.0, lines.append).tell("a\x1b[2Jb", "x\ny")
    assert lines == ["x?y, from a?[2Jb, was dropped"]
