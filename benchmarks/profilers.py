"""Figures of other profilers, to compare published figures with; packages of the group `reports`.

Their column headings mislead, see docs/costs.md; `minet.cost.counter` counts the actual costs.
"""

import contextlib
import io
import warnings

import torch
from torch import nn


def profiler_figures(model: nn.Module, *, channels: int, image_size: int) -> dict[str, float]:
    """Profile one forward pass of one image in evaluation mode, as the reports did.

    - torchinfo: `torchinfo_params_mb`, 4 bytes per parameter (10^6 bytes), which report 001 prints
      as millions of parameters; `torchinfo_mult_adds`, of layers that are modules it supports;
      `torchinfo_forward_backward_mb`, twice the modules' outputs.
    - torchprofile: `torchprofile_gimacs`, multiply-adds of every operation in 2^30.
    - ptflops, module hooks: `ptflops_macs`, including norms, activations and pools.
    """
    import torchinfo
    from ptflops import get_model_complexity_info
    from torchprofile import profile_macs

    model = model.eval()
    shape = (channels, image_size, image_size)
    image = torch.zeros(1, *shape)
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch.jit is deprecated; unsupported operations
        summary = torchinfo.summary(model, input_data=image, verbose=0)
        macs = profile_macs(model, image)
        hooked_macs, _ = get_model_complexity_info(
            model, shape, as_strings=False, print_per_layer_stat=False, backend="pytorch"
        )
    return {
        "torchinfo_params_mb": summary.total_params * 4 / 1e6,
        "torchinfo_mult_adds": int(summary.total_mult_adds),
        "torchinfo_forward_backward_mb": summary.total_output_bytes / 1e6,
        "torchprofile_gimacs": macs / 2**30,
        "ptflops_macs": int(hooked_macs),
    }
