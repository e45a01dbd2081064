"""What students hand in: find who handed in what, read the notebooks, refuse what is
none. One odd file costs one student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
import hashlib
import os
import re
import stat
import zipfile

import yaml

from ioi_course.grading.notebooks import (
    LARGEST,
    Refused,
    check_size,
    clean_text,
    listed,
    read_cells,
)
from ioi_course.project import CourseError

# bytes that are read of one student's uploads, in search of the one that fits
ALTOGETHER = 4 * LARGEST
ANY = re.IGNORECASE | re.DOTALL  # a name may have a line break in it
NOTEBOOK = re.compile(r".+\.ipynb(\.txt|\.json)?", ANY)
WORK = re.compile(
    r".+\.(pdf|py|zip|html?|docx?|odt|rtf|txt|rar|7z|tar|t?gz|png|jpe?g)", ANY
)
# How learning platforms call an upload: the student, a number that is the person's own
# there, and what grows with time.
CANVAS = re.compile(
    r"(?P<student>[^_]+)_(?P<late>LATE_)?(?P<id>\d+)_(?P<upload>\d+)_(?P<file>.+)",
    re.DOTALL,
)
MOODLE = re.compile(
    r"(?P<student>.+?)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<file>.*)",
    re.DOTALL,
)
GRADESCOPE = re.compile(r"submission_(?P<upload>\d+)")


@dataclass(frozen=True)
class Upload:
    """One file that was handed in, or one notebook inside a zip."""

    path: Path
    member: str = ""  # inside the zip
    order: tuple[float, ...] = (0,)  # the larger the newer

    @property
    def name(self) -> str:
        return f"{self.path.name}: {self.member}" if self.member else self.path.name

    def read(self) -> bytes:
        """The file's bytes; its size is looked at first, and a link is not followed."""
        try:
            look = os.lstat(self.path)
            if stat.S_ISLNK(look.st_mode):
                raise Refused(
                    f"{self.name} is a link to another file, which is not followed."
                )
            if not stat.S_ISREG(look.st_mode):
                raise Refused(f"{self.name} has a notebook's name and is no file.")
            if self.member:
                with zipfile.ZipFile(self.path) as archive:
                    check_size(self.name, archive.getinfo(self.member).file_size)
                    with archive.open(self.member) as file:
                        return file.read(LARGEST + 1)
            check_size(self.name, look.st_size)
            return self.path.read_bytes()
        except Refused:
            raise
        except Exception as error:
            # an unreadable file, or a zip that is broken or has a password
            raise Refused(f"{self.name} cannot be read: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    return (
        (getattr(error, "strerror", None) or f"{type(error).__name__}: {error}")
        .splitlines()[0][:200]
        .rstrip(".")
    )


@dataclass
class Submission:
    """What a student handed in: the uploads, newest first, or what is in
    the place of a notebook."""

    student: str
    uploads: list[Upload] = field(default_factory=list)
    # names of files that are no notebooks
    other: list[str] = field(default_factory=list)
    id: str = ""  # the person's number on the learning platform
    late: bool = False

    @property
    def paths(self) -> set[Path]:
        return {upload.path for upload in self.uploads}

    def chosen(self, assignment: str) -> tuple[bytes, str]:
        """The newest notebook that fits the assignment, and a note where that was a
        choice; raises Refused."""
        if not self.uploads:
            what = (
                (
                    "only "
                    f"{listed(clean_text(name, 80) for name in sorted(self.other)[:5])}"
                )
                if self.other
                else "no file"
            )
            raise Refused(f"No notebook was handed in, {what}.")
        refused: list[str] = []
        room = ALTOGETHER
        for upload in self.uploads:
            try:
                if room <= 0:
                    break
                data = upload.read()
                room -= len(data)
                read_cells(data, assignment)
            except Refused as error:
                refused.append(str(error))
                continue
            named = clean_text(upload.name, 120)
            if len(self.uploads) > 1:
                return (
                    data,
                    (
                        f"{len(self.uploads)} notebooks were handed in; {named} is the "
                        "newest that fits."
                    ),
                )
            usual = upload.path.name.endswith(".ipynb")
            return data, "" if usual else f"Read from {named}."
        how_many = f"None of {len(refused)} notebooks fits"
        if len(refused) < len(self.uploads):
            how_many = (
                f"{how_many}, and the other {len(self.uploads) - len(refused)} "
                "were not read"
            )
        raise Refused(
            refused[0] if len(self.uploads) == 1 else f"{how_many}. {refused[0]}"
        )


