"""A small network whose logits depend on the image, and which coarse steps do not throw off."""

import torch

from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.checkpoints.untrained import branch_ends, take_statistics
from slimtrain.data.noise import noise_images
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork

SIZE = 64


def small_checkpoint() -> Checkpoint:
    """A network of two widths whose logits depend on the image, and which coarse steps do not throw off: of a chaotic one,
    as deep untrained networks without residual sums are, nothing would be left in int8."""
    torch.manual_seed(0)
    network = SlimmableNetwork(NetworkSpec("resnet50", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25)))
    torch.nn.init.normal_(network.get_parameter("classifier.0.weight"), 0, 0.2)
    with torch.no_grad():
        for norm in branch_ends(network):
            for key, value in norm.named_parameters():
                if key.endswith("weight"):
                    value.mul_(0.25)
    take_statistics(network.eval(), torch.from_numpy(noise_images(8, SIZE, 3)))
    return Checkpoint("small.pt", "0" * 64, network, SIZE)
