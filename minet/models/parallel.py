"""Four branches side by side, then two linear layers: the parallel model of report 003.

As printed it cannot run: its linear layer expects other features than the branches give, and its
attention has no query channel. This design keeps the idea: every branch sees the image and ends in
a mean over space. Depth 5, two of it the head; the report counts the longest branch, three
convolutions. No result of it was ever published: the report's figures are those of `cool`.
408,099 parameters and 619.3 M multiply-adds of convolutions and linear layers at 50 classes and
224 px.
"""

import torch
from torch import Tensor, nn

from minet.nn.layers import conv_trunk, mlp

_PATCH_PX = 16  # side of a patch that becomes a token of attention or a node of the graph


class SelfAttention(nn.Module):
    """Attention of SAGAN (1805.08318) over patches; its gate `gamma` starts at 0."""

    def __init__(self, planes: int) -> None:
        """Take the number of planes of a token; queries and keys have an eighth of them."""
        super().__init__()
        self.patches = nn.Conv2d(3, planes, _PATCH_PX, stride=_PATCH_PX)
        self.query = nn.Conv2d(planes, planes // 8, 1)
        self.key = nn.Conv2d(planes, planes // 8, 1)
        self.value = nn.Conv2d(planes, planes, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, planes, H / 16, W / 16)."""
        tokens: Tensor = self.patches(images)
        query, key, value = (f(tokens).flatten(2) for f in (self.query, self.key, self.value))
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # (N, P, P), P patches
        attended: Tensor = self.gamma * (value @ weights.transpose(1, 2)).view(tokens.shape)
        return tokens + attended


class ResidualDense(nn.Module):
    """Two convolutions joined densely, a fifth of the result added: RRDB's (1809.00219) unit."""

    def __init__(self, planes: int) -> None:
        """Take the number of planes."""
        super().__init__()
        self.patches = nn.Conv2d(3, planes, 4, stride=4)
        self.first = nn.Conv2d(planes, planes, 3, padding=1)
        self.last = nn.Conv2d(2 * planes, planes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, planes, H / 4, W / 4)."""
        features: Tensor = self.patches(images)
        new = nn.functional.leaky_relu(self.first(features), 0.2)
        joined: Tensor = self.last(torch.cat([features, new], dim=1))
        return features + 0.2 * joined


class GridGraph(nn.Module):
    """Two graph convolutions (1609.02907) over patches, each tied to itself and its neighbours."""

    def __init__(self, planes: int) -> None:
        """Take the number of planes of a node."""
        super().__init__()
        self.patches = nn.Conv2d(3, planes, _PATCH_PX, stride=_PATCH_PX)
        self.first = nn.Linear(planes, planes)
        self.last = nn.Linear(planes, planes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, planes, H / 16, W / 16)."""
        grid: Tensor = self.patches(images)
        nodes = grid.flatten(2).transpose(1, 2)  # (N, P, planes)
        ties = grid_ties(grid.shape[2], grid.shape[3], grid)
        for linear in (self.first, self.last):
            nodes = torch.relu(ties @ linear(nodes))
        return nodes.transpose(1, 2).reshape(grid.shape)


def grid_ties(rows: int, columns: int, like: Tensor) -> Tensor:
    """Adjacency (P, P) of a grid's places with the up to 8 around and themselves, normalised.

    D^-1/2 A D^-1/2 with D the degrees; dtype and device of `like`.
    """
    place = torch.cartesian_prod(
        torch.arange(rows, device=like.device), torch.arange(columns, device=like.device)
    )
    apart = (place[:, None] - place[None]).abs().amax(dim=-1)  # (P, P) king's moves
    tied = (apart <= 1).to(like.dtype)
    scale = tied.sum(dim=1).rsqrt()
    return scale[:, None] * tied * scale


class Parallel(nn.Module):
    """Branches over one image; the means of their maps over space, joined."""

    def __init__(self, branches: list[nn.Module]) -> None:
        """Take the branches, in the order in which their features are joined."""
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
    """Build it with the branches that are on: (N, 3, H, W) to (N, num_classes); 16 px or more."""
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
