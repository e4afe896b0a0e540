"""Say in a recipe what an image processor of transformers does, and prove it on drawn images."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from batchcls.building.hugging_face.folder import HuggingFaceFolder
from batchcls.building.hugging_face.library import library_failures, transformers_library
from batchcls.engine.probes import draw_probes
from batchcls.errors import CheckpointError, RecipeError
from batchcls.networks.preprocess import Preprocess
from batchcls.networks.recipe import Recipe
from batchcls.networks.transforms import input_transform

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Names of Pillow's filters by their numbers."""
_SIZES_PX = ((97, 131), (131, 97), (251, 250), (64, 64), (321, 517))
"""Heights and widths of the images on which a recipe is compared with the image processor."""
_LARGEST_MEAN_DIFFERENCE = 0.25
"""Largest mean difference of a pixel, of 255, between the two: 0 if they do the same, 0.6 with a neighboring filter."""
_SAID = ("image_processor_type", "size", "do_resize", "do_center_crop", "crop_size", "crop_pct", "do_pad", "resample")
"""Keys that an error repeats."""
_UNKNOWN = "write what training did into a recipe: --recipe FILE"

_LARGEST_SIDE_PX = 8192

_Process = Callable[[Image.Image], npt.NDArray[np.float32]]
"""Function from an RGB image to a (3, H, W) float32 input."""


def recipe_of_processor(folder: HuggingFaceFolder) -> dict[str, Any]:
    """Recipe keys that do to images what the folder's ``preprocessor_config.json`` says.

    Raises:
        CheckpointError: If no recipe does that, or it names no image processor of transformers.
        BatchclsError: If transformers is not installed.
    """
    values = folder.preprocessor or {}
    processor = _processor(folder, values)
    images = [_image(size_px) for size_px in _SIZES_PX]
    try:
        inputs = [processor(image) for image in images]
        scale = _scale(processor)
    except library_failures() as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the image processor of {str(folder.path)!r} cannot be used: {reason}") from error
    size_px = (inputs[0].shape[1], inputs[0].shape[2])
    for keys in _candidates(values, size_px):
        try:
            preprocess = Recipe().with_values({**keys, **scale}).preprocess
        except RecipeError:
            continue
        if all(_agrees(preprocess, image, expected) for image, expected in zip(images, inputs, strict=True)):
            return {**keys, **scale}
    steps = ", ".join(f"{key} {values[key]}" for key in _SAID if values.get(key) is not None)
    raise CheckpointError(
        f"the preprocessor_config.json of {str(folder.path)!r} asks for what no recipe can say ({steps}); {_UNKNOWN}"
    )


def _processor(folder: HuggingFaceFolder, values: Mapping[str, Any]) -> _Process:
    """The folder's image processor, by Pillow; its class must be one that transformers has for images."""
    transformers = transformers_library()
    from_types = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
    named = values.get("image_processor_type") or values.get("feature_extractor_type")
    pillow = {item["torchvision"]: item["pil"] for item in from_types.values() if {"torchvision", "pil"} <= item.keys()}
    own = from_types.get(folder.configuration.get("model_type"), {}).get("torchvision")
    name = str(named or own).removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    if name not in pillow or "auto_map" in values:
        raise CheckpointError(
            f"the preprocessor_config.json of {str(folder.path)!r} names {str(named)[:60]!r}, no image processor of "
            f"transformers for images alone; {_UNKNOWN}"
        )
    if (largest := _largest(values)) > _LARGEST_SIDE_PX:
        raise CheckpointError(
            f"the preprocessor_config.json of {str(folder.path)!r} asks for {largest:,} pixels; {_LARGEST_SIDE_PX:,} "
            "are the most"
        )
    plain = {key: value for key, value in values.items() if not key.endswith("_type") and not key.startswith("_")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = getattr(transformers, pillow[name])(**plain)
        except library_failures() as error:
            raise CheckpointError(
                f"the preprocessor_config.json of {str(folder.path)!r} does not suit {name}: {error}"
            ) from error

    def process(image: Image.Image) -> npt.NDArray[np.float32]:
        return np.asarray(made(image, return_tensors="np")["pixel_values"][0], np.float32)

    return process


def _largest(value: Any) -> int:
    """The largest whole number in a JSON value."""
    if isinstance(value, Mapping | list):
        return max(map(_largest, value.values() if isinstance(value, Mapping) else value), default=0)
    return value if isinstance(value, int) else 0


def _image(size_px: tuple[int, int]) -> Image.Image:
    return Image.fromarray(draw_probes(size_px)[1])


def _scale(process: _Process) -> dict[str, Any]:
    """Recipe keys of the normalization, from what becomes of plain colors: each channel is scaled and shifted."""
    black, red, white = (
        process(Image.new("RGB", (64, 64), color)).mean((1, 2), np.float64) for color in ("black", "red", "white")
    )
    channels = "BGR" if abs(red[2] - black[2]) > abs(red[0] - black[0]) else "RGB"
    std = 1 / (white - black)
    return {
        "channels": channels,
        "mean": tuple(_rounded(value) for value in -black * std),
        "std": tuple(_rounded(value) for value in std),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.6g}") + 0.0


def _candidates(values: Mapping[str, Any], size_px: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Recipe keys of the ways to come to ``size_px``: stretched, or the center after scaling the shorter side."""
    resample, size, fraction = (values.get(key) for key in ("resample", "size", "crop_pct"))
    named = _FILTERS.get(resample) if isinstance(resample, int) else None
    sides = [side for side in (size.values() if isinstance(size, Mapping) else [size]) if isinstance(side, int)]
    if isinstance(fraction, float) and 0 < fraction <= 1:
        sides += [int(side / fraction) for side in sides]
    shorter = sorted({*sides, max(size_px), round(max(size_px) / 0.875)})
    filters = [named] if named else list(_FILTERS.values())
    for filter_ in filters:
        yield {"size_px": size_px, "resize": "stretch", "interpolation": filter_}
    for filter_, side in product(filters, shorter):
        yield {"size_px": size_px, "resize": "shorter", "shorter_px": side, "interpolation": filter_}


def _agrees(preprocess: Preprocess, image: Image.Image, expected: npt.NDArray[np.float32]) -> bool:
    """Whether a recipe makes of ``image`` what the image processor did, but for rounding.

    transformers rounds the place of a crop down, torchvision and recipes to the nearest pixel; both count as the same.
    """
    top = left = 0
    height, width = preprocess.size_px
    if preprocess.resize == "shorter":
        scaled_width, scaled_height, _, _ = preprocess.crop(*image.size)
        top, left = (scaled_height - height) // 2, (scaled_width - width) // 2
        preprocess = replace(preprocess, resize="stretch", size_px=(scaled_height, scaled_width))
    actual = input_transform(preprocess)(image).numpy()[:, top : top + height, left : left + width]
    if actual.shape != expected.shape:
        return False
    std = np.asarray(preprocess.std, np.float32)[:, None, None]
    return float((np.abs(actual - expected) * std).mean()) * 255 <= _LARGEST_MEAN_DIFFERENCE
