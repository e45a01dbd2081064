"""The cells of a notebook, run one by one in a process of their own that starts with
the course's imports made."""

import io
import multiprocessing
import os
import re
import traceback
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path

import nbformat

from ioi_course.publish.run import code_cells

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["cells", "transformer_lens", "ioi_course.checks", "ioi_course.universality"]
)


# what a number in float32 looks like if nobody rounds it: 5.400000095367432
UNROUNDED = re.compile(r"\d\.\d{8}")


def run_cells(path: Path, model: str, timeout: float = 1200) -> str | None:
    """Run a notebook's code cells on a model: the first failing cell with its
    traceback, or the first that shows a number with all its digits; None if all
    pass."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_run, args=(sender, path, model))
    process.start()
    sender.close()
    try:
        if not receiver.poll(timeout):
            process.kill()
            return f"not done after {timeout} s"
        return receiver.recv()
    except EOFError:
        return "the process ended"
    finally:
        process.join()


def _run(sender: Connection, path: Path, model: str) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    os.environ |= {"IOI_COURSE_MODEL": model, "TQDM_DISABLE": "1"}
    os.chdir(path.parent)
    # its results are formatted in all ways, as a kernel's are
    shell = InteractiveShell.instance()
    shell.showtraceback = lambda *_, **__: None
    for cell in code_cells(nbformat.read(path, as_version=4)):
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            result = shell.run_cell(cell.source, store_history=True)
        if error := result.error_before_exec or result.error_in_exec:
            return sender.send(
                f"{cell.source}\n{''.join(traceback.format_exception(error))}"
            )
        shown = result.result
        plain = isinstance(shown, float | list | tuple | dict)
        if plain and UNROUNDED.search(repr(shown)):
            return sender.send(f"{cell.source}\nshows an unrounded number: {shown!r}")
    sender.send(None)
