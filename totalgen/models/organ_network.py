"""The network of the organ segmenter: MONAI's residual U-Net."""

import torch
from monai.networks.nets import UNet
from torch import nn


def segmentation_network(channels: int, classes: int) -> nn.Module:
    """[B, 1, x, y, z] → logits [B, classes, x, y, z]; class 0 is background.

    channels: width at full resolution, doubled at each of three halvings. The first level keeps the full resolution: a
    kidney is only eight voxels of 6 mm wide, and errors at its surface lower the Dice.
    """
    widths = tuple(channels * factor for factor in (1, 2, 4, 8, 16))
    network = UNet(3, in_channels=1, out_channels=classes, channels=widths, strides=(1, 2, 2, 2), num_res_units=1)
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch has no such stub
