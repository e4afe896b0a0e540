"""The networks of the library timm by their names, and its configuration of their input."""

import logging
import math
from collections.abc import Mapping
from typing import Any, cast

import timm
from timm.data import resolve_data_config
from timm.models import get_pretrained_cfg, is_model
from torch import Tensor, nn

from batchcls.errors import CheckpointError

_FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")


def is_timm_network(name: str) -> bool:
    """Whether timm has a network ``name``, such as ``efficientnet_b0``, or ``efficientnet_b0.ra_in1k`` with a tag."""
    bare, dot, tag = name.partition(".")
    if not is_model(bare) or (dot and not tag):
        return False
    try:
        return not tag or get_pretrained_cfg(name) is not None
    except RuntimeError:  # timm's words for a tag that it does not know
        return False


def timm_names() -> list[str]:
    """Names of all networks of the timm that is installed, without tags."""
    return cast(list[str], timm.list_models())


def timm_tags(name: str) -> list[str]:
    """Tags of the trained weights of a network, such as ``ra_in1k``."""
    return [full.partition(".")[2] for full in timm.list_models(f"{name}.*", pretrained=True)]


def timm_network(name: str, classes: int, **options: Any) -> nn.Module:
    """A network of timm with random weights, on the current default device and in training mode.

    Args:
        name: See `is_timm_network`.
        classes: Number of logits.
        options: Further arguments of `timm.create_model`, such as ``in_chans``.

    Raises:
        CheckpointError: If this network cannot be made, as when its own dependencies are missing.
    """
    try:
        return cast(nn.Module, timm.create_model(name, pretrained=False, num_classes=classes, **options))
    except (RuntimeError, ValueError, TypeError, ImportError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"timm {timm.__version__} cannot make its network {name!r}: {reason}") from error


def timm_config(name: str) -> Mapping[str, Any]:
    """timm's ``pretrained_cfg`` of a network, that of the tag in ``name`` if it has one."""
    config = get_pretrained_cfg(name)
    return cast(Mapping[str, Any], config.to_dict()) if config is not None else {}


def timm_preprocess(config: Mapping[str, Any], arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Recipe values for the preprocessing that timm evaluates with.

    Args:
        config: timm's ``pretrained_cfg`` of the network, as `timm_config` or the ``config.json`` of a folder of
            Hugging Face has it.
        arguments: Arguments of timm's training script that win over ``config``, such as ``img_size``.

    Raises:
        CheckpointError: If timm crops, fills or interpolates in a way that no recipe can say.
    """
    try:
        data = resolve_data_config(dict(arguments or {}), pretrained_cfg=dict(config))
        channels, height, width = (int(value) for value in data["input_size"])
        crop_fraction, mode, filter_ = float(data["crop_pct"]), str(data["crop_mode"]), str(data["interpolation"])
        mean, std = ([float(value) for value in data[key]] for key in ("mean", "std"))
        shorter = math.floor(min(height, width) / crop_fraction)
    except (TypeError, ValueError, AssertionError, ZeroDivisionError, OverflowError, LookupError) as error:
        raise CheckpointError(f"timm's configuration of the network's input makes no sense: {error}") from error
    values = {"size_px": [height, width], "interpolation": filter_, "mean": mean, "std": std}
    stretches = mode == "squash" and crop_fraction == 1
    crops = mode == "center" and height == width and 0 < crop_fraction <= 1
    if channels != 3 or filter_ not in _FILTERS or not (stretches or crops):
        raise CheckpointError(
            f"timm's configuration asks for an input of {channels}x{height}x{width}, crop_mode {mode!r} with crop_pct "
            f"{crop_fraction:g} and interpolation {filter_!r}, which a recipe cannot say; "
            "write what comes closest into a recipe: --recipe FILE"
        )
    if stretches:
        return {**values, "resize": "stretch"}
    return {**values, "resize": "shorter", "shorter_px": shorter}


def timm_weights(name: str) -> Mapping[str, Tensor]:
    """timm's own weights of a network, downloaded unless this machine already has them.

    Raises:
        CheckpointError: If timm has no such weights, or they cannot be downloaded.
    """
    config = get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise CheckpointError(f"timm has no weights of {name!r}; train it from scratch")
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # a line for each retry
    try:
        network = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"timm's weights of {name!r} could not be fetched ({reason}); "
            "fetch that file elsewhere, and name it: --weights FILE"
        ) from error
    finally:
        logger.setLevel(level)
    return cast(Mapping[str, Tensor], network.state_dict())
