"""The compression of volumes for latent diffusion: MONAI's VQ-VAE, four times smaller along each axis.

The latent is the one before quantisation, as published; decoding quantises it first.
"""

from typing import Any

import torch
from monai.networks.nets import VQVAE
from torch import nn

from totalgen.models.codec import CODECS, Codec

FACTOR = 4  # two convolutions of stride 2


def vqvae(channels: tuple[int, ...], residual_layers: int, codes: int, code_channels: int, commitment: float) -> VQVAE:
    """[B, 1, x, y, z], axes divisible by FACTOR → the same. channels: after each of the two halvings."""
    return VQVAE(
        spatial_dims=3, in_channels=1, out_channels=1, channels=channels, num_res_layers=residual_layers,
        num_res_channels=channels, downsample_parameters=((2, 4, 1, 1),) * 2,
        upsample_parameters=((2, 4, 1, 1, 0),) * 2, num_embeddings=codes, embedding_dim=code_channels,
        commitment_cost=commitment, decay=0.99,
    )  # fmt: skip


class VectorQuantised(Codec):
    """encode: a volume [B, 1, x, y, z] of any shape → [B, code_channels, ⌈x/4⌉, ⌈y/4⌉, ⌈z/4⌉]; decode: that → a volume
    whose axes are multiples of 4. Axes that 4 does not divide are extended by their last slice.

    Its tensors are those of ``network``: load them from the weights of its training.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = dict(kind="vqvae") | settings
        self.network: VQVAE = vqvae(**{**settings, "channels": tuple(settings["channels"])}).eval()

    @torch.no_grad()
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        lack = [part for n in reversed(x.shape[2:]) for part in (0, -n % FACTOR)]
        return self.network.encode(nn.functional.pad(x, lack, mode="replicate"))

    @torch.no_grad()
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.network.decode(self.network.quantize(z)[0])


CODECS["vqvae"] = VectorQuantised
