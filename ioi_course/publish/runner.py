"""A run of the course: chapters side by side, their pages, and a report,
whatever befalls one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from nbformat import NotebookNode

from ioi_course.machine import threads_of
from ioi_course.project import settings
from ioi_course.publish.run import (
    Failure,
    Verdict,
    chapter_name,
    chapters,
    code_cells,
    execute,
    save_outputs,
    write_file,
    write_report,
)
from ioi_course.publish.mend import read_notebook
from ioi_course.publish.collect import claims_of, write_claims
from ioi_course.publish.pages import (
    Page,
    page_of,
    text_pages,
    write_assets,
    write_page,
    write_text_page,
)
from ioi_course.publish.warm import warm_kernels
from ioi_course.publish.welcome import (
    Outcome,
    Sheet,
    bare_page,
    entries,
    write_index,
    write_report_page,
)


class CourseRun:
    """Notebooks of the course, what came of each, and what could not be
    written (`problems`)."""

    def __init__(
        self,
        root: Path,  # the project's folder
        out: Path,  # the folder for pages and report
        paths: list[Path],  # the notebooks to run
        model: str,  # the name of the model that they run on
        timeout: int = 600,  # seconds that one cell may take
        save: bool = False,  # whether outputs are also stored in the notebooks
    ):
        self.root, self.out, self.model, self.timeout, self.save = (
            root,
            out,
            model,
            timeout,
            save,
        )
        self.paths = {chapter_name(path, root): path for path in paths}
        self.outcomes: dict[str, Outcome] = {}
        self.claims: dict[str, dict] = {}  # key: what an executed chapter claims
        self.problems: list[str] = []
        self._stop = threading.Event()
        course = {chapter_name(path, root): path for path in [*chapters(root), *paths]}
        sources = {name: _read(path) for name, path in course.items()}
        self.cells = {
            name: len(code_cells(sources[name])) if sources[name] else 0
            for name in self.paths
        }
        self.pages = {
            name: _page(path, root, sources[name]) for name, path in course.items()
        }
        self.entries = entries(sources, self.pages)
        self.texts = text_pages(root)

    @property
    def verdicts(self) -> list[Verdict]:
        """In reading order."""
        return [
            self.outcomes[name].verdict for name in self.paths if name in self.outcomes
        ]

    @property
    def failures(self) -> list[Failure]:
        """In reading order."""
        done = (self.outcomes[name] for name in self.paths if name in self.outcomes)
        return [outcome.failure for outcome in done if outcome.failure]

    def prepare(self) -> None:
        """Write what all pages share, and the pages that are not chapters."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._try("What the pages share", lambda: write_assets(self.root, self.out))
        for path in self.texts:
            self._try(
                f"The page of {path.name}",
                lambda path=path: write_text_page(path, self.out),
            )

    def execute(
        self,
        jobs: int = 1,  # chapters at a time
        on_start: Callable[[str], None] = lambda name: None,
        on_cell: Callable[[], None] = lambda: None,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """Execute chapters; write page and report as each is done; when
        interrupted, end the rest."""

        def one(
            name: str, kernel: str
        ) -> tuple[NotebookNode | None, Verdict, Failure | None]:
            on_start(name)
            try:
                return execute(
                    self.paths[name],
                    self.root,
                    self.timeout,
                    on_cell,
                    threads_of(jobs),
                    self._stop,
                    kernel,
                )
            except Exception as error:  # such as a file that is no notebook
                return (
                    None,
                    Verdict(name, 0, 0.0, False),
                    Failure(name, None, "", _told(error)),
                )

        pool, tasks = ThreadPoolExecutor(jobs), {}
        with warm_kernels(shared=True) as kernel:
            try:
                tasks = {pool.submit(one, name, kernel): name for name in self.paths}
                for task in as_completed(tasks):
                    on_outcome(self._record(tasks[task], *task.result()))
            finally:
                done = [task for task in tasks if task.done()]
                if len(self.outcomes) < len(self.paths):
                    self._stop.set()
                pool.shutdown(cancel_futures=True)
                for name, task in [(tasks[task], task) for task in done]:
                    # interrupted before its page was written
                    if name not in self.outcomes:
                        self._record(name, *task.result())

    def _record(
        self,
        name: str,
        nb: NotebookNode | None,
        verdict: Verdict,
        failure: Failure | None,
    ) -> Outcome:
        """Write a chapter's page and the report up to it; what goes wrong is
        this chapter's failure."""
        self.claims |= claims_of(nb) if nb else {}
        problem = self._write_page(name, nb, failure) if nb else failure.reason
        if problem:
            self._stand_in(name, problem)
        elif self.save and failure is None:
            problem = _problem(
                "The outputs could not be stored",
                lambda: save_outputs(nb, self.paths[name]),
            )
        if problem and failure is None:
            failure = Failure(name, None, "", problem)
            verdict = replace(verdict, ok=False)
        outcome = self.outcomes[name] = Outcome(verdict, failure)
        self._report()
        return outcome

    def _write_page(
        self, name: str, nb: NotebookNode, failure: Failure | None
    ) -> str | None:
        notice = (
            (
                f"In this run the chapter stopped {_at(failure)}: the page shows how "
                "far it came."
            )
            if failure
            else None
        )
        before, after = self._neighbours(name)
        page, site = self.pages[name], settings(self.root).get("doc_url", "")
        return _problem(
            "The page could not be written",
            lambda: write_page(nb, page, self.out, before, after, notice, site),
        )

    def _neighbours(self, name: str) -> tuple[Page | None, Page | None]:
        """The pages before and after one in the course, of those that
        are there or will be."""
        names = [
            each
            for each in self.pages
            if each in self.paths or (self.out / self.pages[each].href).exists()
        ]
        i = names.index(name)
        return (
            self.pages[names[i - 1]] if i else None,
            self.pages[names[i + 1]] if i + 1 < len(names) else None,
        )

    def _stand_in(self, name: str, reason: str) -> None:
        """Put a plain page where a chapter's page would be, so that links
        to it lead somewhere."""
        page = self.pages[name]
        text = bare_page(
            page.title, reason, home="../" * page.href.count("/") + "index.html"
        )
        self._try(f"A page for {name}", lambda: write_file(self.out / page.href, text))

    def _report(self) -> None:
        self._try(
            "report.json", lambda: write_report(self.verdicts, self.out / "report.json")
        )
        self._try(
            "claims.json",
            lambda: write_claims(self.out / "claims.json", self.model, self.claims),
        )

    def finish(self, extra: Page | None = None) -> Path:
        """Write report.json, report.html and index.html from what was
        done; the last one's path."""
        self._report()
        for name in self.paths.keys() - self.outcomes.keys():
            if not (self.out / self.pages[name].href).exists():
                self._stand_in(
                    name, "This chapter was not executed: the run was stopped before."
                )
        shown = {
            name for name, page in self.pages.items() if (self.out / page.href).exists()
        }
        texts = [
            page for page in self.texts.values() if (self.out / page.href).exists()
        ]
        sheet = Sheet(
            self.entries,
            self.outcomes,
            set(self.paths),
            shown,
            self.model,
            texts,
            extra,
        )
        for what, write in (
            ("report.html", write_report_page),
            ("index.html", write_index),
        ):
            if not self._try(what, lambda write=write: write(sheet, self.out)):
                text = bare_page("The course, executed", *self._lines())
                self._try(
                    f"A plain {what}",
                    lambda what=what, text=text: write_file(self.out / what, text),
                )
        return self.out / "index.html"

    def _lines(self) -> list[tuple[str, str]]:
        """Each chapter's verdict and page, for an index without its template."""
        verdict = {
            name: "passed" if outcome.verdict.ok else "failed"
            for name, outcome in self.outcomes.items()
        }
        return [
            (f"{entry.title}: {verdict.get(entry.name, 'not run')}", entry.href)
            for entry in self.entries
        ]

    def _try(self, what: str, write: Callable[[], object]) -> bool:
        """Write something; if it fails, remember why and go on."""
        if problem := _problem(f"{what} could not be written", write):
            self.problems.append(problem)
        return not problem


def _problem(what: str, write: Callable[[], object]) -> str | None:
    """Call a function; if it raises, what happened and why."""
    try:
        write()
    except Exception as error:  # whatever it is, it costs this one thing only
        return f"{what}: {_told(error)}"
    return None


def _told(error: Exception) -> str:
    """An error in one line, with its kind where its text alone would say little."""
    return (
        str(error)
        if isinstance(error, ValueError) and " " in str(error)
        else f"{type(error).__name__}: {error}"
    )


def _at(failure: Failure) -> str:
    return (
        "before its first cell"
        if failure.cell is None
        else f"at cell {failure.cell + 1}"
    )


def _read(path: Path) -> NotebookNode | None:
    """A notebook; None where the file holds none, which is said when its turn comes."""
    try:
        return read_notebook(path)
    except Exception:
        return None


def _page(path: Path, root: Path, nb: NotebookNode | None) -> Page:
    return (
        page_of(path, root, nb)
        if nb
        else Page(chapter_name(path, root), f"{chapter_name(path, root)}.html")
    )
