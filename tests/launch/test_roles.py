"""What mrun is to be, and which options go with it: without starting anything."""

from __future__ import annotations

from typing import Any

import pytest

from mosaic_like.launch.mrun import cli
from mosaic_like.launch.roles import Role, index_of, role_of

NOTHING = {parameter.name or "": None for parameter in cli.params}


def role(environ: dict[str, str] | None = None, **options: Any) -> Role:
    return role_of({**NOTHING, **options}, environ or {})


def test_a_head_with_a_program_is_what_it_is_without_a_word() -> None:
    assert role() is Role.PROGRAM
    assert role(head=True) is Role.PROGRAM
    # Of a cluster around it a program that asks for a new one knows nothing.
    assert role({"MOSAIC_CLUSTER": "/k"}) is Role.PROGRAM


def test_a_head_joins_the_cluster_that_is_named() -> None:
    assert role({"MOSAIC_CLUSTER": "/k"}, head=True) is Role.HEAD
    assert role(head=True, key="/k") is Role.HEAD
    assert role(head=True, monitor_address="a") is Role.HEAD


def test_a_monitor_has_all_that_a_new_cluster_has() -> None:
    assert role(monitor=True, hosts="a,b", num_workers=2, strict=True) is Role.MONITOR
    assert role(monitor=True, dynamic=True, daemon=True) is Role.MONITOR


def test_a_node_says_what_is_its_own() -> None:
    own: dict[str, Any] = {
        "key": "-",
        "num_workers": 2,
        "address": "a",
        "indices": "3",
        "daemon": True,
    }
    assert role(node=True, **own) is Role.NODE


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"head": True, "node": True}, "--head and --node exclude each other"),
        ({"local": True, "dynamic": True}, "--local and --dynamic exclude each other"),
        ({"record": "a", "profile": True}, "--record and --profile exclude"),
        ({"node": True, "hosts": "a"}, "--hosts is for a new cluster; --node joins"),
        ({"node": True, "dynamic": True}, "--dynamic is for a new cluster"),
        ({"node": True, "free_head": True}, "--free-head is for a new cluster"),
        ({"head": True, "key": "k", "num_workers": 2}, "-nw is for a new cluster"),
        ({"head": True, "key": "-"}, "name a file, which the program reads"),
        ({"monitor": True, "key": "k"}, "--key names a cluster that runs"),
        ({"monitor_port": 1}, "--monitor-port names a cluster that runs"),
        ({"indices": "3"}, "goes with --node"),
        ({"daemon": True}, "--daemon goes with --monitor or --node"),
        ({"daemon": True, "head": True, "key": "k"}, "--daemon goes with"),
        ({"dynamic": True, "hosts": "a"}, "--hosts names hosts at the start"),
        ({"dynamic": True, "num_nodes": 2}, "-n names hosts at the start"),
        ({"dynamic": True, "cluster": True}, "--cluster names hosts at the start"),
        ({"dynamic": True, "free_head": True}, "--free-head names hosts"),
        ({"dynamic": True, "num_workers": 2}, "-nw is for a node here, and --dynamic"),
        ({"local": True, "num_nodes": 2}, "--local is one machine, -n 2 are more"),
    ],
)
def test_what_cannot_be_is_said_with_its_reason(
    options: dict[str, Any], phrase: str
) -> None:
    with pytest.raises(ValueError, match=phrase):
        role(**options)


def test_a_dynamic_cluster_may_have_a_node_here() -> None:
    assert role(dynamic=True, reuse_head=True, num_workers=2) is Role.PROGRAM


def test_an_address_without_a_key_lets_nobody_in() -> None:
    with pytest.raises(ValueError, match=r"but not its key: name .* --key"):
        role({"MOSAIC_MONITOR_HOST": "a"}, head=True)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [("1:2", "one index, such as -i 3"), ("x", "expected an index"), ("", "expected")],
)
def test_what_is_no_index_of_a_node_is_refused(text: str, phrase: str) -> None:
    assert index_of(None) is None
    with pytest.raises(ValueError, match=phrase):
        index_of(text)
