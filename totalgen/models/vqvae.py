"""The compression of volumes for latent diffusion: MONAI's VQ-VAE, half as long along each axis per level.

The latent is the one before quantisation, as published; decoding quantises it first.
"""

from typing import Any

import torch
from monai.networks.nets import VQVAE
from torch import nn

from totalgen.models.codec import CODECS, Codec


def vqvae(channels: tuple[int, ...], residual_layers: int, codes: int, code_channels: int, commitment: float) -> VQVAE:
    """[B, 1, x, y, z], axes divisible by 2 per entry of channels → the same. channels: after each halving."""
    return VQVAE(
        spatial_dims=3, in_channels=1, out_channels=1, channels=channels, num_res_layers=residual_layers,
        num_res_channels=channels, downsample_parameters=((2, 4, 1, 1),) * len(channels),
        upsample_parameters=((2, 4, 1, 1, 0),) * len(channels), num_embeddings=codes, embedding_dim=code_channels,
        commitment_cost=commitment, decay=0.99,
    )  # fmt: skip


class VectorQuantised(Codec):
    """With f = ``factor``, encode: a volume [B, 1, x, y, z] of any shape → [B, code_channels, ⌈x/f⌉, ⌈y/f⌉, ⌈z/f⌉];
    decode: that → a volume whose axes are multiples of f. Axes that f does not divide are extended by their last slice.

    Its tensors are those of ``network``: load them from the weights of its training.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = dict(kind="vqvae") | settings
        self.network: VQVAE = vqvae(**{**settings, "channels": tuple(settings["channels"])}).eval()

    @property
    def factor(self) -> int:
        """How many voxels long a voxel of the latent is: 4 as published."""
        return 2 ** len(self.settings["channels"])

    @torch.no_grad()
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        lack = [part for n in reversed(x.shape[2:]) for part in (0, -n % self.factor)]
        return self.network.encode(nn.functional.pad(x, lack, mode="replicate"))

    @torch.no_grad()
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.network.decode(self.network.quantize(z)[0])


CODECS["vqvae"] = VectorQuantised
