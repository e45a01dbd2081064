"""`ioi-course grade`: grade notebooks."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ioi_course.project import CourseError
from ioi_course.terminal import Root, console, progress_bar, stop


OTHER_SYSTEMS = (
    "Grading needs Linux, whose kernel keeps submissions in. On a Mac run the same "
    "command in a container with Linux (Docker Desktop, Podman or Lima), on Windows "
    "in WSL 2."
)


def grade(
    submissions: Annotated[
        list[Path],
        typer.Argument(
            metavar="SUBMISSION...", help="Notebooks, and folders that hold notebooks."
        ),
    ],
    assignment: Annotated[
        str,
        typer.Option(
            help="The name of an assignment that `make assignments` built, or an "
            "autograder zip."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The folder for grades.csv, reports/ and results/.")
    ],
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Submissions at a time; as many as cores and memory allow if "
            "not given.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(min=1, help="Seconds for one cell, or the tests of one question."),
    ] = 60,
    memory: Annotated[
        float, typer.Option(min=0.1, help="GB that a submission may use.")
    ] = 4,
    isolation: Annotated[
        bool,
        typer.Option(
            help="Refuse where the kernel cannot keep a submission in; without, each "
            "row says so."
        ),
    ] = True,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Draw hidden inputs from this seed, kept in results/, to grade "
            "as before.",
        ),
    ] = None,
    as_root: Annotated[
        bool, typer.Option("--as-root", help="Grade although you are root.")
    ] = False,
    root: Root = None,
) -> None:
    """Grade notebooks, each in processes of its own without network; a second run
    grades only what changed."""
    if not sys.platform.startswith("linux"):
        raise stop(CourseError(OTHER_SYSTEMS))
    from ioi_course.grading import memory as groups
    from ioi_course.grading.assignments import find_assignment, read_assignment
    from ioi_course.grading.grade import default_jobs
    from ioi_course.grading.grades import Grade
    from ioi_course.grading.run import check_machine, grade_all
    from ioi_course.grading.server import GradingError, Limits
    from ioi_course.grading.submissions import find_submissions

    start, news = time.perf_counter(), []
    # whoever stops us finds nothing left behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_machine(isolation, as_root)
        tests = read_assignment(find_assignment(assignment, root))
        found = find_submissions(submissions, tests.name)
        jobs = jobs or default_jobs(memory)
        with progress_bar("submissions") as progress:
            bar = progress.add_task("grading", total=len(found))

            def show(graded: Grade, new: bool) -> None:
                progress.advance(bar)
                news.append(new)

            grades = grade_all(
                found, tests, out, jobs, Limits(timeout, memory, isolation), show, seed
            )
    except (CourseError, GradingError, OSError) as error:
        raise stop(error) from error
    except KeyboardInterrupt as error:
        console.print(
            "Stopped. What was graded is kept, and the same command goes on "
            "from there.",
            highlight=False,
        )
        raise typer.Exit(130) from error
    console.print(_grade_table(grades))
    took = time.perf_counter() - start
    console.print(
        f"Graded {sum(news)} of {len(news)}, the others had not changed; took "
        f"{took:.0f} s. The points are in {out / 'grades.csv'}, the reports in "
        f"{out / 'reports'}.",
        highlight=False,
        soft_wrap=True,
    )
    if any(news):
        console.print(groups.sentence(), highlight=False, soft_wrap=True)
    if lacking := sorted({what for graded in grades for what in graded.lacking}):
        console.print(
            f"Graded without {' and '.join(lacking)}: Python's audit hook alone kept "
            "submissions in, and that is no wall.",
            style="yellow",
        )
    raise typer.Exit(1 if any(graded.status == "failed" for graded in grades) else 0)


def _grade_table(grades: list) -> Table:
    table = Table(title="Grades")
    for column, justify in [
        ("student", "left"),
        ("total", "right"),
        ("of", "right"),
        ("status", "left"),
    ]:
        table.add_column(column, justify=justify, overflow="fold")
    colour = {"graded": "green", "failed": "red"}
    for graded in grades:
        points = f"{graded.total:g}", f"{graded.possible:g}"
        table.add_row(
            Text(graded.student),
            *points,
            Text(graded.status, colour.get(graded.status, "yellow")),
        )
    return table
