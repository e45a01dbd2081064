"""The check of exercise 7.5: the reader's choice of a source whose message refutes a
reading of an edge."""

from dataclasses import replace

import torch
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.prompts import IOIDataset

__all__ = ["refuting_source"]


def _messages(data: IOIDataset, at: Tensor) -> dict[str, Tensor]:
    """What three senders written by hand say at these positions: a flag, a token, and
    the place of its twin."""
    tokens = data.tokens.cpu()
    rows = torch.arange(len(data))
    place = torch.arange(data.tokens.shape[1])
    twin = (tokens == tokens[rows, at][:, None]) & (place < at[:, None])
    return {
        "flag": twin.any(dim=1),
        "token": tokens[rows, at],
        "place": twin.int().argmax(dim=1),
    }


def _news(choice: IOIDataset, base: IOIDataset) -> dict[str, bool]:
    """Which of the three senders at S2 say the same in both runs, in every prompt."""
    if not isinstance(choice, IOIDataset):
        raise TypeError(
            "return an IOIDataset, such as `base.counterfactual(kind)`, not "
            f"{type(choice).__name__}."
        )
    if choice.tokens.shape != base.tokens.shape or not torch.equal(
        choice.lengths, base.lengths
    ):
        raise ValueError(
            "your prompts have another number or length than the base's, so no message "
            "can be carried over."
        )
    at = base.pos["S2"].cpu()
    old, new = _messages(base, at), _messages(choice, at)
    return {
        "that it is repeated stays": bool((old["flag"] == new["flag"]).all()),
        "which name it is stays": bool((old["token"] == new["token"]).all()),
        "where it was changes": bool((old["place"] != new["place"]).all()),
        "the words are the same": torch.equal(
            choice.tokens.sort(dim=1).values, base.tokens.sort(dim=1).values
        ),
    }


def _with_a_stranger(base: IOIDataset) -> IOIDataset:
    """The first two names exchanged, and IO replaced by a name that is in no prompt."""
    moved = base.counterfactual("swap_names")
    new = base.counterfactual("random_names")
    records = [
        replace(record, IO=other.IO)
        for record, other in zip(moved.records, new.records, strict=True)
    ]
    return IOIDataset.from_prompts(base.tokenizer, records, base.bos)


refuting_source = Exercise(
    number="7.5",
    title="Refute a reading of an edge",
    solution=lambda base: base.counterfactual("swap_names"),
    cases=lambda seed: [
        (random_data(random_model(seed % 3), n, seed=100 * seed + n),)
        for n in (6, 4, 3)
    ],
    misconceptions=(
        Misconception(
            "the repetition is gone",
            "In your source S2 is no longer a repeated name. A sender that says only "
            "'repeated' changes there too, so a large effect would refute nothing. "
            "Keep what the claim speaks of, and change something else.",
            lambda base: base.counterfactual("abc"),
        ),
        Misconception(
            "the name at S2 is another",
            "Another name is repeated in your source. An effect would show that more "
            "than 'repeated' is said, but not whether it is the name or its place. "
            "Keep the name at S2.",
            lambda base: base.counterfactual("swap_subject"),
        ),
        Misconception(
            "another name in the same place",
            "You changed the name and left its place. An effect would be about the "
            "name; asked for is the place.",
            lambda base: base.counterfactual("random_names"),
        ),
        Misconception(
            "another word has changed, too",
            "Your source has the name in another place, but another word is new as "
            "well. An effect could be that word's. Use the same words.",
            _with_a_stranger,
        ),
        Misconception(
            "nothing differs",
            "Your source tells S2 what the base does: every path between them "
            "carries nothing.",
            lambda base: base,
        ),
    ),
    outcome=_news,
)
