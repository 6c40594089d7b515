"""Exponential moving average of weights, which often scores better than the last step's weights.

torch's AveragedModel is not used: it averages all buffers or none, while the statistics of batch
norms are to be averaged and others (a temperature, `num_batches_tracked`) taken as they are; and it
copies its count of updates to the device at every update, for which a GPU step would wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

_AVERAGED_BUFFERS = ("running_mean", "running_var")


class EMA:
    """The average of a model's parameters and of its norms' statistics, from their present values.

    `averages` holds it by the names of the model's state_dict. The decay of update n, from 1, is
    min(decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage with `num_updates`:
    the first averages soon forget the initial weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay, self._updates = decay, 0
        state = model.state_dict()
        names = {name for name, _ in model.named_parameters()}
        names |= {name for name in state if name.endswith(_AVERAGED_BUFFERS)}
        self._live = {name: value for name, value in state.items() if name in names}
        self.averages = {name: value.detach().clone() for name, value in self._live.items()}

    def update(self) -> None:
        """Average in the weights after a step."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(list(self.averages.values()), list(self._live.values()), self._updates)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Swap in the averaged weights; restore the model's own at the end."""
        live = {name: value.detach().clone() for name, value in self._live.items()}
        _copy(self.averages, self._live)
        try:
            yield
        finally:
            _copy(live, self._live)

    def state_dict(self) -> dict[str, Any]:
        """Return the EMA state (live tensors, not copies)."""
        return {"averages": self.averages, "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state of the same model."""
        self._updates = state["updates"]
        _copy(state["averages"], self.averages)


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, value in source.items():
        target[name].copy_(value)
