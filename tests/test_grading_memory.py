"""Which limit on memory counts: a control group where the grader may make one, or else
a look at all processes.

Groups are made here in a folder that looks like the kernel's: that they are
made, limited and joined can be seen there. That a real one ends its
processes is the kernel's part.
"""

import os
import sys
import threading

import pytest
from small import ALL, DOUBLE, instead_of, notebook, with_cell

from ioi_course.grading import memory
from ioi_course.grading.grade import grade as grade_one
from ioi_course.grading.processes import Ended, Runner
from ioi_course.grading.server import Limits, Spent

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="grading isolates with means of Linux"
)


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A folder in the place of /sys/fs/cgroup, with this process in a group of its own,
    as in a systemd scope."""
    base = tmp_path / "user.slice" / "run.scope"
    base.mkdir(parents=True)
    (base / "cgroup.controllers").write_text("cpu memory pids\n")
    (base / "cgroup.subtree_control").write_text("")
    (tmp_path / "own").write_text("4:memory:/old\n0::/user.slice/run.scope\n")
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    monkeypatch.setattr(memory, "OWN", tmp_path / "own")
    memory.home.cache_clear()
    yield base
    memory.home.cache_clear()


def made(base):
    return sorted(path for path in base.glob("ioi-grade-*"))


def test_a_group_is_found_and_the_grader_moves_out_of_its_way(groups):
    assert memory.home() == groups and memory.sentence() == memory.BY_GROUP
    assert (groups / "grader" / "cgroup.procs").read_text() == str(os.getpid())
    assert (groups / "cgroup.subtree_control").read_text() == "+memory"
    assert len(made(groups)) == 1, (
        "one was made as a trial; a folder of files, it stays here, unlike the kernel's"
    )


@pytest.mark.parametrize(
    "lacks", ["no line for cgroup v2", "no memory", "not ours", "no cgroup at all"]
)
def test_where_no_group_can_be_made_the_old_limits_count(
    groups, tmp_path, lacks, monkeypatch
):
    if lacks == "no line for cgroup v2":
        (tmp_path / "own").write_text("4:memory:/old\n")
    elif lacks == "no memory":
        (groups / "cgroup.controllers").write_text("cpu pids\n")
    elif lacks == "not ours":
        # whose rights do not suffice; a test may run as root, for whom they always do
        monkeypatch.setattr(
            memory.tempfile,
            "mkdtemp",
            lambda **where: (_ for _ in ()).throw(PermissionError()),
        )
    else:
        (groups / "cgroup.controllers").unlink()
    assert memory.home() is None and memory.sentence() == memory.BY_WATCH


def test_a_submission_is_in_its_group_with_its_limit(groups, server, small):
    before = set(made(groups)) if memory.home() else set()
    got = grade_one("a", notebook(), small, server, Limits(20, 0.5))
    (group,) = set(made(groups)) - before
    assert got.total == sum(ALL.values()) and got.status == "graded"
    assert (group / "memory.max").read_text() == str(2**29) and (
        group / "memory.swap.max"
    ).read_text() == "0"
    assert (group / "cgroup.procs").read_text() == "0", (
        "its supervisor has joined, before it forked anything"
    )


def test_what_the_group_has_had_is_what_is_said(groups, server, small, monkeypatch):
    monkeypatch.setattr(memory.Group, "peak", property(lambda group: 77 * 2**20))
    got = grade_one("a", notebook(), small, server, Limits(20, 0.5))
    assert got.memory == round((server.resident + 77 * 2**20) / 2**20)


def test_who_is_ended_by_the_kernel_reads_that_it_was_memory(
    groups, server, small, monkeypatch
):
    ends = instead_of(
        DOUBLE, "def double(x):\n    return 2 * x\nimport os\nos._exit(1)"
    )
    note = "was stopped with more than 0.5 GB of memory, and was left out"
    assert note not in " ".join(
        grade_one("a", ends, small, server, Limits(20, 0.5)).notes
    )
    monkeypatch.setattr(memory.Group, "overran", property(lambda group: True))
    assert note in " ".join(grade_one("a", ends, small, server, Limits(20, 0.5)).notes)


def test_the_kernels_files_are_read(groups):
    with memory.Group(groups, 1000) as group:
        assert (group.peak, group.overran) == (0, False), "a kernel that does not say"
        (group.path / "memory.peak").write_text("4096\n")
        (group.path / "memory.events").write_text("low 0\nmax 3\noom 0\noom_kill 0\n")
        assert (group.peak, group.overran) == (4096, False)
        (group.path / "memory.events").write_text("low 0\nmax 3\noom 1\noom_kill 1\n")
        assert group.overran


def test_a_group_that_cannot_be_joined_is_no_group(groups, server, small, monkeypatch):
    """The submission does not run outside of it: the grader fails, and says so."""
    monkeypatch.setattr(
        memory.Group, "door", lambda group: os.open(os.devnull, os.O_RDONLY)
    )
    with (
        Runner(server, Spent(Limits(20, 0.5)), threading.Event()) as runner,
        pytest.raises(Ended),
    ):
        runner.start("small", notebook(), [], cells=[], names=[], without=())


def test_without_a_group_shared_memory_is_watched(server, small, monkeypatch):
    monkeypatch.setattr(memory, "home", lambda: None)
    fill = (
        "import mmap, time\nm = mmap.mmap(-1, 2**30)\nfor i in range(0, 2**30, 4096):\n"
        "    m[i] = 1\ntime.sleep(60)"
    )
    got = grade_one("a", with_cell(fill), small, server, Limits(20, 0.5))
    assert "was stopped with more than 0.5 GB of memory" in " ".join(
        got.notes
    ) and got.total == sum(ALL.values())
