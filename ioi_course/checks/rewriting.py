"""The check of exercise 15.5: prompts written anew with another word between the
names."""

from collections.abc import Callable
from dataclasses import replace

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.prompts import IOIDataset

__all__ = ["with_for_and"]


# --- 15.5 ---


def _with_for_and(data: IOIDataset) -> IOIDataset:
    records = [
        replace(r, template=r.template.replace("[A] and [B]", "[A] with [B]"))
        for r in data
    ]
    return IOIDataset.from_prompts(data.tokenizer, records, data.bos, data.names)


def _data_cases(seed: int) -> list[tuple]:
    return [
        (random_data(random_model(), n, seed + i),) for i, n in enumerate((16, 3, 9))
    ]


def _built(change: Callable) -> Callable:
    def answer(data):
        return IOIDataset.from_prompts(
            data.tokenizer, [change(r) for r in data], data.bos, data.names
        )

    return answer


def _texts(choice: IOIDataset, data: IOIDataset) -> list[str]:
    """What an answer gives, as texts: any dataset with the same sentences is right."""
    if not isinstance(choice, IOIDataset):
        raise TypeError(f"An IOIDataset is asked for, not {type(choice).__name__}.")
    return choice.prompts


with_for_and = Exercise(
    number="15.5",
    title="One word other",
    solution=_with_for_and,
    cases=_data_cases,
    outcome=_texts,
    misconceptions=(
        Misconception(
            "every and",
            "Some templates have another *and* between the clauses, and that has "
            "changed too. Only the one between the names may.",
            _built(
                lambda r: replace(r, template=r.template.replace(" and ", " with "))
            ),
        ),
        Misconception(
            "names exchanged",
            "The names have changed places as well. Then two things differ, and "
            "nobody can tell which one mattered.",
            _built(
                lambda r: replace(
                    _one(r), order="BABA" if r.order == "ABBA" else "ABBA"
                )
            ),
        ),
        Misconception(
            "subject exchanged",
            "Another person is the subject now, so the right answer is another, too. "
            "Keep everything but the one word.",
            _built(
                lambda r: replace(
                    _one(r),
                    IO=r.S,
                    S=r.IO,
                    order="BABA" if r.order == "ABBA" else "ABBA",
                )
            ),
        ),
        Misconception(
            "two words for one",
            "*together with* is two tokens: everything behind it moves, and positions "
            "no longer mean the same.",
            _built(
                lambda r: replace(
                    r,
                    template=r.template.replace("[A] and [B]", "[A] together with [B]"),
                )
            ),
        ),
        Misconception(
            "unchanged",
            "These are the prompts that were given.",
            _built(lambda r: r),
        ),
    ),
)


def _one(record):
    return replace(
        record, template=record.template.replace("[A] and [B]", "[A] with [B]")
    )
