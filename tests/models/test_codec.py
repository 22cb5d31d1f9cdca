"""decode is the inverse of encode, and encoded data have the standard deviation that the process assumes."""

import torch

from totalgen.models.codec import Standardise


def test_decode_undoes_encode_and_encoded_data_have_sigma_data():
    torch.manual_seed(0)
    x = torch.stack([3 + 0.2 * torch.randn(9, 9, 9), -1 + 4 * torch.randn(9, 9, 9)])[None]
    codec = Standardise(x.mean((0, 2, 3, 4)), x.std((0, 2, 3, 4)))
    z = codec.encode(x)
    assert torch.allclose(z.std((0, 2, 3, 4)), torch.full((2,), 0.5), atol=1e-5)
    assert torch.allclose(codec.decode(z), x, atol=1e-5)
