"""Every notebook is a regression test: run again, compared with its stored outputs; and
run on another model."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from cells import run_cells
from nbformat.v4 import new_code_cell, new_notebook

from ioi_course.publish.run import chapter_name, chapters, code_cells

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = {chapter_name(path, ROOT): path for path in chapters(ROOT)}
LIBRARY = {chapter_name(path, ROOT): path for path in chapters(ROOT, ["library"])}
EVERY = NOTEBOOKS | LIBRARY


def stage(nb: nbformat.NotebookNode, path: Path) -> Path:
    """Write a copy for nbval, which passes over cells without an execution count;
    nbdev's cleaning takes those away."""
    for count, cell in enumerate(code_cells(nb), 1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)
    return path


def run_nbval(path: Path, threads: int, kernel: str) -> subprocess.CompletedProcess:
    """Run nbval on one staged notebook in a process and a kernel of
    its own, on `synthetic`."""
    env = os.environ | {
        "IOI_COURSE_MODEL": "synthetic",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # threads that wait leave their core to the other test process
        "OMP_WAIT_POLICY": "PASSIVE",
        "TQDM_DISABLE": "1",  # on a busy machine a progress bar would be an output
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-kernel-name",
        kernel,
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-q",
        "--rootdir",
        str(path.parent),
    ]
    command += ["-c", os.devnull, path.name]
    return subprocess.run(
        command, cwd=path.parent, env=env, capture_output=True, text=True, timeout=1200
    )


@pytest.mark.parametrize("name", EVERY)
def test_outputs_are_the_stored_ones(name, tmp_path, kernel):
    """With one thread for one chapter and two for the next: what is
    stored depends on neither."""
    nb = nbformat.read(EVERY[name], as_version=4)
    result = run_nbval(
        stage(nb, tmp_path / "staged.ipynb"), 1 + list(EVERY).index(name) % 2, kernel
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert f"{len(code_cells(nb))} passed" in result.stdout, result.stdout[-2000:]


@pytest.mark.parametrize("ordinary", [False, True])
def test_a_changed_output_is_noticed(tmp_path, kernel, ordinary):
    nb = nbformat.read(NOTEBOOKS["index"], as_version=4)
    changed = next(
        (cell, output)
        for cell in code_cells(nb)
        for output in cell.outputs
        if any(
            digit.isdigit() for digit in output.get("data", {}).get("text/plain", "")
        )
    )[1]
    text = changed.data["text/plain"]
    digit = next(character for character in text if character.isdigit())
    changed.data["text/plain"] = text.replace(digit, str((int(digit) + 1) % 10), 1)
    result = run_nbval(
        stage(nb, tmp_path / "changed.ipynb"), 1, "python3" if ordinary else kernel
    )
    assert result.returncode == 1, result.stdout[-2000:]
    assert "1 failed" in result.stdout, result.stdout[-2000:]


@pytest.mark.gpt2_tokenizer
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_chapters_run_on_random_gpt2(name, narrow_gpt2):
    """Nothing in a chapter depends on the bundled model's size,
    vocabulary or head positions."""
    assert run_cells(NOTEBOOKS[name], str(narrow_gpt2)) is None


def test_a_cell_that_fails_is_told(tmp_path):
    cells = [
        new_code_cell(source)
        for source in ("x = 6 * 7", "display(x)", "assert x == 41, 'no'")
    ]
    for nb, told in [
        (cells[:2], None),
        (cells, "AssertionError: no"),
        ([new_code_cell("import os; os._exit(0)")], "ended"),
        ([new_code_cell("[0.1 + 0.2]")], "unrounded"),
        ([new_code_cell("print(0.1 + 0.2); [0.3]")], None),
    ]:
        nbformat.write(new_notebook(cells=nb), tmp_path / "nb.ipynb")
        failure = run_cells(tmp_path / "nb.ipynb", "synthetic")
        assert failure is None if told is None else told in failure


@pytest.mark.parametrize("name", EVERY)
def test_stored_notebook_is_fit_to_publish(name):
    path = EVERY[name]
    nb = nbformat.read(path, as_version=4)
    nbformat.validate(nb)
    assert path.stat().st_size < 1_000_000
    outputs = [output for cell in code_cells(nb) for output in cell.outputs]
    assert outputs, "stored without having run"
    assert not [
        output
        for output in outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert all(cell.execution_count is None for cell in code_cells(nb)), "not cleaned"
    longest = max(len(cell.source.splitlines()) for cell in code_cells(nb))
    assert longest <= 40, f"a code cell of {longest} lines"
    text = "".join(str(output) for output in outputs)
    for trace in (str(ROOT), str(Path.home()) + "/", "/tmp/", "Warning:"):
        assert trace not in text, f"{trace} in a stored output"
    first = nb.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# "), "no title"
    assert any(line.startswith("> ") for line in first.source.splitlines()), (
        "no summary line"
    )
