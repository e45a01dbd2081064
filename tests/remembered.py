"""Cases, and what solution and misconceptions give on them: computed once, though
dozens of wrong answers are checked.

Each verdict on a wrong answer compares it with the solution and with every
misconception, on cases of which some take seconds to make. That the same seed gives the
same cases is tested in `test_checks.py`.
"""

from collections import OrderedDict
from dataclasses import replace

from ioi_course.checks import core

MOST = 4  # exercises and seeds that are kept


class Remembered:
    """Stands between the checks and what they compute, in one process."""

    def __init__(self):
        self.kept = OrderedDict()  # (exercise, seed): its cases
        self.given = {}  # id of a case: {function: what it gave, or how it was stopped}
        self.call, self.run = core.Exercise.__call__, core.run

    def cases(self, exercise, seed):
        key = exercise, seed
        if key not in self.kept:
            self.kept[key] = list(exercise.cases(seed))
            self.given |= {id(case): {} for case in self.kept[key]}
        self.kept.move_to_end(key)
        while len(self.kept) > MOST:
            for case in self.kept.popitem(last=False)[1]:
                self.given.pop(id(case), None)
        return self.kept[key]

    def check(self, exercise, answer, seed=0):
        cases = self.cases(exercise, seed)
        return self.call(replace(exercise, cases=lambda seed: cases), answer, seed)

    def once(self, function, case, outcome=None):
        given = self.given.get(id(case))
        if given is None:
            return self.run(function, case, outcome)
        if function not in given:
            try:
                given[function] = self.run(function, case, outcome)
            except core.Stopped as stopped:
                given[function] = stopped
        if isinstance(given[function], core.Stopped):
            raise given[function]
        return given[function]


REMEMBERED = Remembered()


def remember(monkeypatch) -> None:
    """Have the checks remember, until the test ends; what they know is
    kept for the next one."""
    monkeypatch.setattr(
        core.Exercise,
        "__call__",
        lambda *given, **named: REMEMBERED.check(*given, **named),
    )
    monkeypatch.setattr(core, "run", REMEMBERED.once)
