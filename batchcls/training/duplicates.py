"""Image files that show the same image, found by a fingerprint of their pixels, or nearly the same, by their hashes."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from batchcls.images.decoders.resample import resample_quickly
from batchcls.images.image_file import read_pixels
from batchcls.images.near_copies import ImageSets, joined_copies
from batchcls.images.perceptual_hash import PREPROCESS, Hashes, hashes
from batchcls.records import Slide


def fingerprint(slide: Slide) -> tuple[bytes, Hashes]:
    """What tells an image again, whatever format its pixels are stored in.

    Returns:
        A digest of 16 bytes over the size and the RGB pixels, and the perceptual hash, of one row.

    Raises:
        OSError: If the file cannot be read, or its disk does not answer.
        ValueError: If the file is no image that `batchcls run` decodes; damaged pixels may raise any Pillow error.
    """
    pixels = read_pixels(slide)
    digest = hashlib.blake2b(repr((pixels.shape[1], pixels.shape[0])).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return digest.digest(), hashes(resample_quickly(pixels, PREPROCESS)[None])


def duplicate_reasons(labels: Mapping[str, str], fingerprints: Mapping[str, bytes]) -> dict[str, str]:
    """The reason for leaving out each path that repeats an image; paths that stay have no entry.

    Among paths with the same image and label the first stays. If the labels of one image differ, the true one is
    unknown, so none of its paths stays.

    Args:
        labels: Label by path, in order of precedence: the first of several equal images stays.
        fingerprints: `fingerprint` of the image, by path.
    """
    paths_by_image: dict[bytes, list[str]] = defaultdict(list)
    for path in labels:
        paths_by_image[fingerprints[path]].append(path)
    reasons: dict[str, str] = {}
    for paths in paths_by_image.values():
        if len({labels[path] for path in paths}) > 1:
            for path in paths:
                other = next(other for other in paths if other != path)
                reasons[path] = f"same image as {other}, with another label"
        else:
            reasons |= dict.fromkeys(paths[1:], f"same image as {paths[0]}")
    return reasons


def near_copies(perceptual_hashes: Sequence[Hashes]) -> list[list[int]]:
    """Positions of images that were recompressed, resized, turned or mirrored of one another, a list for each such set.

    Args:
        perceptual_hashes: Hash of each image, of one row.
    """
    if not perceptual_hashes:
        return []
    members: dict[int, list[int]] = defaultdict(list)
    for position, first in enumerate(joined_copies(ImageSets(np.concatenate(perceptual_hashes))).tolist()):
        members[first].append(position)
    return [positions for positions in members.values() if len(positions) > 1]