def find_submissions(paths: Iterable[Path], assignment: str) -> list[Submission]:
    """Who handed in what. A folder may hold files, or a folder for each student, as
    learning platforms export.

    A student is called as the platform calls them, or as the file is, or as the folder
    where the file alone would not tell. Uploads of one person are joined.
    """
    found: dict[tuple[str, str], Submission] = {}

    def add(at: Path, student: str, files: Sequence[Path], order: float = 0.0) -> None:
        known = CANVAS.fullmatch(student) or MOODLE.fullmatch(student)
        parts = known.groupdict() if known else {}
        name = parts.get("student", student).strip() or student
        number = parts.get("id", "")
        # ann.ipynb of two sections are two people
        key = (number, "") if number else ("", str(at / name))
        one = found.setdefault(key, Submission(clean_text(name), id=number))
        newer = float(parts.get("upload", 0)), order
        one.late |= bool(parts.get("late")) and newer >= max(
            (u.order[:2] for u in one.uploads), default=newer
        )
        for path in files:
            uploads = _uploads(path, newer)
            one.uploads += [upload for upload in uploads if upload not in one.uploads]
            one.other += [] if uploads else [path.name]

    for path in paths:
        if os.path.isdir(path):
            people = _gradescope(path)
            for entry in sorted(path.iterdir()):
                if entry.name.startswith((".", "__MACOSX")):
                    continue
                if (
                    entry.is_dir()
                    and not entry.is_symlink()
                    and not NOTEBOOK.fullmatch(entry.name)
                ):
                    student, order = people.get(entry.name, (entry.name, 0.0))
                    add(path, student, _inside(entry), order)
                elif NOTEBOOK.fullmatch(entry.name) or (
                    WORK.fullmatch(entry.name) and "readme" not in entry.name.lower()
                ):
                    add(path, _stem(entry.name), [entry])
        elif os.path.lexists(path):
            path = path.absolute()
            stem = _stem(path.name)
            add(path.parent, path.parent.name if stem == assignment else stem, [path])
        else:
            raise CourseError(f"There is no file or folder {path}.")
    if not found:
        raise CourseError(
            "Nothing was handed in: there is no notebook, and no folder of a student."
        )
    for one in found.values():
        one.uploads.sort(key=lambda upload: upload.order, reverse=True)
    return _told_apart(sorted(found.values(), key=lambda one: (one.student, one.id)))


def _stem(name: str) -> str:
    """A file's name without its ending; Canvas' and Moodle's names as a whole."""
    if CANVAS.fullmatch(name) or MOODLE.fullmatch(name):
        return name
    return re.sub(r"(\.ipynb)?\.\w+$", "", name, flags=re.IGNORECASE) or name


def _inside(folder: Path) -> list[Path]:
    """All entries of a student's folder that are not hidden; no link is followed."""
    found = []
    for at, folders, names in os.walk(folder, onerror=lambda error: None):
        inside = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        odd = [name for name in inside if NOTEBOOK.fullmatch(name)]
        folders[:] = [name for name in inside if name not in odd]
        found += [Path(at, name) for name in [*names, *odd] if not name.startswith(".")]
    return sorted(found)


def _uploads(path: Path, newer: tuple[float, float]) -> list[Upload]:
    """The notebooks that a path is, or that a zip has inside."""
    try:
        look = os.lstat(path)
        if NOTEBOOK.fullmatch(path.name):
            return [Upload(path, order=(*newer, look.st_mtime))]
        if path.suffix.lower() == ".zip" and look.st_size > LARGEST:
            return [Upload(path, order=(*newer, look.st_mtime))]  # refused when read
        if path.suffix.lower() == ".zip" and stat.S_ISREG(look.st_mode):
            with zipfile.ZipFile(path) as archive:
                parts = [
                    (info, info.filename.split("/"))
                    for info in archive.infolist()
                    if not info.is_dir()
                ]
                inside = [
                    info
                    for info, at in parts
                    if not any(
                        part.startswith((".", "__MACOSX")) and part.strip(".")
                        for part in at
                    )
                ]
                return [
                    Upload(
                        path,
                        info.filename,
                        (*newer, look.st_mtime, *map(float, info.date_time)),
                    )
                    for info in inside
                    if NOTEBOOK.fullmatch(info.filename)
                ]
    except Exception:  # noqa: BLE001  a broken zip, a file that has gone: no notebook
        return []
    return []


def _gradescope(folder: Path) -> dict[str, tuple[str, float]]:
    """The folder of an upload -> its student and when, from the list that
    Gradescope exports beside them."""
    try:
        said = yaml.safe_load(
            (folder / "submission_metadata.yml").read_text(encoding="utf-8")
        )
        people = {}
        for name, one in said.items():
            who = one[":submitters"][0]
            upload = GRADESCOPE.fullmatch(name)
            people[name] = (
                str(who.get(":name") or who[":email"]),
                float(upload["upload"]) if upload else 0.0,
            )
        return people
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        yaml.YAMLError,
    ):
        return {}


def _told_apart(found: list[Submission]) -> list[Submission]:
    """Two people of one name get their numbers, or an ordinal, behind it."""
    seen: set[str] = set()
    for one in found:
        name, i = one.student, 1
        if name in seen and one.id:
            one.student = name = f"{name} {one.id}"
        while one.student in seen:
            i += 1
            one.student = f"{name} ({i})"
        seen.add(one.student)
    return found


def file_name(student: str) -> str:
    """A name for a student's files: what every file system takes, and for two
    students never the same."""
    plain = re.sub(r"[^\w .,()+=@-]", "_", student).strip(" .") or "_"
    if plain == student and len(plain.encode()) <= 100 and plain == plain.lower():
        return plain
    short = plain.encode()[:80].decode(errors="ignore")
    return f"{short}~{hashlib.sha256(student.encode()).hexdigest()[:8]}"
