"""Names by which images are told from other files when a place is listed."""

IMAGE_ENDINGS = frozenset(
    # Formats that the decoders read.
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp")
    + (".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".pnm", ".pbm", ".pgm", ".ppm")
    # Formats that no decoder reads; such files are listed so that their rows tell the reason.
    + (".gif", ".heic", ".heif", ".avif", ".jxl", ".svs", ".ndpi")
)
_ENDINGS = frozenset(ending.encode() for ending in IMAGE_ENDINGS)


def has_image_ending(name: bytes) -> bool:
    """Whether a name ends like an image's."""
    return name[name.rfind(b".") :].lower() in _ENDINGS
