"""What the segmenter sees at its coarsest level: features of a CT for Fréchet and kernel distances."""

import numpy as np
import torch
from monai.networks.layers.simplelayers import SkipConnection
from torch import nn

from totalgen.data.volume import Volume
from totalgen.generation.segmenter import Segmenter


def bottom(network: nn.Module) -> nn.Module:
    """The innermost part of a nested U-Net of MONAI: what no skip connection passes by."""
    inside = [module.submodule for module in network.modules() if isinstance(module, SkipConnection)]
    return inside[-1]


def bottleneck_features(segmenter: Segmenter, ct: Volume) -> np.ndarray:
    """[channels] mean activations of the coarsest level over a CT in HU, over its windows and voxels."""
    found: list[torch.Tensor] = []

    def keep(module: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        found.append(out.float().mean(dim=(2, 3, 4)).sum(0))

    hook = bottom(segmenter.network).register_forward_hook(keep)
    try:
        segmenter.run(ct)
    finally:
        hook.remove()
    return torch.stack(found).mean(0).cpu().numpy()
