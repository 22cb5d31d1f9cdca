"""Volumes ↔ their latents under a VQ-VAE, with the affines of both."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from totalgen.data.intensity import Encoding
from totalgen.data.volume import Volume, moved
from totalgen.errors import InputError
from totalgen.models.codec import codec_from
from totalgen.models.vqvae import VectorQuantised
from totalgen.weights import VQVAE_KIND, described, filled, load_weights


@dataclass(frozen=True)
class LatentVolumes:
    """codec: the VQ-VAE;  encoding: of the MR it was trained on;  sha256: of its weights file."""

    codec: VectorQuantised
    encoding: Encoding
    sha256: str
    device: torch.device

    @classmethod
    def load(cls, path: str | Path, device: torch.device | None = None) -> "LatentVolumes":
        """From a weights file of the VQ-VAE. Raises InputError when it is something else."""
        state, configuration = load_weights(path)
        if configuration.get("kind") != VQVAE_KIND:
            raise InputError(f"{path}: holds no {VQVAE_KIND}. Give weights of train_ct_to_mr.py --preset …vqvae.")
        with described(path):
            codec = codec_from(configuration["codec"])
            assert isinstance(codec, VectorQuantised)
            codec.network = filled(path, lambda: codec.network, state).eval()
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        encoding = Encoding(**configuration["data"]["encodings"]["MR"])
        return cls(codec.to(device), encoding, hashlib.sha256(Path(path).read_bytes()).hexdigest(), device)

    def encode(self, mr: Volume) -> list[Volume]:
        """One volume per latent channel of an MR, in its unit; axes are extended to multiples of the codec's factor."""
        stored = torch.from_numpy(self.encoding.encode(mr.voxels).astype(np.float32))[None, None]
        latent = self.codec.encode(stored.to(self.device))[0].cpu().numpy()
        affine = moved(mr.affine, ((self.codec.factor - 1) / 2,) * 3)  # the middle of the voxels that one stands for
        affine[:3, :3] *= self.codec.factor
        return [Volume(channel, affine) for channel in latent]

    def decode(self, latent: torch.Tensor, like: Volume) -> Volume:
        """The MR, in its unit, of a latent volume [D, x, y, z], cut to the grid ``like``."""
        made = self.codec.decode(latent[None].to(self.device))[0, 0].cpu().numpy()
        inside = tuple(slice(n) for n in like.shape)
        return Volume(self.encoding.decode(made[inside]).astype(np.float32), like.affine)
