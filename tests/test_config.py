"""Config: what counts more, what is refused and how, and the cores that may be used."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_like
from mosaic_like.config import PORTED, Config, usable_cores
from mosaic_like.option import Option

NAMES = [option.name for option in Config.options()]


@pytest.fixture(autouse=True)
def _no_options_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in Config.options():
        monkeypatch.delenv(option.environment, raising=False)


def test_every_field_is_an_option_with_a_help_text() -> None:
    assert [field.name for field in dataclasses.fields(Config)] == NAMES
    assert all(option.help for option in Config.options())


def test_the_names_of_the_original_are_accepted() -> None:
    original = (
        "address port monitor_address monitor_port pubsub_port num_workers num_threads "
        "mode reuse_head monitor_strategy log_level profile node_list timeout "
        "asyncio_loop dump_init wait"
    )
    assert set(original.split()) <= {*NAMES, *PORTED}


def test_a_call_counts_more_than_the_environment_and_that_more_than_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Config.make().log_level == "info"
    monkeypatch.setenv("MOSAIC_LOG_LEVEL", "debug")
    assert Config.make().log_level == "debug"
    assert Config.make(log_level="error").log_level == "error"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSAIC_LOG_LEVEL", "")
    assert Config.make().log_level == "info"


def test_none_counts_as_not_given_where_it_is_no_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOSAIC_NUM_WORKERS", "7")
    assert Config.make(num_workers=None).num_workers == 7
    assert Config.make(timeout=None).timeout is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("num_workers", "3", 3),
        ("quiet", "1", True),
        ("quiet", "Off", False),
        ("timeout", "1.5", 1.5),
        ("timeout", "none", None),
        ("monitor_strategy", "least-loaded", "least-loaded"),
    ],
)
def test_the_environment_is_read_by_kind(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    monkeypatch.setenv(f"MOSAIC_{name.upper()}", text)
    assert getattr(Config.make(), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [("num_workers", "four"), ("num_workers", "0"), ("quiet", "maybe"), ("mode", "x")],
)
def test_a_bad_variable_is_named_with_what_was_found_and_expected(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"MOSAIC_{name.upper()}", text)
    expected = f"^MOSAIC_{name.upper()}: found '?{text}'?, expected "
    with pytest.raises(ValueError, match=expected):
        Config.make()


@pytest.mark.parametrize(
    ("given", "workers", "threads"),
    [
        ({}, 8, 1),
        ({"num_threads": 3}, 2, 3),
        ({"num_threads": 9}, 1, 9),
        ({"num_workers": 3}, 3, 2),
        ({"num_workers": 5, "num_threads": 4}, 5, 4),
    ],
)
def test_what_is_not_given_of_workers_and_threads_follows_from_the_cores(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, int], workers: int, threads: int
) -> None:
    monkeypatch.setattr("mosaic_like.config.usable_cores", lambda: 8)
    if "num_workers" not in given:  # its default is looked up when there are none
        monkeypatch.setenv("MOSAIC_NUM_WORKERS", "")
    config = Config.make(**given)
    assert (config.num_workers, config.num_threads) == (workers, threads)


def test_an_unknown_option_names_the_closest() -> None:
    message = r"^unknown option 'num_worker'; did you mean 'num_workers'\?$"
    with pytest.raises(TypeError, match=message):
        Config.make(num_worker=2)


def test_an_unknown_option_that_is_like_no_other_has_no_hint() -> None:
    with pytest.raises(TypeError, match=r"^unknown option 'zzz'$"):
        Config.make(zzz=1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_workers", "4", r"'4' \(str\), expected an integer, at least 1"),
        ("num_workers", True, r"True \(bool\), expected an integer"),
        ("num_workers", 1.5, r"1.5 \(float\), expected an integer"),
        ("quiet", 1, r"1 \(int\), expected a bool"),
        ("timeout", "1", r"'1' \(str\), expected a number of seconds"),
        ("address", b"x", r"b'x' \(bytes\), expected a string or None"),
        ("node_list", "host", r"'host' \(str\), expected a sequence of strings"),
        ("node_list", [1], r"\[1\] \(list\), expected a sequence of strings"),
    ],
)
def test_a_value_of_the_wrong_kind_is_a_type_error(
    name: str, value: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=f"^{name}: found {message}"):
        Config.make(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_workers", 0, "0, expected an integer, at least 1"),
        ("port", 70000, "70000, expected an integer from 0 to 65535 or None"),
        ("timeout", -1, "-1, expected a number of seconds, at least 0 or None"),
        ("timeout", float("nan"), "nan, expected a number"),
        ("log_level", "loud", "'loud', expected 'debug' or 'perf'"),
    ],
)
def test_a_value_out_of_range_is_a_value_error(
    name: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name}: found {message}"):
        Config.make(**{name: value})


def test_a_config_made_directly_is_checked_too() -> None:
    with pytest.raises(ValueError, match=r"^num_workers: found 0"):
        Config(num_workers=0)


def test_a_config_cannot_be_changed() -> None:
    config = Config.make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.quiet = True  # type: ignore[misc]


def test_options_for_porting_are_accepted_and_do_nothing() -> None:
    ported = {"asyncio_loop": object(), "pubsub_port": 3, "dump_init": True}
    assert Config.make(**ported) == Config.make()


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("mode", "cluster", "mrun finds the hosts of a job"),
        ("node_list", ["a", "b"], "mrun --hosts a,b:4 python program.py"),
        ("monitor_port", 3000, "mosaic.connect"),
        ("wait", True, "mrun --monitor"),
        ("profile", True, "mrun --profile"),
        ("dashboard", True, "mrun status"),
    ],
)
def test_what_is_not_needed_here_is_refused_and_says_what_is_instead(
    name: str, value: Any, instead: str
) -> None:
    with pytest.raises(NotImplementedError, match=f"^{name}=.*: .*{instead}"):
        Config.make(**{name: value})


def test_what_is_refused_may_be_left_at_its_default() -> None:
    refused = {option.name: option.default for option in Config.options()
               if option.instead}  # fmt: skip
    assert "mode" in refused
    assert Config.make(**refused) == Config.make()


def test_every_option_is_read_or_refused() -> None:
    package = Path(mosaic_like.__file__).parent
    code = "".join(path.read_text() for path in package.rglob("*.py"))
    unread = {o.name for o in Config.options() if f"config.{o.name}" not in code}
    refused = {option.name for option in Config.options() if option.instead}
    assert unread - refused == set()


def test_workers_share_the_usable_cores() -> None:
    cores = usable_cores()
    assert Config.make().num_workers == cores
    assert Config.make(num_workers=1).num_threads == cores
    assert Config.make(num_workers=cores + 1).num_threads == 1


def test_a_child_gets_the_same_config(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.make(num_workers=3, quiet=True, timeout=None)
    monkeypatch.setenv("MOSAIC_LOG_LEVEL", "debug")
    assert Config.from_bytes(config.to_bytes()) == config


@given(
    workers=st.integers(1, 10_000),
    threads=st.integers(1, 10_000),
    timeout=st.none() | st.floats(0, 1e9),
    quiet=st.booleans(),
)
def test_every_config_survives_the_way_to_a_child(
    workers: int, threads: int, timeout: float | None, quiet: bool
) -> None:
    config = Config(
        num_workers=workers,
        num_threads=threads,
        timeout=timeout,
        quiet=quiet,
    )
    assert Config.from_bytes(config.to_bytes()) == config


def test_an_option_knows_its_variable() -> None:
    assert Option("worker_timeout", float, "").environment == "MOSAIC_WORKER_TIMEOUT"


def _host(root: Path, cgroup: str, files: dict[str, str]) -> tuple[Path, Path]:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "proc", root / "cgroup"


@pytest.mark.parametrize(
    ("cgroup", "files", "cores"),
    [
        ("0::/a/b\n", {}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 1"}, 1),
        ("0::/gone\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/a\n", {"a/cpu.max": "10000 100000\n"}, 1),
        ("0::/a\n", {"a/cpu.max": "9900000 100000\n"}, 8),
        (
            "4:cpu,cpuacct:/a\n3:memory:/a\n",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n"}, 8),
    ],
)
def test_the_quota_of_the_cgroup_cuts_the_usable_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cgroup: str,
    files: dict[str, str],
    cores: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores(*_host(tmp_path, cgroup, files)) == cores


def test_without_proc_the_affinity_alone_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5})
    assert usable_cores(tmp_path, tmp_path) == 2
