"""Two image networks from uint8 pixels to logits: a fast one in airbench's manner, and ResNet-18.

`fast` follows Keller Jordan's airbench94 ("94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498): a
frozen stem that whitens the training images' patches, channels-last, convolutions that begin as the identity, norms
without a scale, GELU, small logits. On a CPU the first half of the side costs most, so the stem's patches are 4 x 4 and
two pixels apart where airbench's are 2 x 2 and one. `resnet18` is He et al., CVPR 2016.

Shapes: N images, B a batch, C channels, P pixels a side, K classes, F features, S places of a patch, M patches.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name the whole field uses
from torch import Tensor, nn


class Convolution(nn.Conv2d):
    """3 x 3 without bias that passes its input on at the start (airbench: a faster start than random)."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__(into, out, 3, padding=1, bias=False)
        nn.init.dirac_(self.weight.data[: min(into, out)])


class Norm(nn.BatchNorm2d):
    """Without a scale: the next layer has one."""

    def __init__(self, width: int) -> None:
        super().__init__(width, momentum=0.3)
        self.weight.requires_grad = False


class Fast(nn.Module):
    """A whitening stem, then blocks of `width`, and of four times it, that halve the side until it is 4 or less.

    The stem's patches are two strides wide. It learns nothing, not even airbench's bias: the layer after it is the
    dearest on a CPU, and so need not pass a gradient on.
    """

    DIRECTIONS = 12  # airbench's 2 x 2 patches of three colours have no more

    def __init__(self, channels: int, pixels: int, classes: int, width: int, stride: int) -> None:
        super().__init__()
        self.patch, self.stride = 2 * stride, stride
        into = 2 * min(self.DIRECTIONS, channels * self.patch**2)
        self.stem = nn.Conv2d(channels, into, self.patch, stride=stride, padding=stride // 2, bias=False)
        self.stem.weight.requires_grad = False
        side = pixels // stride
        blocks: list[nn.Module] = []
        while side > 4 or not blocks:
            out = 4 * width if blocks else width
            blocks += [Convolution(into, out), nn.MaxPool2d(2, ceil_mode=True), Norm(out), nn.GELU()]
            blocks += [Convolution(out, out), Norm(out), nn.GELU()]
            into, side = out, math.ceil(side / 2)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(into, classes, bias=False)

    @torch.no_grad()
    def look_at(self, x_NCPP: Tensor) -> None:
        """Turns the stem to the leading eigenvectors of the patches' covariance, each with both signs."""
        patch_NFS = F.unfold(x_NCPP, self.patch, stride=self.stride)
        patch_MF = patch_NFS.transpose(1, 2).reshape(-1, patch_NFS.shape[1])
        value_F, vector_FF = torch.linalg.eigh(patch_MF.T @ patch_MF / len(patch_MF))
        half = len(self.stem.weight) // 2
        scaled_FF = (vector_FF / (value_F.clamp_min(0) + 5e-4).sqrt()).T[-half:].reshape(self.stem.weight[:half].shape)
        self.stem.weight.copy_(torch.cat([scaled_FF, -scaled_FF]))

    def forward(self, x_BCPP: Tensor) -> Tensor:
        # Not amax: its gradient looks for the largest value again, and compiled in bfloat16 finds it rounded otherwise.
        feature_BF = F.adaptive_max_pool2d(self.blocks(F.gelu(self.stem(x_BCPP))), 1).flatten(1)
        logit_BK: Tensor = self.head(feature_BF) / 9
        return logit_BK


class Residual(nn.Module):
    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        nn.init.zeros_(self.norm2.weight)
        self.skip = nn.Sequential()
        if stride > 1 or into != out:
            self.skip = nn.Sequential(nn.Conv2d(into, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x_BCPP: Tensor) -> Tensor:
        inner_BCPP = self.norm2(self.second(F.relu(self.norm1(self.first(x_BCPP)))))
        return F.relu(inner_BCPP + self.skip(x_BCPP))


class ResNet18(nn.Module):
    """From 128 pixels on with ImageNet's stem (7 x 7, then pooling), below with 3 x 3."""

    def __init__(self, channels: int, pixels: int, classes: int, width: int, stride: int) -> None:
        super().__init__()
        large = pixels >= 128
        stem = nn.Conv2d(channels, width, 7 if large else 3, stride=stride, padding=3 if large else 1, bias=False)
        pool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU(), pool)
        blocks, into = [], width
        for stage in range(4):
            out = width * 2**stage
            blocks += [Residual(into, out, stride=2 if stage else 1), Residual(out, out, stride=1)]
            into = out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(into, classes)

    def forward(self, x_BCPP: Tensor) -> Tensor:
        logit_BK: Tensor = self.head(self.blocks(self.stem(x_BCPP)).mean((2, 3)))
        return logit_BK


class Net(nn.Module):
    """From uint8 pixels to logits; ``mean`` and ``deviation`` of the training images travel with the weights."""

    mean: Tensor
    deviation: Tensor
    net: Fast | ResNet18

    def __init__(self, network: str, channels: int, pixels: int, classes: int, width: int, stem: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("deviation", torch.ones(1, channels, 1, 1))
        kinds: dict[str, type[Fast] | type[ResNet18]] = {"fast": Fast, "resnet18": ResNet18}
        self.net = kinds[network](channels, pixels, classes, width, stem)

    @torch.no_grad()
    def look_at(self, pixel_NCPP: Tensor) -> None:
        x_NCPP = pixel_NCPP.float()
        self.mean.copy_(x_NCPP.mean((0, 2, 3), keepdim=True))
        self.deviation.copy_(x_NCPP.std((0, 2, 3), keepdim=True).clamp_min(1.0))
        if isinstance(self.net, Fast):
            self.net.look_at((x_NCPP - self.mean) / self.deviation)

    def forward(self, x_BCPP: Tensor) -> Tensor:
        plain_BCPP = (x_BCPP - self.mean) / self.deviation
        logit_BK: Tensor = self.net(plain_BCPP.contiguous(memory_format=torch.channels_last))
        return logit_BK
