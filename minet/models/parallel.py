"""Four parallel branches, then two linear layers: the parallel model of report 003.

Branches are the three-layer CNN, self-attention (arXiv:1805.08318), a dense residual unit
(arXiv:1809.00219) and a graph network (arXiv:1609.02907); each sees the image and ends in global
average pooling. As printed the model cannot run: its linear layer expects another number of
features than the branches return, and its attention has no query channel. This design keeps the
idea. Depth 5, two of it the head; the report counts the longest branch, three convolutions. No
result of it was ever published: the report's figures are those of `cool`.
408,099 parameters and 619.3 M multiply-adds of convolutions and linear layers at 50 classes and
224 px.
"""

import torch
from torch import Tensor, nn

from minet.nn.layers import conv_trunk, mlp

_PATCH_PX = 16  # side of a patch, which is a token of attention or a node of the graph


class SelfAttention(nn.Module):
    """SAGAN's attention (arXiv:1805.08318) over patches; its gate `gamma` starts at 0.

    Queries and keys have an eighth of the channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, _PATCH_PX, stride=_PATCH_PX)
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, channels, H / 16, W / 16)."""
        tokens: Tensor = self.patches(images)
        query, key, value = (f(tokens).flatten(2) for f in (self.query, self.key, self.value))
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # (N, P, P), P patches
        attended: Tensor = self.gamma * (value @ weights.transpose(1, 2)).view(tokens.shape)
        return tokens + attended


class ResidualDense(nn.Module):
    """RRDB's unit (arXiv:1809.00219): two densely connected convolutions, scaled by 0.2, added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 4, stride=4)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, channels, H / 4, W / 4)."""
        features: Tensor = self.patches(images)
        new = nn.functional.leaky_relu(self.first(features), 0.2)
        residual: Tensor = self.last(torch.cat([features, new], dim=1))
        return features + 0.2 * residual


class GridGraph(nn.Module):
    """Two graph convolutions (arXiv:1609.02907) over patches, each linked to its 8 neighbours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, _PATCH_PX, stride=_PATCH_PX)
        self.first = nn.Linear(channels, channels)
        self.last = nn.Linear(channels, channels)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, channels, H / 16, W / 16)."""
        grid: Tensor = self.patches(images)
        nodes = grid.flatten(2).transpose(1, 2)  # (N, P, channels)
        adjacency = grid_adjacency(grid.shape[2], grid.shape[3], like=grid)
        for linear in (self.first, self.last):
            nodes = torch.relu(adjacency @ linear(nodes))
        return nodes.transpose(1, 2).reshape(grid.shape)


def grid_adjacency(rows: int, columns: int, *, like: Tensor) -> Tensor:
    """Return the normalized adjacency (P, P) of a grid's P cells; dtype and device of `like`.

    D^-1/2 A D^-1/2 with the degrees D; a cell is adjacent to itself and to up to 8 around it.
    """
    cells = torch.cartesian_prod(
        torch.arange(rows, device=like.device), torch.arange(columns, device=like.device)
    )
    distance = (cells[:, None] - cells[None]).abs().amax(dim=-1)  # (P, P) Chebyshev
    adjacent = (distance <= 1).to(like.dtype)
    scale = adjacent.sum(dim=1).rsqrt()
    return scale[:, None] * adjacent * scale


class Parallel(nn.Module):
    """Branches over one image; their feature maps, averaged over space, are concatenated."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, features)."""
        return torch.cat([branch(images).mean(dim=(2, 3)) for branch in self.branches], dim=1)


def parallel(
    *,
    num_classes: int,
    cnn: bool = True,
    attention: bool = True,
    rrdb: bool = True,
    graph: bool = True,
) -> nn.Module:
    """Build the enabled branches: (N, 3, H, W) to (N, num_classes); 16 px or more."""
    branches: list[nn.Module] = []
    features = 0
    if cnn:
        branches.append(conv_trunk(3))
        features += 128
    if attention:
        branches.append(SelfAttention(64))
        features += 64
    if rrdb:
        branches.append(ResidualDense(32))
        features += 32
    if graph:
        branches.append(GridGraph(64))
        features += 64
    if not branches:
        raise ValueError("cnn, attention, rrdb and graph are all false; one must be true")
    return nn.Sequential(Parallel(branches), mlp(features, 512, num_classes))
