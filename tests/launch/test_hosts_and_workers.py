"""Which hosts get what, and what people are told who ask for more than there is."""

from __future__ import annotations

import pytest

from mosaic_like.config import Config
from mosaic_like.launch.engines import ssh
from mosaic_like.launch.engines.allocation import Allocation, Host
from mosaic_like.launch.layout import Layout, lay_out, local_warnings


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("config", "launch.layout"):
        monkeypatch.setattr(f"mosaic_like.{module}.usable_cores", lambda: 4)


@pytest.mark.parametrize(
    ("workers", "threads", "found"),
    [
        (4, 1, []),
        (2, 2, []),
        (
            5,
            None,
            ["4 cores for 5 workers with 1 thread each: they will wait for each"],
        ),
        (1, 5, ["4 cores for 1 worker with 5 threads each: they will wait for each"]),
    ],
)
def test_more_than_this_machine_has_is_told(
    workers: int, threads: int | None, found: list[str]
) -> None:
    config = Config.make(num_workers=workers, num_threads=threads)
    assert local_warnings(config) == [f"{text} other" for text in found]
    of_hosts = lay_out(
        ssh.parse_hosts("localhost"), {}, num_workers=workers, num_threads=threads
    )
    assert of_hosts.warnings == [f"localhost: {text} other" for text in found]


def test_a_cluster_without_workers_here_asks_for_nothing_here() -> None:
    options = {"mode": "dynamic", "address": "127.0.0.1", "num_workers": 9}
    assert local_warnings(Config.make(**options)) == []
    assert len(local_warnings(Config.make(**options, reuse_head=True))) == 1


def test_threads_that_were_asked_for_say_how_many_workers_this_host_has() -> None:
    layout = lay_out(ssh.parse_hosts("localhost"), {}, num_threads=3)
    assert layout.options == {"num_workers": 1, "num_threads": 3}


def test_hosts_of_a_job_are_told_of_together() -> None:
    hosts = tuple(Host(f"n{n}", 2, 4, 1) for n in (1, 2, 3))
    layout = Layout(Allocation("slurm", hosts), None, hosts, None)
    (warning,) = layout.warnings
    assert warning.startswith("n[1-3]: 2 cores for 4 workers with 1 thread each")
