"""Versions of libraries, which are compared when a host joins."""

from __future__ import annotations

from importlib import metadata

import zmq

from mosaic_like.launch.versions import SAID, different, versions, warning


def test_the_versions_that_are_installed_are_found() -> None:
    found = versions()
    assert found["libzmq"] == zmq.zmq_version()
    assert found["pyzmq"] == metadata.version("pyzmq")


def test_only_what_is_not_the_same_is_named() -> None:
    ours = versions()
    assert warning(ours) == warning({}) == ""
    theirs = {**ours, "pyzmq": "0.1\x1b[2J", "nosuch": "3"}
    assert warning(theirs) == (
        f"{SAID}pyzmq {ours['pyzmq']}, in the cluster 0.1?[2J; "
        "nosuch is missing, in the cluster 3"
    )


def test_what_only_the_host_that_joins_has_is_no_difference() -> None:
    assert different({"pyzmq": "1"}, {"pyzmq": "1", "numpy": "2"}) == ""
