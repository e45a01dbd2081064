"""The seeds of hidden tests: nobody knows them before the cells of
a submission have run."""

# A hidden test makes its inputs from `drawn("q1_other_templates")`. That number comes
# of the seed of this grading and of the name, so that two tests of a submission share
# no inputs. The seed is drawn by our grader once the cells have run (`grade`), kept in
# the student's result, and handed to each judge, who has it from `begin`; who grades
# again with `--seed` gets the same inputs. In a notebook and on Gradescope, where
# nobody calls `begin`, a seed is drawn when the first test asks. All numbers below
# LARGEST may be drawn: tests/test_assignments.py tries the known answers, right and
# wrong, at as many as one likes.

from __future__ import annotations

import hashlib
import secrets

LARGEST = 2**31
_SEED: int | None = None


def draw() -> int:
    """A new seed for a grading, from the system's own source of chance."""
    return secrets.randbelow(LARGEST)


def begin(seed: int | None) -> None:
    """Have the tests of this process draw from this seed; with None, from a new one."""
    global _SEED
    _SEED = seed


def drawn(what: str) -> int:
    """A number from 0 to LARGEST - 1, for what a test calls `what`: in one
    grading always the same."""
    if _SEED is None:
        begin(draw())
    return (
        int.from_bytes(hashlib.sha256(f"{_SEED} {what}".encode()).digest()[:8], "big")
        % LARGEST
    )
