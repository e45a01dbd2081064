"""Checks of chapter 1: tokens, positions and fair pairs."""

import torch
from jaxtyping import Int
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception
from ioi_course.checks.inputs import seeded

__all__ = ["find_end", "find_subject", "swap_subject", "first_difference"]

PAD = 0  # also BOS, as in GPT-2


def _prompts(
    rng: torch.Generator, batch: int, longest: int = 12
) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded rows [batch, pos] that begin with BOS and hold IO once and S twice;
    with the ids of IO and S."""
    tokens = torch.full((batch, longest), PAD)
    io, s = torch.empty(batch, dtype=torch.long), torch.empty(batch, dtype=torch.long)
    for row in range(batch):
        length = int(torch.randint(7, longest, (), generator=rng))
        ids = torch.randperm(40, generator=rng)[: length - 1] + 1
        first, second, third = sorted(
            (torch.randperm(length - 3, generator=rng)[:3] + 1).tolist()
        )
        io_first = torch.rand((), generator=rng) < 0.5
        io[row], s[row] = ids[first], ids[second]
        if not io_first:
            io[row], s[row] = ids[second], ids[first]
        ids[third] = s[row]
        tokens[row, 1:length] = ids
    return tokens, io, s


def _find_end(tokens: Int[Tensor, "batch pos"], pad: int) -> Int[Tensor, "batch"]:
    return torch.stack([(row != pad).nonzero().max() for row in tokens])


def _end_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    cases = [_prompts(rng, batch)[0] for batch in (4, 1, 6)]
    cases[0][1] = torch.cat(
        [
            torch.tensor([PAD]),
            torch.randperm(40, generator=rng)[: cases[0].shape[1] - 1] + 1,
        ]
    )
    return [(tokens, PAD) for tokens in cases]  # the second row has no padding


find_end = Exercise(
    number="1.1",
    title="Find END",
    solution=_find_end,
    cases=_end_cases,
    misconceptions=(
        Misconception(
            "last column taken for END",
            "Rows are padded on the right: only the longest prompt reaches the "
            "last column.",
            lambda tokens, pad: torch.full((len(tokens),), tokens.shape[1] - 1),
        ),
        Misconception(
            "BOS off by one",
            "BOS has the same id as the padding, so counting what is not padding "
            "leaves out position 0.",
            lambda tokens, pad: (tokens != pad).sum(dim=1) - 1,
        ),
        Misconception(
            "first padding taken for END",
            "That is one position too far: END is the last token of the prompt itself.",
            lambda tokens, pad: _find_end(tokens, pad) + 1,
        ),
        Misconception(
            "first padding found at BOS",
            "The first token equal to the padding is BOS, at position 0. Look from "
            "the other side.",
            lambda tokens, pad: (tokens == pad).long().argmax(dim=1) - 1,
        ),
        Misconception(
            "a row without padding",
            "Looking for the first padding after BOS goes wrong in the longest "
            "prompt, which has none.",
            lambda tokens, pad: (tokens[:, 1:] == pad).long().argmax(dim=1),
        ),
        Misconception(
            "END counted from the right",
            "This is how far END is from the end of the row. A position counts from "
            "the left, with BOS at 0.",
            lambda tokens, pad: _find_end(tokens, pad) - tokens.shape[1],
        ),
    ),
)


def _find_subject(
    tokens: Int[Tensor, "batch pos"], s: Int[Tensor, "batch"]
) -> Int[Tensor, "batch 2"]:
    return torch.stack(
        [
            (row == token).nonzero().flatten()[:2]
            for row, token in zip(tokens, s, strict=True)
        ]
    )


def _subject_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    drawn = [_prompts(rng, batch) for batch in (4, 1, 6)]
    return [(tokens, s) for tokens, _, s in drawn]


find_subject = Exercise(
    number="1.2",
    title="Find the subject twice",
    solution=_find_subject,
    cases=_subject_cases,
    misconceptions=(
        Misconception(
            "S1 taken for S2",
            "Both columns hold the first mention: argmax of a comparison finds the "
            "first hit only.",
            lambda tokens, s: _find_subject(tokens, s)[:, [0, 0]],
        ),
        Misconception(
            "S2 taken for S1",
            "Both columns hold the second mention.",
            lambda tokens, s: _find_subject(tokens, s)[:, [1, 1]],
        ),
        Misconception(
            "S1 and S2 exchanged",
            "S1 is the mention that comes first; it belongs in the first column.",
            lambda tokens, s: _find_subject(tokens, s).flip(1),
        ),
        Misconception(
            "BOS off by one",
            "These positions count from the first word. The model counts from BOS, "
            "which has position 0.",
            lambda tokens, s: _find_subject(tokens, s) - 1,
        ),
        Misconception(
            "S1+1 taken for S1",
            "These are the positions after the two mentions.",
            lambda tokens, s: _find_subject(tokens, s) + 1,
        ),
    ),
)


def _where(tokens: Tensor, position: Tensor, token: Tensor) -> Tensor:
    """A copy with the token in each row's position."""
    result = tokens.clone()
    result[torch.arange(len(tokens)), position] = token
    return result


