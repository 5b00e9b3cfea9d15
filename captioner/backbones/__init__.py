"""Image networks, chosen by name."""

from captioner.backbones.vision_backbone import (
    VisionBackbone,
    backbone_names,
)

__all__ = ["VisionBackbone", "backbone_names"]
