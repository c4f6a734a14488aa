"""The architectures, by name. No torch."""

from __future__ import annotations

from slimtrain.models.architecture import Architecture
from slimtrain.models.mobilenet_v1 import MobileNetV1
from slimtrain.models.mobilenet_v2 import MNASNet, MobileNetV2
from slimtrain.models.resnet import ResNet50, ResNet101, ResNet152
from slimtrain.models.shufflenet import ShuffleNetV1

ARCHITECTURES: dict[str, Architecture] = {
    a.name: a for a in (MobileNetV1(), MobileNetV2, MNASNet, ResNet50, ResNet101, ResNet152, ShuffleNetV1)
}