def _swap_subject(
    tokens: Int[Tensor, "batch pos"], io: Int[Tensor, "batch"], s: Int[Tensor, "batch"]
) -> Int[Tensor, "batch pos"]:
    return _where(tokens, _find_subject(tokens, s)[:, 1], io)


def _block(tokens: Tensor, io: Tensor, s: Tensor) -> Tensor:
    result = tokens.clone()
    result[:, _find_subject(tokens, s)[:, 1]] = io
    return result


def _exchange(tokens: Tensor, io: Tensor, s: Tensor) -> Tensor:
    io, s = io[:, None], s[:, None]
    return torch.where(tokens == io, s, torch.where(tokens == s, io, tokens))


def _swap_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    return [_prompts(rng, batch) for batch in (4, 1, 6)]


swap_subject = Exercise(
    number="1.3",
    title="Swap the subject",
    solution=_swap_subject,
    cases=_swap_cases,
    misconceptions=(
        Misconception(
            "both mentions of S replaced",
            "Now one name occurs three times, and the other not at all. Only "
            "S2 changes.",
            lambda tokens, io, s: torch.where(
                tokens == s[:, None], io[:, None], tokens
            ),
        ),
        Misconception(
            "IO and S exchanged everywhere",
            "That is the counterfactual swap_names. Three tokens differ then; a "
            "minimal pair differs in one.",
            _exchange,
        ),
        Misconception(
            "S1 taken for S2",
            "The first mention was replaced. IO is then there twice before the second "
            "clause, and S2 is still S.",
            lambda tokens, io, s: _where(tokens, _find_subject(tokens, s)[:, 0], io),
        ),
        Misconception(
            "IO replaced by S",
            "The other way round: the second mention of the subject becomes the other "
            "name, IO stays.",
            lambda tokens, io, s: torch.where(
                tokens == io[:, None], s[:, None], tokens
            ),
        ),
        Misconception(
            "every row changed at every row's S2",
            "`result[:, s2] = io` is a block: all rows, at all these positions. Pair "
            "the rows with their positions.",
            _block,
        ),
        Misconception(
            "nothing replaced",
            "The result is the clean prompt. Assigning to a row that is a copy "
            "changes the copy only.",
            lambda tokens, io, s: tokens.clone(),
        ),
    ),
)


def _first_difference(
    clean: Int[Tensor, "batch pos"], corrupted: Int[Tensor, "batch pos"]
) -> Int[Tensor, "batch"]:
    places = torch.arange(clean.shape[1]).expand_as(clean)
    return torch.where(clean != corrupted, places, clean.shape[1]).amin(dim=1)


def _last_difference(clean: Tensor, corrupted: Tensor) -> Tensor:
    last = clean.shape[1] - 1 - (clean != corrupted).flip(1).long().argmax(dim=1)
    return torch.where((clean != corrupted).any(dim=1), last, clean.shape[1])


def _difference_cases(seed: int) -> list[tuple]:
    rng = seeded(seed)
    cases = []
    for batch in (5, 1, 6):
        tokens, io, s = _prompts(rng, batch)
        other = _exchange(tokens, io, s)
        if batch > 1:
            other[1] = tokens[1]
        cases.append((tokens, other))
    return cases


first_difference = Exercise(
    number="1.4",
    title="Where two runs part",
    solution=_first_difference,
    cases=_difference_cases,
    misconceptions=(
        Misconception(
            "identical pair said to differ at 0",
            "argmax of a row without a hit is 0. For a pair without a difference the "
            "number of positions is asked for.",
            lambda clean, corrupted: (clean != corrupted).long().argmax(dim=1),
        ),
        Misconception(
            "last difference taken for the first",
            "After the first token that differs everything may differ already, "
            "whatever the tokens.",
            _last_difference,
        ),
        Misconception(
            "differences counted",
            "This is in how many tokens the pair differs, not where the first one is.",
            lambda clean, corrupted: (clean != corrupted).sum(dim=1),
        ),
        Misconception(
            "one position for the whole batch",
            "The least over all rows was taken. Each pair has a first difference "
            "of its own.",
            lambda clean, corrupted: (
                _first_difference(clean, corrupted).amin().repeat(len(clean))
            ),
        ),
        Misconception(
            "last agreement taken for the first difference",
            "That is one too early: it is the last position at which the two runs are "
            "still equal.",
            lambda clean, corrupted: _first_difference(clean, corrupted) - 1,
        ),
    ),
)
