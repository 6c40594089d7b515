"""Moving averages of weights, which often score better than the weights of the last step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_AVERAGED_BUFFERS = ("running_mean", "running_var")  # the others say what is, say a temperature


class EMA:
    """The exponential moving average of a model's parameters and of its norms' statistics."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with the weights as they are."""
        self._decay, self._steps = decay, 0
        state = model.state_dict()
        names = {name for name, _ in model.named_parameters()}
        names |= {name for name in state if name.endswith(_AVERAGED_BUFFERS)}
        self._live = [value for name, value in state.items() if name in names]
        self._mean = [value.detach().clone() for value in self._live]

    @torch.no_grad()
    def follow(self) -> None:
        """Take in the weights after a step; young averages forget faster, as they know less."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._mean, self._live, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages in the place of the weights, and these back at the end."""
        live = [value.detach().clone() for value in self._live]
        self._copy(self._mean)
        try:
            yield
        finally:
            self._copy(live)

    def state_dict(self) -> dict[str, Any]:
        """Give all that it knows; it is what it is, not a copy."""
        return {"mean": self._mean, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state."""
        self._steps = state["steps"]
        for mean, saved in zip(self._mean, state["mean"], strict=True):
            mean.copy_(saved)

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        for live, value in zip(self._live, values, strict=True):
            live.copy_(value)
