"""The format of an image file, by its first bytes."""

from batchcls.images.formats.refusal import RefusedError

_FORMATS = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"BM": "BMP",
    b"\x28\0\0\0": "DIB",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"RIFF": "WEBP",
    b"\0\0\0\x0cjP": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    **{b"P%d" % kind: "PPM" for kind in range(1, 7)},
}
"""Pillow's name of the format by a file's first bytes; PostScript is left out, for other programs would execute it."""
_NOT_DECODED = {
    b"GIF8": "GIF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL": "JPEG XL",
    b"MM\0+": "BigTIFF of big-endian numbers",
}
_SLIDE_ENDINGS = (".svs", ".ndpi")
WHOLE_SLIDE = "whole slides are not decoded; cut them into tiles"
"""Why the file of a slide scanner is not decoded."""


def is_whole_slide_name(name: str) -> bool:
    """Whether a file's name is that of a slide scanner's file."""
    return name.lower().endswith(_SLIDE_ENDINGS)


def format_of(name: str, data: bytes) -> str:
    """Pillow's name for the format of a file called ``name``, by its first 16 bytes.

    Raises:
        RefusedError: If files of that format are not decoded.
    """
    if is_whole_slide_name(name):
        raise RefusedError("unsupported", WHOLE_SLIDE)
    for magic, format_ in _NOT_DECODED.items():
        if data.startswith(magic):
            raise RefusedError("unsupported", f"{format_} is not decoded; convert it to PNG")
    if data[4:8] == b"ftyp":
        raise RefusedError("unsupported", "HEIC and AVIF are not decoded; convert it to PNG")
    known = next((format_ for magic, format_ in _FORMATS.items() if data.startswith(magic)), None)
    if known is None or (known == "WEBP" and data[8:12] != b"WEBP"):
        raise RefusedError("not an image", f"it begins with {data[:8]!r}")
    return known
