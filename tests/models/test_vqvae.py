"""The VQ-VAE is a codec: half as long per level, any shape, rebuilt from its settings."""

import pytest
import torch

from totalgen.models.codec import codec_from
from totalgen.models.vqvae import VectorQuantised

SETTINGS = dict(channels=(4, 8), residual_layers=1, codes=16, code_channels=3, commitment=0.25)


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 12, 5), (1, 4, 33)])
@pytest.mark.parametrize("channels", [(4,), (4, 8), (4, 8, 8)])
def test_any_shape_is_half_as_long_per_level(shape, channels):
    torch.manual_seed(0)
    codec = VectorQuantised(**{**SETTINGS, "channels": channels})
    factor = 2 ** len(channels)
    latent = codec.encode(torch.randn(1, 1, *shape))
    small = [-(-n // factor) for n in shape]
    assert codec.factor == factor
    assert latent.shape == (1, 3, *small)
    assert codec.decode(latent).shape == (1, 1, *(factor * n for n in small))


def test_it_rebuilds_itself_and_quantises_when_it_decodes():
    torch.manual_seed(0)
    codec = VectorQuantised(**SETTINGS)
    other = codec_from(codec.settings)
    other.load_state_dict(codec.state_dict())
    x = torch.randn(2, 1, 8, 8, 8)
    latent = codec.encode(x)
    assert torch.equal(other.encode(x), latent)
    quantised = codec.network.quantize(latent)[0]
    assert not torch.allclose(quantised, latent)
    assert torch.allclose(codec.decode(latent), codec.decode(quantised), atol=1e-6)  # of a code it is itself
