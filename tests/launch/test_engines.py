"""What engines say, and the command lines that they are given: nothing is run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_like.launch import engines
from mosaic_like.launch.engines import hostlist, lsf, mpi, pbs, sge, slurm, ssh
from mosaic_like.launch.engines.allocation import Host, node_command
from mosaic_like.launch.engines.causes import cause

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.from_regex(r"[a-z][a-z-]{0,3}[0-9]{0,4}[a-z.]{0,2}", fullmatch=True)


def shape(host: Host) -> tuple[int | None, int | None]:
    return host.workers, host.threads


def node(host: Host) -> list[str]:
    return node_command("/opt/py", host)


# -- lists of hosts --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ["n1"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("d[01-02,7],head", ["d01", "d02", "d7", "head"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("n[099-101]", ["n099", "n100", "n101"]),
    ],
)
def test_a_list_of_slurm_is_taken_apart(text: str, names: list[str]) -> None:
    assert hostlist.expand(text) == names


@pytest.mark.parametrize(
    "text", ["", "a,,b", "n[", "n[]", "n[2-1]", "n[a]", "n]1[", "n[1-99999999]"]
)
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected hosts such as"):
        hostlist.expand(text)


def test_a_list_of_very_many_hosts_is_refused_before_it_is_made() -> None:
    with pytest.raises(ValueError, match="more than 65536 hosts"):
        hostlist.expand("a[0-9999]b[0-9999]c[0-9999]")


@given(st.lists(NAMES, min_size=1, max_size=20))
def test_names_that_were_folded_are_the_same_when_expanded(names: list[str]) -> None:
    assert hostlist.expand(hostlist.fold(names)) == names


@given(st.text(alphabet="n[]-,0123456789 ", max_size=20))
def test_any_text_is_a_list_or_refused(text: str) -> None:
    try:
        names = hostlist.expand(text)
    except ValueError:
        return
    assert all(name and "," not in name for name in names)


# -- what engines say ------------------------------------------------------------------


def test_slurm_gives_cores_and_no_more_when_no_tasks_were_asked_for() -> None:
    found = slurm.read(
        {
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n[1-3]",
            "SLURM_JOB_CPUS_PER_NODE": "4(x2),2",
            "SLURM_TASKS_PER_NODE": "4(x2),2",  # so with --exclusive
        }
    )
    assert found.title == "slurm 7"
    assert found.hosts == (Host("n1", 4), Host("n2", 4), Host("n3", 2))
    assert shape(found.hosts[0].planned(None, 2)) == (2, 2)
    assert shape(found.hosts[0].planned(1, None)) == (1, 4)


def test_tasks_that_were_asked_of_slurm_become_workers_if_no_number_is_given() -> None:
    found = slurm.read(
        {
            "SLURM_JOB_NODELIST": "n1,m1",
            "SLURM_JOB_CPUS_PER_NODE": "8(x2)",
            "SLURM_NTASKS": "8",
            "SLURM_TASKS_PER_NODE": "4(x2)",
            "SLURM_CPUS_PER_TASK": "2",
        }
    )
    assert shape(found.hosts[0].planned(None, None)) == (4, 2)
    assert shape(found.hosts[0].planned(2, None)) == (2, 2)


def test_one_task_on_each_host_means_all_of_it() -> None:
    found = slurm.read(
        {
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_JOB_CPUS_PER_NODE": "8",
            "SLURM_NTASKS": "1",
            "SLURM_TASKS_PER_NODE": "1",
            "SLURM_CPUS_PER_TASK": "8",
        }
    )
    assert shape(found.hosts[0].planned(None, None)) == (8, 1)


def test_mrun_that_is_started_by_srun_on_each_host_is_refused() -> None:
    environ = {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_STEP_NUM_TASKS": "3"}
    with pytest.raises(ValueError, match="start mrun once, without srun"):
        slurm.read(environ)
    assert slurm.read({**environ, "SLURM_STEP_NUM_TASKS": "1"}).hosts


def test_what_slurm_itself_says_of_its_list_comes_first() -> None:
    said = slurm.read({"SLURM_JOB_NODELIST": "odd{1,2}"}, lambda _: ["odd1", "odd2"])
    assert [host.name for host in said.hosts] == ["odd1", "odd2"]


def test_the_old_name_of_the_list_of_slurm_is_known_too() -> None:
    environ = {"SLURM_NODELIST": "n[1-2]", "PBS_NODEFILE": "/no/such"}
    found = engines.find(environ, lambda _: None)
    assert found is not None
    assert [host.name for host in found.hosts] == ["n1", "n2"]
    both = {"SLURM_NODELIST": "old", "SLURM_JOB_NODELIST": "new"}
    assert slurm.read(both).hosts == (Host("new"),)


@pytest.mark.parametrize("text", ["4(x2)", "x", "4(x3),1", "4(y3)"])
def test_counts_of_slurm_that_do_not_fit_its_hosts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SLURM_JOB_CPUS_PER_NODE: found"):
        slurm.read({"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_CPUS_PER_NODE": text})


def test_grid_engine_gives_slots_also_of_several_queues() -> None:
    text = "host1 2 main@host1 UNDEFINED\nhost2 1 a@host2 x\nhost1 1 b@host1 y\n"
    assert sge.parse(text, "9").hosts == (Host("host1", 3), Host("host2", 1))
    for bad in ("", "host1", "host1 many q x", "host1 0 q x"):
        with pytest.raises(ValueError, match="PE_HOSTFILE"):
            sge.parse(bad)


def test_pbs_gives_cores_in_the_ways_of_torque_and_of_professional() -> None:
    assert pbs.parse("a\na\nb\n").hosts == (Host("a", 2), Host("b", 1))
    assert pbs.parse("a\nb\n", "", "8").hosts == (Host("a", 8), Host("b", 8))
    with pytest.raises(ValueError, match="PBS_NODEFILE: there is no host"):
        pbs.parse("\n")


def test_lsf_gives_slots_after_each_host() -> None:
    found = lsf.read({"LSB_MCPU_HOSTS": "a 4 b 2 a 1", "LSB_JOBID": "9"})
    assert found.title == "lsf 9"
    assert found.hosts == (Host("a", 5), Host("b", 2))
    for bad in ("a", "a 4 b", "a b", "a 0", "4 a"):
        with pytest.raises(
            ValueError, match=r"LSB_MCPU_HOSTS: found .* such as 'host1"
        ):
            lsf.parse(bad)


def test_hosts_of_the_command_line_may_have_their_own_workers() -> None:
    found = ssh.parse_hosts("host1, me@host2:4,n[1-2]:3")
    assert [(host.name, host.workers) for host in found.hosts] == [
        ("host1", None),
        ("me@host2", 4),
        ("n1", 3),
        ("n2", 3),
    ]
    assert found.hosts[0].planned(2, None).workers == 2
    assert found.hosts[1].planned(2, None).workers == 4


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("a:0", "found 'a:0'"),
        ("a:many", "such as host2:4"),
        ("a,,b", "expected hosts"),
        ("-oProxyCommand=x", "no name of a host"),
        ("a,a", "a is named twice; for several workers write a:2"),
    ],
)
def test_hosts_that_cannot_be_meant_are_refused(text: str, phrase: str) -> None:
    with pytest.raises(ValueError, match=phrase):
        ssh.parse_hosts(text)


def test_a_hostfile_has_a_host_on_each_line() -> None:
    text = "# mine\nhost1\nhost2 slots=4  # large\n\nhost3:2\n"
    found = ssh.parse_hostfile(text, "hosts.txt")
    assert [host.workers for host in found.hosts] == [None, 4, 2]
    for bad in ("host1 4", "host1 slots=x", "host1 slots=0", "host1:"):
        with pytest.raises(ValueError, match=r"hosts\.txt, line 1: found"):
            ssh.parse_hostfile(bad, "hosts.txt")
    with pytest.raises(ValueError, match="there is no host in it"):
        ssh.parse_hostfile("# none\n", "hosts.txt")


def test_the_first_engine_that_is_there_is_asked(tmp_path: Path) -> None:
    nodes = tmp_path / "nodes"
    nodes.write_text("a\n")
    environ = {"PBS_NODEFILE": str(nodes), "SLURM_JOB_NODELIST": "n1"}
    found = engines.find(environ, lambda _: None)
    assert found is not None
    assert found.engine == "slurm"
    assert engines.find({"PBS_NODEFILE": ""}, lambda _: None) is None
    with pytest.raises(ValueError, match="PBS_NODEFILE=/no/such cannot be read"):
        engines.find({"PBS_NODEFILE": "/no/such"}, lambda _: None)


# -- command lines ---------------------------------------------------------------------


def test_ssh_gets_flags_commands_and_one_line_for_a_shell() -> None:
    environ = {
        "SSH_FLAGS": "-p 2222 -F '/my config'",
        "SSH_COMMANDS": "module load python;",
        "PYTHONPATH": "/a b",
    }
    (step,) = ssh.steps([Host("me@host2", None, 4, 1)], node, environ)
    assert step.hosts == ("me@host2",)
    assert step.command == (
        *("ssh", "-p", "2222", "-F", "/my config"),
        *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ControlMaster=no"),
        *("-T", "me@host2"),
        "module load python; exec env 'PYTHONPATH=/a b' /opt/py -m mosaic_like node "
        "--key - -nw 4 -nth 1",
    )
    with pytest.raises(ValueError, match="SSH_FLAGS: No closing quotation"):
        ssh.steps([Host("a")], node, {"SSH_FLAGS": "-F 'x"})


def test_qrsh_gets_one_line_for_a_shell() -> None:
    (step,) = sge.steps([Host("host2", 4)], node, {})
    assert step.command == (
        *("qrsh", "-inherit", "host2"),
        "exec /opt/py -m mosaic_like node --key -",
    )


def test_blaunch_gets_one_line_for_a_shell() -> None:
    (step,) = lsf.steps([Host("host2", 4)], node, {"PYTHONPATH": "/a b"})
    assert step.command == (
        *("blaunch", "host2"),
        "exec env 'PYTHONPATH=/a b' /opt/py -m mosaic_like node --key -",
    )


def test_mpiexec_starts_one_process_that_is_bound_to_no_core() -> None:
    hosts = [Host("host1", None, 2), Host("host2")]
    first, second = mpi.steps(hosts, node, {"PYTHONPATH": "/a b"})
    assert first.command == (
        *("mpiexec", "-n", "1", "-bind-to", "none", "-host", "host1"),
        *("env", "PYTHONPATH=/a b", "/opt/py", "-m", "mosaic_like", "node"),
        *("--key", "-", "-nw", "2"),
    )
    assert second.hosts == ("host2",)
    (step,) = mpi.steps(hosts[:1], node, {"MPIEXEC": "mpirun --oversubscribe"})
    assert step.command[:3] == ("mpirun", "--oversubscribe", "-n")
    with pytest.raises(ValueError, match="MPIEXEC: No closing quotation"):
        mpi.steps(hosts, node, {"MPIEXEC": "'x"})


def test_a_node_of_a_job_leaves_its_signals_to_the_program() -> None:
    words = node_command("/opt/py", Host("a", None, 2), in_job=True)
    assert words[3:] == ["node", "--key", "-", "--in-job", "-nw", "2"]


def test_pbs_is_served_by_ssh() -> None:
    assert engines.STARTERS[pbs.NAME] is ssh.steps


def test_srun_starts_all_hosts_that_are_alike_in_one_step() -> None:
    hosts = [Host("n1", 4, 2, 2), Host("n2", 4, 2, 2), Host("n3", 2, 2, 1)]
    first, second = slurm.steps(hosts, node, {})
    assert first.hosts == ("n1", "n2")
    assert second.hosts == ("n3",)
    assert first.is_labelled
    assert first.command == (
        *("srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"),
        *("--nodelist=n1,n2", "--overlap", "--mem=0", "--cpu-bind=none"),
        *("--kill-on-bad-exit=0", "--no-kill", "--wait=0", "--mpi=none"),
        *("--export=ALL", "--label", "--job-name=mosaic", "--cpus-per-task=4"),
        *("sh", "-c", 'echo "mosaic: on $SLURMD_NODENAME" >&2; exec "$@"', "sh"),
        *("/opt/py", "-m", "mosaic_like", "node", "--key", "-", "-nw", "2"),
        *("-nth", "2"),
    )
    assert not any("key-" in word for word in first.command)


def test_the_lines_of_srun_are_told_apart() -> None:
    output = slurm.Output()
    assert output.line(" 1: mosaic: on n2") is None
    assert output.line("0: mosaic: on n1") is None
    assert output.line("0: mosaic: on the way") == ("n1", "mosaic: on the way")
    assert output.line(" 1: two: three") == ("n2", "two: three")
    assert output.line("7: who?") == ("", "who?")
    assert output.line("srun: error: cannot") == ("", "srun: error: cannot")
    assert output.line("srun: error: n2: task 1: Killed") is None
    assert output.line("srun: error: n1: task 0: Exited with exit code 2") is None
    assert output.codes == {"n2": 137, "n1": 2}


# -- causes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "phrase"),
    [
        (127, "bash: line 1: /py: No such file", "there is no /py: install Python"),
        (126, "bash: line 1: /py: Permission denied", "/py cannot be run there"),
        (255, "ssh: Could not resolve hostname b: x", "there is no host of this name"),
        (255, "ssh: connect to host b port 22: No route to host", "cannot be reached"),
        (255, "ssh: connect to host b port 22: Connection timed out", "is it up"),
        (255, "ssh: connect to host b port 22: Connection refused", "nothing there"),
        (255, "Host key verification failed.", "say ssh b once"),
        (255, "b: Permission denied (publickey).", "ssh-copy-id b"),
        (1, "/py: No module named mosaic_like", "install the same version there"),
        (1, "/py: No module named msgspec", "install the same environment"),
        (
            1,
            "mrun: standard input: its cluster runs Python 3.11, this program 3.13: x",
            "standard input: its cluster runs Python 3.11, this program 3.13: x",
        ),
        (2, "Error: No such option: -nw", "No such option: -nw"),
        (255, "unknown option -- Z", "see SSH_FLAGS, MPIEXEC"),
        (1, "zmq.error.ZMQError: Too many open files", "'ulimit -n 1024'"),
        (1, "OSError: [Errno 28] No space left on device", "TMPDIR"),
        (-9, "", r"its command ended \(signal 9: 'Welcome!'\)"),
        (3, "\x1b[2Jodd", r"\(exit 3: '\?\[2Jodd'\)"),
    ],
)
def test_the_cause_says_what_to_do(status: int, said: str, phrase: str) -> None:
    text = cause("b", "/py", status, ["Welcome!", "", said])
    assert re.search(phrase, text), text
    assert text.isprintable()
