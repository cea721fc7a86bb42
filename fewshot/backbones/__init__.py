"""Backbones: pictures [B, C, H, W] to features [B, D], by the name of any timm model.

conv4, conv4_32, conv4_128, resnet12, resnet12_narrow and wrn28_10 are not in timm; importing this package registers
them there.
"""

from fewshot.backbones.conv4 import Conv4
from fewshot.backbones.create import BackboneConfig, create_backbone
from fewshot.backbones.resnet12 import ResNet12
from fewshot.backbones.wrn28_10 import WideResNet

__all__ = ["BackboneConfig", "Conv4", "ResNet12", "WideResNet", "create_backbone"]
