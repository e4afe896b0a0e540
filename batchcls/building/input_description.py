"""How an image becomes a network's input, in words."""

from batchcls.networks.preprocess import Preprocess

_NORMALIZATIONS = {
    (0.485, 0.456, 0.406, 0.229, 0.224, 0.225): "ImageNet mean and std",
    (0.5, 0.5, 0.5, 0.5, 0.5, 0.5): "mean and std 0.5",
    (0.5, 0.5): "mean and std 0.5",
    (0.0, 0.0, 0.0, 1.0, 1.0, 1.0): "values 0 to 1",
    (0.0, 1.0): "values 0 to 1",
    (0.0, 0.0, 0.0, 1 / 255, 1 / 255, 1 / 255): "values 0 to 255",
    (0.0, 1 / 255): "values 0 to 255",
}
"""Usual normalizations, by the means and standard deviations of the channels."""
_CHANNELS = {"RGB": "", "BGR": "channels in the order BGR", "L": "in gray"}


def describe_input(preprocess: Preprocess) -> str:
    """The steps from an image to a network's input, such as ``224x224, stretched, ImageNet mean and std``."""
    height, width = preprocess.size_px
    size = f"{width}x{height}"
    resizing = (
        f"{size}, stretched"
        if preprocess.resize == "stretch"
        else f"shorter side to {preprocess.shorter_px}, center {size}"
    )
    numbers = (*preprocess.mean, *preprocess.std)
    steps = (
        resizing,
        "" if preprocess.interpolation == "bilinear" else preprocess.interpolation,
        _CHANNELS[preprocess.channels],
        _NORMALIZATIONS.get(numbers) or f"mean {_listed(preprocess.mean)} and std {_listed(preprocess.std)}",
        "normalized once more (transform_input)" if preprocess.transform_input else "",
    )
    return ", ".join(step for step in steps if step)


def input_line(preprocess: Preprocess, origin: str) -> str:
    """A line for the user on the input, and on what says so.

    Args:
        origin: What says how images become the input; empty: nothing does, it is assumed.
    """
    source = f"from {origin.removeprefix('from ')}" if origin else "assumed; --recipe changes it"
    return f"input     {describe_input(preprocess)} ({source})"


def _listed(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:.4g}" for number in numbers)
