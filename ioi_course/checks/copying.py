"""Two checks of chapter 9: does a head copy the name that it looks at? By a ranking,
and by eigenvalues."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ioi_course.checks.core import Exercise, Misconception
from ioi_course.checks.inputs import normal, seeded

__all__ = ["copy_score", "eigenvalue_score"]


# --- 9.3 ---


def _logits(
    states: Tensor, W_V: Tensor, W_O: Tensor, W_U: Tensor
) -> Float[Tensor, "name vocab"]:
    return states @ W_V @ W_O @ W_U


def _rank(
    logits: Float[Tensor, "name token"], tokens: Int[Tensor, "name"]
) -> Int[Tensor, "name"]:
    return (logits > logits.gather(1, tokens[:, None])).sum(dim=1)


def _share(hits: Tensor) -> float:
    return hits.double().mean().item()


def _copy_score(
    states: Float[Tensor, "name d_model"],
    W_V: Float[Tensor, "d_model d_head"],
    W_O: Float[Tensor, "d_head d_model"],
    W_U: Float[Tensor, "d_model vocab"],
    tokens: Int[Tensor, "name"],
    k: int,
) -> float:
    return _share(_rank(_logits(states, W_V, W_O, W_U), tokens) < k)


def _copy_score_cases(seed: int) -> list[tuple]:
    """Heads that copy a little: among many names each rank near the top occurs."""
    generator = seeded(seed)
    cases = []
    for n, vocab, k, strength in (
        (60, 90, 5, 0.28),
        (80, 100, 3, 0.2),
        (50, 120, 8, 0.22),
        (70, 80, 4, -0.1),
    ):
        states = normal(generator, n, 16)
        tokens = torch.randperm(vocab, generator=generator)[:n]
        W_V = normal(generator, 16, 6)
        W_O = normal(generator, 6, 16)
        W_U = normal(generator, 16, vocab)
        wrote = states @ W_V @ W_O
        W_U[:, tokens] += strength * wrote.T / wrote.std()
        cases.append((states, W_V, W_O, W_U, tokens, k))
    return cases


copy_score = Exercise(
    number="9.3",
    title="In the top k",
    solution=_copy_score,
    cases=_copy_score_cases,
    misconceptions=(
        Misconception(
            "only the top counts",
            "This is the share of names that are on top. The first `k` places count.",
            lambda states, W_V, W_O, W_U, tokens, k: _share(
                _rank(_logits(states, W_V, W_O, W_U), tokens) < 1
            ),
        ),
        Misconception(
            "k off by one",
            "One place too many counts: a name with `k` tokens above it is not among "
            "the top `k`.",
            lambda states, W_V, W_O, W_U, tokens, k: _share(
                _rank(_logits(states, W_V, W_O, W_U), tokens) <= k
            ),
        ),
        Misconception(
            "bottom for top",
            "These are the lowest `k` logits: the negative copy score.",
            lambda states, W_V, W_O, W_U, tokens, k: _share(
                _rank(-_logits(states, W_V, W_O, W_U), tokens) < k
            ),
        ),
        Misconception(
            "any name counts",
            "Here it is enough if some name is among the top `k`. A head copies if it "
            "is the name's own token.",
            lambda states, W_V, W_O, W_U, tokens, k: _share(
                torch.isin(_logits(states, W_V, W_O, W_U).topk(k).indices, tokens).any(
                    dim=1
                )
            ),
        ),
        Misconception(
            "top among names only",
            "The name competes with the other names here, not with all tokens.",
            lambda states, W_V, W_O, W_U, tokens, k: _share(
                _rank(
                    _logits(states, W_V, W_O, W_U[:, tokens]), torch.arange(len(tokens))
                )
                < k
            ),
        ),
        Misconception(
            "names compete for a token",
            "The top `k` was taken over names (for each token), not over tokens (for "
            "each name). Which axis is which?",
            lambda states, W_V, W_O, W_U, tokens, k: _share(
                _rank(
                    _logits(states, W_V, W_O, W_U)[:, tokens].T,
                    torch.arange(len(tokens)),
                )
                < k
            ),
        ),
        Misconception(
            "OV left out",
            "The states are unembedded as they are. What would the head make of them?",
            lambda states, W_V, W_O, W_U, tokens, k: _share(
                _rank(states @ W_U, tokens) < k
            ),
        ),
        Misconception(
            "OV transposed",
            "The circuit is read backwards. States are rows here: first `W_V` from "
            "the right, then `W_O`.",
            lambda states, W_V, W_O, W_U, tokens, k: _share(
                _rank(states @ (W_V @ W_O).T @ W_U, tokens) < k
            ),
        ),
        Misconception(
            "count, not share",
            "This is the number of names. The score is a share, from 0 to 1.",
            lambda *case: _copy_score(*case) * len(case[4]),
        ),
    ),
)


# --- 9.6 ---


def _circuit(
    E: Tensor, W_V: Tensor, W_O: Tensor, U: Tensor
) -> Float[Tensor, "name name"]:
    return E @ W_V @ W_O @ U


def _eigenvalues(E: Tensor, W_V: Tensor, W_O: Tensor, U: Tensor) -> Tensor:
    """Those that are not zero."""
    return torch.linalg.eigvals((W_O @ U) @ (E @ W_V))


def _eigenvalue_score(
    E: Float[Tensor, "name d_model"],
    W_V: Float[Tensor, "d_model d_head"],
    W_O: Float[Tensor, "d_head d_model"],
    U: Float[Tensor, "d_model name"],
) -> float:
    values = _eigenvalues(E, W_V, W_O, U)
    return (values.real.sum() / values.abs().sum()).item()


def _eigenvalue_cases(seed: int) -> list[tuple]:
    """Circuits that copy partly, take back, or do neither."""
    generator = seeded(seed)
    cases = []
    for names, copying in ((20, 0.05), (15, -0.04), (24, 0.0), (18, -0.02)):
        E, U = normal(generator, names, 12), normal(generator, 12, names)
        W_V, W_O = normal(generator, 12, 6), normal(generator, 6, 12)
        U = U + copying * 0.5 * (E @ W_V @ W_O).T
        cases.append((E, W_V, W_O, U))
    return cases


def _symmetric(E: Tensor, W_V: Tensor, W_O: Tensor, U: Tensor) -> float:
    values = torch.linalg.eigvalsh(_circuit(E, W_V, W_O, U))
    return (values.sum() / values.abs().sum()).item()


def _symmetrised(E: Tensor, W_V: Tensor, W_O: Tensor, U: Tensor) -> float:
    M = _circuit(E, W_V, W_O, U)
    values = torch.linalg.eigvalsh((M + M.T) / 2)
    return (values.sum() / values.abs().sum()).item()


def _leading(E: Tensor, W_V: Tensor, W_O: Tensor, U: Tensor) -> float:
    values = _eigenvalues(E, W_V, W_O, U)
    top = values[values.abs().argmax()]
    return (top.real / top.abs()).item()


eigenvalue_score = Exercise(
    number="9.6",
    title="A score with no k",
    solution=_eigenvalue_score,
    cases=_eigenvalue_cases,
    misconceptions=(
        Misconception(
            "singular values",
            "Singular values are never negative, so this is 1 for every head. A "
            "singular vector is mapped to another vector; copying asks what is mapped "
            "to itself.",
            lambda E, W_V, W_O, U: 1.0,
        ),
        Misconception(
            "treated as symmetric",
            "`eigvalsh` is for symmetric matrices and looks at one triangle only. "
            "This matrix is not symmetric.",
            _symmetric,
        ),
        Misconception(
            "made symmetric",
            "The matrix was averaged with its transpose, which has other eigenvalues.",
            _symmetrised,
        ),
        Misconception(
            "trace, not scaled",
            "The sum of the eigenvalues grows with the head's weights. Divide by the "
            "sum of their sizes.",
            lambda *case: _eigenvalues(*case).real.sum().item(),
        ),
        Misconception(
            "imaginary part left out below",
            "Below the line stands |λ| of the complex number, not the size of its "
            "real part.",
            lambda *case: (
                _eigenvalues(*case).real.sum() / _eigenvalues(*case).real.abs().sum()
            ).item(),
        ),
        Misconception(
            "signs counted",
            "Each eigenvalue counts the same here, large or small. Weigh them by "
            "their size.",
            lambda *case: _eigenvalues(*case).real.sign().mean().item(),
        ),
        Misconception(
            "largest eigenvalue alone",
            "This is the score of one eigenvalue. All of them count.",
            _leading,
        ),
    ),
)
