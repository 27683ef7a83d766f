"""Which address of a member is used."""

from __future__ import annotations

from mosaic_like.comms.messages import Member
from mosaic_like.core.reach import endpoint, is_near


def member(machine: str, tcp: str = "", host: str = "same name") -> Member:
    return Member(1, "head", b"", "ipc:///s", host, 1, tcp, machine)


def test_on_one_machine_the_socket_in_a_file_is_used_even_if_there_is_another() -> None:
    assert endpoint(member("A"), member("A", "tcp://10.0.0.1:1")) == "ipc:///s"
    assert is_near(member("A"), member("A", host="another name"))


def test_on_another_machine_tcp_is_used_though_the_hosts_have_the_same_name() -> None:
    there = member("B", "tcp://10.0.0.1:1")
    assert not is_near(member("A"), there)
    assert endpoint(member("A"), there) == "tcp://10.0.0.1:1"


def test_who_has_no_tcp_address_is_tried_where_it_is() -> None:
    assert endpoint(member("A"), member("B")) == "ipc:///s"
