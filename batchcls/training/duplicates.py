"""Which image files show the same image."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping

from batchcls.images.image_file import read_pixels
from batchcls.records import Slide


def fingerprint(slide: Slide) -> bytes:
    """16 bytes that two image files share only if they have the same size and RGB pixels, in whatever format.

    Raises:
        OSError: If the file cannot be read, or its disk does not answer.
        ValueError: If the file is no image that `batchcls run` decodes; damaged pixels may raise any error of Pillow's.
    """
    pixels = read_pixels(slide)
    digest = hashlib.blake2b(repr((pixels.shape[1], pixels.shape[0])).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return digest.digest()


def duplicate_reasons(labels: Mapping[str, str], fingerprints: Mapping[str, bytes]) -> dict[str, str]:
    """For each path to leave out because another path shows the same image, the reason.

    Of paths with the same image and label the first stays. Where the labels of one image differ, nobody knows which
    is true, so none of its paths stays.

    Args:
        labels: Label of each path; the paths that should rather stay come first.
        fingerprints: `fingerprint` of each path.
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
