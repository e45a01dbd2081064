"""The check of exercise 5.4: the reader's choice of prompts, on which two explanations
of a head's attention expect different things."""

import torch
from jaxtyping import Float
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception, random_data, random_model
from ioi_course.prompts import IOIDataset

__all__ = ["told_apart"]


def _names_in(data: IOIDataset, tokenizer) -> Tensor:
    names = torch.tensor(
        [
            tokenizer.encode(f" {name}", add_special_tokens=False)[0]
            for name in data.names
        ]
    )
    return torch.isin(data.tokens.cpu(), names)


def _two_heads(
    data: IOIDataset,
) -> tuple[Float[Tensor, "batch src"], Float[Tensor, "batch src"]]:
    """Attention from END of two heads written by hand: one wants the last name, one a
    name that was there before."""
    tokens, place = data.tokens.cpu(), torch.arange(data.tokens.shape[1])
    name = _names_in(data, _tokenizer())
    again = (tokens[:, :, None] == tokens[:, None, :]).tril(-1).any(dim=-1) & name
    seen = place <= data.pos["END"].cpu()[:, None]
    rest = 10.0 * (place == 0)  # BOS, where a head looks that finds nothing
    last, repeated = (rest + 20.0 * name + place, rest + 30.0 * again)
    return tuple(
        scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        for scores in (last, repeated)
    )


def _tokenizer():
    return random_model().tokenizer


def _apart(choice: IOIDataset, data: IOIDataset) -> dict[str, str | bool]:
    """What a choice of prompts does: do the two heads look elsewhere there, and did
    nothing but names change?"""
    if not isinstance(choice, IOIDataset):
        raise TypeError(
            "return an IOIDataset, such as `data.counterfactual(kind)`, not "
            f"{type(choice).__name__}."
        )
    last, repeated = _two_heads(choice)
    # 0: the same attention, 1: none in common
    differ = (last - repeated).abs().sum(dim=-1) / 2
    alike = choice.tokens.shape == data.tokens.shape and torch.equal(
        choice.lengths, data.lengths
    )
    if alike:
        names = _names_in(choice, _tokenizer()) & _names_in(data, _tokenizer())
        alike = bool((names | (choice.tokens == data.tokens).cpu()).all())
    share = (differ > 0.9).double().mean().item()
    where = {0.0: "on no prompt", 1.0: "on all prompts"}.get(share, "on some prompts")
    return {"the two explanations differ": where, "only names were changed": alike}


def _one_of_them(data: IOIDataset) -> IOIDataset:
    prompts = [*data.counterfactual("abc")[:1], *data[1:]]
    return IOIDataset.from_prompts(_tokenizer(), prompts, data.bos, data.names)


def _other_sentences(data: IOIDataset) -> IOIDataset:
    return IOIDataset.from_prompts(
        _tokenizer(), list(data)[::-1], data.bos, data.names
    ).counterfactual("abc")


def _choice_cases(seed: int) -> list[tuple]:
    model = random_model(seed % 3)
    return [(random_data(model, n, seed=200 * seed + n),) for n in (6, 4, 3)]


told_apart = Exercise(
    number="5.4",
    title="Tell two explanations apart",
    solution=lambda data: data.counterfactual("abc"),
    cases=_choice_cases,
    misconceptions=(
        Misconception(
            "both explanations expect the same",
            "In your prompts the last name before END is still one that was there "
            "before. Both heads look at it, whichever explanation is true, so the "
            "result cannot decide. What would have to be different about that name?",
            lambda data: data.counterfactual("swap_subject"),
        ),
        Misconception(
            "more than names was changed",
            "The two explanations differ on your prompts, but so does something else: "
            "other words, another length or another order of prompts. If attention "
            "falls, you could not say why. Change names only.",
            _other_sentences,
        ),
        Misconception(
            "the explanations agree, and more than names was changed",
            "The last name is still a repeated one, and the sentence is not the same "
            "any more. Leave the words, and look at the name at S2: under which of the "
            "two explanations does it matter that it was there before?",
            lambda data: data.counterfactual("extra_s"),
        ),
        Misconception(
            "only some of the prompts decide",
            "On the others both explanations expect the same, and they only blur the "
            "mean. Change every prompt.",
            _one_of_them,
        ),
    ),
    outcome=_apart,
)
