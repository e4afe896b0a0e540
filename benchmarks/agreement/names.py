"""Names of the networks whose agreement is measured."""

NETWORKS = {
    "timm": (
        "resnet50",
        "efficientnet_b0",
        "efficientnetv2_rw_s",
        "convnext_tiny",
        "mobilenetv3_large_100",
        "vit_small_patch16_224",
        "swin_tiny_patch4_window7_224",
        "regnety_008",
        "edgenext_small",
        "maxvit_pico_rw_256",
    ),
    "torchvision": ("densenet121", "efficientnet_b0", "convnext_tiny", "mobilenet_v3_large", "swin_t"),
    "Keras": ("MobileNetV2", "EfficientNetB0", "home-made CNN"),
    "transformers": ("ViT", "ConvNeXt"),
}
"""Names of the measured networks, by library."""

AGREEMENT_NETWORKS = tuple(f"{library}/{name}" for library, names in NETWORKS.items() for name in names)
"""The networks in the form that the command line takes."""
