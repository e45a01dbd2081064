"""IPython's shell for a submission: a cell means what it means in a notebook, but for
what would leave the process."""

from __future__ import annotations

import builtins
from collections.abc import Callable

NOT_HERE = (
    "pip",
    "conda",
    "mamba",
    "micromamba",
    "uv",
    "sx",
    "system",
    "bash",
    "sh",
    "script",
    "perl",
    "ruby",
    "python",
    "python2",
    "python3",
    "pypy",
    "cmd",
)


ON_A_SCREEN = ("load_ext", "matplotlib")  # of what is not installed, or shows nothing


def make_shell(passed_over: Callable[[str], None]):
    """The shell; `passed_over` is told of each magic and shell line that does nothing
    here. It shows nothing, and keeps no history."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.text import SList
    from traitlets.config import Config

    shell = InteractiveShell.instance(
        config=Config({"HistoryManager": {"enabled": False}})
    )
    shell.showtraceback = shell.showsyntaxerror = lambda *args, **kwargs: None
    shell.enable_gui = lambda gui=None: None
    shell.ask_exit = lambda: passed_over("exit")
    run_line, run_cell = shell.run_line_magic, shell.run_cell_magic

    def skip(text: str) -> SList:
        passed_over(text)
        return SList([])

    def line(name: str, text: str = "", _stack_depth: int = 1):
        if name in NOT_HERE or shell.find_line_magic(name) is None:
            return skip(f"%{name} {text}".strip())
        try:
            return run_line(name, text, _stack_depth=_stack_depth + 1)
        except (ImportError, RuntimeError):
            if name not in ON_A_SCREEN:
                raise
            return skip(f"%{name} {text}")

    def cell(name: str, text: str, body: str):
        if name in NOT_HERE or shell.find_cell_magic(name) is None:
            return skip(f"%%{name} {text}".strip())
        return run_cell(name, text, body)

    shell.run_line_magic, shell.run_cell_magic = line, cell
    builtins.input = lambda prompt="": (passed_over("input()"), "")[1]
    shell.system = shell.system_raw = shell.system_piped = lambda command: (
        skip(f"!{command}") and None
    )
    shell.getoutput = lambda command, *args, **kwargs: skip(f"!{command}")
    return shell
