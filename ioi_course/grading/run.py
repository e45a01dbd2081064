"""Grade a class: who has changed since the last run, and everybody's table and page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
import hashlib
import os
import threading

from ioi_course.grading import sandbox
from ioi_course.grading.assignments import Assignment
from ioi_course.grading.grade import grade, untested
from ioi_course.grading.grades import Grade, load, load_all, override, save
from ioi_course.grading.server import Limits, Server
from ioi_course.grading.notebooks import Refused, clean_text, listed
from ioi_course.grading.submissions import Submission, file_name
from ioi_course.grading.table import write_platform_tables, write_report, write_table
from ioi_course.project import CourseError
import ioi_course


def check_machine(isolation: bool = True, as_root: bool = False) -> None:
    """CourseError where a submission could get out: as root, or on a kernel that
    lacks what keeps it in."""
    if os.geteuid() == 0 and not as_root:
        raise CourseError(
            "You are root, and what a submission might get hold of would be "
            "everything: grade as a user without rights, or give --as-root, as in a "
            "container that holds nothing else."
        )
    missing = sandbox.lacking() if isolation else []
    if missing:
        raise CourseError(
            f"This machine's kernel does not allow {listed(missing)}, which keep "
            "submissions in. Grade on another machine or in a virtual machine, or give "
            "--no-isolation, which marks every row."
        )


def key_of(assignment: Assignment, limits: Limits) -> str:
    """What a result came of, but for the submission: the autograder, the limits, and
    the source of this course."""
    found = hashlib.sha256(assignment.path.read_bytes() + repr(limits).encode())
    root = Path(ioi_course.__file__).parent
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep the folder from two runs at a time."""
    import fcntl

    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CourseError(
                f"Another run is grading into {out}. Wait until it has ended, or give "
                "another --out."
            ) from error
        yield


def grade_all(
    submissions: Sequence[Submission],
    assignment: Assignment,
    out: Path,
    jobs: int,
    limits: Limits = Limits(),  # noqa: B008
    on_grade: Callable[[Grade, bool], None] = lambda grade, new: (
        None
    ),  # called after each, in any order
    seed: int
    | None = None,  # of the hidden tests; who was graded with another is graded again
) -> list[Grade]:
    """Grade all that changed since the last run with this `out`; write grades.csv and
    the like, reports/ and results/.

    The tables hold everybody who was ever graded into this folder. results/ is for the
    instructor: it also holds what the hidden tests said.
    """
    for folder in (out / "results", out / "reports"):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(out):
        base = key_of(assignment, limits)
        keep_apart(submissions, load_all(out / "results"))
        waiting: list[tuple[Submission, bytes, str, str]] = []
        for one in submissions:
            known = load(out / "results" / f"{file_name(one.student)}.json")
            try:
                data, note = one.chosen(assignment.name)
                refused = ""
            except Refused as error:
                data, note, refused = b"", "", str(error)
            said = "\0".join(
                [base, one.student, one.id, str(one.late), note, refused]
            ).encode()
            key = hashlib.sha256(said + b"\0" + data).hexdigest()
            if (
                known is not None
                and known[1] == key
                and (seed is None or known[0].seed in (None, seed))
            ):
                on_grade(known[0], False)
            elif refused:
                nothing = grade_nothing(one, assignment, refused)
                save(nothing, out / "results", key)
                on_grade(nothing, True)
            else:
                waiting.append((one, data, note, key))
        if waiting:
            _grade(waiting, submissions, assignment, out, jobs, limits, on_grade, seed)
        grades = load_all(out / "results")
        wrong = override(grades, out / "overrides.csv")
        write_table(grades, out / "grades.csv")
        write_platform_tables(grades, out)
        for graded in grades:
            write_report(graded, out / "reports" / f"{file_name(graded.student)}.html")
    if wrong:  # what was graded is in the table, and so are the other lines
        raise CourseError("\n".join(wrong))
    now = {one.student for one in submissions}
    return [graded for graded in grades if graded.student in now]


def keep_apart(submissions: Sequence[Submission], known: Sequence[Grade]) -> None:
    """Call everybody as in the results that there are, and nobody as
    somebody else is called in them.

    Of two people of one name the second is called by name and number; handed in alone,
    they would be called by the name.
    """
    names = {graded.id: graded.student for graded in known if graded.id}
    taken = {graded.student: graded.id for graded in known}
    for one in submissions:
        if one.id and one.id in names:
            one.student = names[one.id]
        elif one.id and taken.get(one.student) not in (None, "", one.id):
            one.student = f"{one.student} {one.id}"


def grade_nothing(
    one: Submission, assignment: Assignment, reason: str, status: str = "refused"
) -> Grade:
    """The grade of who has no notebook that counts, with the reason."""
    return Grade(
        one.student,
        assignment.name,
        status,
        [reason],
        untested(assignment),
        id=one.id,
        late=one.late,
    )


def _grade(waiting, submissions, assignment, out, jobs, limits, on_grade, seed) -> None:
    secret = [
        assignment.path,
        out,
        *(path for one in submissions for path in one.paths),
    ]
    stop = threading.Event()
    with Server() as server, ThreadPoolExecutor(min(jobs, len(waiting))) as pool:

        def work(one: Submission, data: bytes, note: str, key: str) -> Grade:
            try:
                graded = grade(
                    one.student, data, assignment, server, limits, secret, stop, seed
                )
                graded.id, graded.late, graded.notes = (
                    one.id,
                    one.late,
                    [note, *graded.notes] if note else graded.notes,
                )
            except Exception as error:  # one submission must not end the run
                reason = f"{type(error).__name__}: {clean_text(error)}"
                graded, key = grade_nothing(one, assignment, reason, "failed"), ""
            save(graded, out / "results", key)
            return graded

        tasks = [pool.submit(work, *each) for each in waiting]
        try:
            for task in as_completed(tasks):
                on_grade(task.result(), True)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
