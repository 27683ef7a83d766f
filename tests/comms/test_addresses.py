"""Addresses of the network."""

from __future__ import annotations

import socket

import pytest

from mosaic_like.comms.addresses import host_and_port, own_address, tcp_address
from mosaic_like.errors import AddressInUse


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("127.0.0.1", None, "tcp://127.0.0.1:*"),
        ("127.0.0.1", 0, "tcp://127.0.0.1:*"),
        ("127.0.0.1", 4000, "tcp://127.0.0.1:4000"),
        ("::1", None, "tcp://[::1]:*"),
        ("[::1]", 4000, "tcp://[::1]:4000"),
    ],
)
def test_numbers_are_written_as_they_are_bound(
    host: str, port: int | None, expected: str
) -> None:
    assert tcp_address(host, port) == expected


def test_a_name_is_looked_up() -> None:
    assert tcp_address("localhost") in ("tcp://127.0.0.1:*", "tcp://[::1]:*")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_all_addresses_at_once_are_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is all addresses of this machine: name"):
        tcp_address(host)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="is not of this machine"):
        tcp_address("192.0.2.1")  # of no machine: RFC 5737


@pytest.mark.parametrize("host", ["no.such.host.invalid", "*", "", "a" * 300])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="address"):
        tcp_address(host)


def test_a_port_that_is_taken_is_named_before_anything_is_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"port {port} at .* is taken; choose"):
            tcp_address("127.0.0.1", port)


def test_a_name_that_means_this_machine_only_to_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Debian writes it into /etc/hosts."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ValueError, match=r"127\.0\.1\.1, which only this machine"):
        tcp_address("myhost")


def test_the_own_address_is_the_one_that_leads_there() -> None:
    assert own_address("tcp://127.0.0.1:4000") == "127.0.0.1"
    assert own_address("tcp://[::1]:4000") == "::1"
    assert host_and_port("tcp://[::1]:4000") == ("::1", 4000)
