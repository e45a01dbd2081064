"""The machinery of the checks, and what every exercise of the course owes it."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from ioi_course import checks
from ioi_course.checks import core
from ioi_course.checks.core import (
    Exercise,
    Misconception,
    Stopped,
    clue,
    plain,
    random_data,
    random_model,
    run,
    same,
)

EXERCISES = {
    name: value for name, value in vars(checks).items() if isinstance(value, Exercise)
}


def mean_of_squares(x):
    """The mean of x squared over the last axis."""
    return (x**2).mean(dim=-1)


def square_cases(seed):
    rng = torch.Generator().manual_seed(seed)
    return [(torch.randn(*shape, generator=rng),) for shape in [(3, 4), (1, 4), (5, 2)]]


SQUARES = Exercise(
    number="0.1",
    title="Mean of squares",
    solution=mean_of_squares,
    cases=square_cases,
    misconceptions=(
        Misconception(
            "mean over the wrong axis",
            "Which axis is left?",
            lambda x: (x**2).mean(dim=0),
        ),
        Misconception(
            "square of the mean", "Square first.", lambda x: x.mean(dim=-1) ** 2
        ),
    ),
)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: (x * x).sum(dim=1) / x.shape[1],
        lambda x: x.numpy().__pow__(2).mean(axis=1),
        lambda x: [sum(v * v for v in row) / len(row) for row in x.tolist()],
        lambda x: x.double().square().mean(1),
    ],
    ids=["sum over n", "numpy", "list of floats", "double"],
)
def test_a_right_answer_passes_in_any_style(answer):
    verdict = SQUARES(answer)
    assert verdict.passed and verdict and verdict.kind == "passed", verdict


def test_a_misconception_is_recognised_by_what_it_computes():
    def squared_mean(x):
        return torch.tensor([float(np.mean(row)) ** 2 for row in x.numpy()])

    verdict = SQUARES(squared_mean)
    assert (
        not verdict
        and verdict.kind == "misconception"
        and verdict.misconception == "square of the mean"
    )
    assert "Square first." in repr(
        verdict
    ) and "✗ Exercise 0.1 · Mean of squares" in repr(verdict)
    assert "Square first." in verdict._repr_html_()


def test_a_misconception_must_explain_every_case():
    def wrong_on_some(x):
        return mean_of_squares(x) if len(x) == 5 else x.mean(dim=-1) ** 2

    verdict = SQUARES(wrong_on_some)
    assert verdict.kind == "wrong" and "right on 1 of 3 cases" in verdict.message


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (lambda x: None, "not written", "returns nothing"),
        (lambda x: ..., "not written", "returns nothing"),
        (lambda x: x.no_such_thing, "raised", "AttributeError"),
        (lambda x, y: x, "raised", "missing a required argument"),
        (lambda: 0, "raised", "too many positional arguments"),
        (
            lambda x: x.mul_(x).mean(dim=-1),
            "side effect",
            "changed its argument 'x' in place",
        ),
        (lambda x: -mean_of_squares(x), "wrong", "opposite sign"),
        (lambda x: 2 * mean_of_squares(x), "wrong", "2 times"),
        (
            lambda x: mean_of_squares(x)[:, None],
            "wrong",
            "shape [3, 1], expected is [3]",
        ),
        (lambda x: mean_of_squares(x) * torch.nan, "wrong", "NaN in 3 of 3"),
        (lambda x: mean_of_squares(x).mean(), "wrong", "the shape []"),
        (lambda x: "4", "wrong", "a text; expected is numbers of shape [3]"),
        (lambda x: x**2, "wrong", "shape [3, 4]"),
    ],
)
def test_what_else_is_said(answer, kind, says):
    verdict = SQUARES(answer)
    assert verdict.kind == kind and says in verdict.message, verdict


def test_a_stub_that_raises_is_not_written_yet():
    def stub(x):
        raise NotImplementedError

    assert SQUARES(stub).kind == "not written"


def test_an_error_is_shown_with_the_line_of_the_answer_not_of_a_library():
    def broken(x):
        rows = x.tolist()
        return torch.stack(rows)

    verdict = SQUARES(broken)
    assert verdict.kind == "raised" and "TypeError" in verdict.message
    assert "`return torch.stack(rows)`" in verdict.message


def test_an_answer_that_was_called_is_refused():
    with pytest.raises(
        TypeError, match="give the function itself, not what it returned \\(float\\)"
    ):
        SQUARES(1.0)


def test_an_interrupt_is_not_a_verdict():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SQUARES(interrupted)


def test_the_check_leaves_no_trace_in_random_numbers():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    SQUARES(lambda x: torch.manual_seed(0) and mean_of_squares(x))
    assert torch.equal(torch.rand(3), expected)


def test_another_seed_asks_about_other_cases():
    remembered = iter([mean_of_squares(*case) for case in square_cases(0)])
    assert SQUARES(lambda x: next(remembered), seed=0)
    remembered = iter([mean_of_squares(*case) for case in square_cases(0)])
    assert not SQUARES(lambda x: next(remembered), seed=1)


def test_hooks_that_an_answer_leaves_are_noticed_and_taken_off():
    model = random_model()
    data = random_data(model, 2)

    def first_layer(model, tokens):
        kept = []
        with torch.no_grad():
            model.run_with_hooks(
                tokens,
                fwd_hooks=[
                    ("blocks.0.hook_resid_post", lambda x, hook: kept.append(x))
                ],
            )
        return kept[0]

    def careless(model, tokens):
        kept = []
        model.add_hook("blocks.0.hook_resid_post", lambda x, hook: kept.append(x))
        model(tokens)
        return kept[0]

    exercise = Exercise(
        "0.2", "Read", first_layer, lambda seed: [(model, data.tokens)], ()
    )
    assert exercise(first_layer)
    verdict = exercise(careless)
    assert verdict.kind == "side effect" and "hooks on the model" in verdict.message
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_a_changed_cache_is_noticed():
    model = random_model()
    data = random_data(model, 2)
    _, cache = model.run_with_cache(
        data.tokens, names_filter=["blocks.0.hook_resid_post"]
    )
    before = cache["blocks.0.hook_resid_post"].clone()

    def in_place(cache):
        return cache["blocks.0.hook_resid_post"].mul_(2)

    with pytest.raises(Stopped, match="'cache' in place"):
        run(in_place, (cache,))
    assert torch.equal(cache["blocks.0.hook_resid_post"], before)


def test_plain_form():
    assert torch.equal(
        plain([(9, 9), [9, 6]]),
        torch.tensor([[9.0, 9.0], [9.0, 6.0]], dtype=torch.float64),
    )
    assert torch.equal(plain(np.float32(2)), torch.tensor(2.0, dtype=torch.float64))
    assert (
        plain({(9, 9): 1.0}).keys() == plain({(np.int64(9), torch.tensor(9)): 1}).keys()
    )
    assert plain({(9, 9), (9, 6)}) == plain({(9, 6), (9, 9)})
    assert plain(["L9H9", "L9H6"]) == ["L9H9", "L9H6"]
    assert isinstance(plain([[1], [1, 2]]), list)
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=["p", "q"])
    assert same(plain(frame), plain(frame.copy()), 1e-4)
    assert not same(plain(frame), plain(frame.assign(a=[1, 3])), 1e-4)


def test_sameness_has_a_tolerance_that_is_absolute_below_one_and_relative_above():
    assert same(plain(1e-5), plain(0.0), 1e-4) and not same(
        plain(1e-3), plain(0.0), 1e-4
    )
    assert same(plain(1000.05), plain(1000.0), 1e-4) and not same(
        plain(1001.0), plain(1000.0), 1e-4
    )
    assert not same(plain("1"), plain(1), 1e-4) and not same(
        plain([1.0]), plain(1.0), 1e-4
    )


def test_clues_about_form():
    assert "another order" in clue(plain(torch.ones(3, 2)), plain(torch.ones(2, 3)))
    square = torch.arange(9.0).reshape(3, 3)
    assert "transpose" in clue(plain(square.T), plain(square))
    assert "lack ['b']" in clue(plain({"a": 1}), plain({"a": 1, "b": 2}))
    assert "Under 'b'" in clue(plain({"a": 1, "b": 3}), plain({"a": 1, "b": 2}))
    assert "'L9H9'" in clue(plain("L9H9"), plain("L9H6"))
    assert "at [1]: yours 5" in clue(plain([1.0, 5.0]), plain([1.0, 2.5]))
    assert "Item 1" in clue(plain(["a", 2.0]), plain(["a", 3.0]))


def test_random_models_are_kept_and_differ_by_seed():
    model = random_model()
    assert random_model() is model
    tokens = random_data(model).tokens
    with torch.no_grad():
        assert not torch.allclose(model(tokens), random_model(1)(tokens))
    assert (
        model.cfg.dtype == torch.float64
        and len(set(random_data(model).lengths.tolist())) > 1
    )


def test_on_the_random_model_layernorm_matters():
    raw = random_model(processing=())
    assert (
        raw.ln_final.weight - 1
    ).abs().mean() > 0.1 and raw.ln_final.bias.abs().mean() > 0.1


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_solution_passes_and_every_misconception_is_told_apart(
    name, seed, monkeypatch
):
    cases = list(EXERCISES[name].cases(seed))
    assert len(cases) >= 3, "mistakes hide in a single case"
    exercise = replace(EXERCISES[name], cases=lambda seed: cases)
    # the same function on the same case gives the same: a check asks
    # for it again and again
    remembered = {}

    def run_once(function, case, outcome=None):
        key = function, id(case)
        if key not in remembered:
            remembered[key] = run(function, case, outcome)
        return remembered[key]

    monkeypatch.setattr(core, "run", run_once)
    assert exercise(exercise.solution, seed)
    assert len(exercise.misconceptions) >= 4
    assert len({one.name for one in exercise.misconceptions}) == len(
        exercise.misconceptions
    )
    answers = {
        "solution": [
            run_once(exercise.solution, case, exercise.outcome) for case in cases
        ]
    }
    for one in exercise.misconceptions:
        answers[one.name] = [
            run_once(one.answer, case, exercise.outcome) for case in cases
        ]
        verdict = exercise(one.answer, seed)
        assert verdict.misconception == one.name, verdict
    for (one, left), (other, right) in combinations(answers.items(), 2):
        differs = any(
            not same(a, b, exercise.tolerance) for a, b in zip(left, right, strict=True)
        )
        assert differs, f"{one} and {other} cannot be told apart"


def test_cases_are_the_same_for_the_same_seed():
    for exercise in EXERCISES.values():
        twice = (exercise.cases(3) for _ in range(2))
        first, second = (
            [run(exercise.solution, case, exercise.outcome) for case in cases]
            for cases in twice
        )
        assert all(same(a, b, 0) for a, b in zip(first, second, strict=True)), exercise


def test_a_wrong_answer_shows_its_case():
    cases = [(torch.ones(3), 1), (torch.ones(3), 2)]
    exercise = Exercise("9.9", "Sum", lambda x, n: x.sum() * n, lambda seed: cases, ())
    verdict = exercise(lambda x, n: x.sum())
    assert dict(verdict.case) == {
        "x": "[1.0, 1.0, 1.0]",
        "n": "2",
        "yours": "3.0",
        "expected": "6.0",
    }
    assert (
        "\n  x: [1.0, 1.0, 1.0]" in repr(verdict)
        and "<dt>yours</dt><dd><code>3.0" in verdict._repr_html_()
    )
    assert exercise(lambda x, n: x.sum() * n).case == ()


def test_a_choice_is_judged_by_what_it_does():
    """And what it does cannot be handed in: the outcome is measured on
    whatever the answer returns."""

    def outcome(choice, n):
        if not isinstance(choice, str):
            raise TypeError("return a word")
        return len(choice) == n

    longer = Misconception("too long", "Count again.", lambda n: "x" * (n + 1))
    exercise = Exercise(
        "9.9",
        "A word",
        lambda n: "x" * n,
        lambda seed: [(2,), (3,)],
        (longer,),
        outcome=outcome,
    )
    assert (
        exercise(lambda n: "y" * n)
        and exercise(lambda n: "").misconception == "too long"
    )
    assert (
        exercise(lambda n: True).kind == "raised"
        and exercise(lambda n: None).kind == "not written"
    )


def test_a_misconception_shows_its_case_too():
    def forgot(x):
        return x

    exercise = Exercise(
        "9.9",
        "Twice",
        lambda x: 2 * x,
        lambda seed: [(torch.ones(2),)],
        (Misconception("forgot", "Think of the two.", forgot),),
    )
    assert dict(exercise(forgot).case)["expected"] == "[2.0, 2.0]"


def test_nan_where_nan_is_expected_is_not_the_worst_gap():
    nan = float("nan")
    assert "at [1]: yours 5" in clue(plain([nan, 5.0, 1.0]), plain([nan, 2.5, 1.0]))
    assert "NaN in 1 of 2" in clue(plain([nan, 1.0]), plain([1.0, 1.0]))


def test_forms_are_named_in_words():
    assert "expected is a set" in clue(plain([1.0]), plain({(9, 9)}))
