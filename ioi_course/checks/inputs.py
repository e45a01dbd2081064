"""Random numbers that the cases of exercises are made of."""

import torch
from torch import Tensor


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Of the standard normal distribution, in float64."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
