"""Small pictures of image files, alone and side by side."""

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from batchcls.images.captions import caption_font, fitting_end
from batchcls.images.image_file import opened_image
from batchcls.records import Slide

ANSWER_TIMEOUT_S = 10.0
"""How long the file system may take for one answer, before a page goes without the picture."""
_CAPTION_PX = 15
_GAP_PX = 8
_JPEG_QUALITY = 85


def thumbnail(slide: Slide, side_px: int) -> Image.Image | None:
    """An RGB picture of a slide, of at most ``side_px`` x ``side_px`` pixels; None if the slide cannot be decoded."""
    try:
        with opened_image(slide, ANSWER_TIMEOUT_S) as image:
            image.draft("RGB", (side_px, side_px))
            small = image.convert("RGB")
            small.thumbnail((side_px, side_px))
            return small
    except MemoryError:  # no fault of the file
        raise
    except Exception:  # noqa: BLE001  # one damaged file, whatever Pillow raises, must not cost the other pictures
        return None


def contact_sheet(cells: Sequence[tuple[Image.Image | None, str]], columns: int, side_px: int) -> Image.Image:
    """An RGB image that shows many pictures row by row, each above its caption, whose lines are cut to fit.

    Args:
        cells: Pictures, None for those that cannot be decoded, each with a caption of one line or more.
        columns: Number of pictures in a row.
        side_px: Largest width and height of a picture.
    """
    lines = max((caption.count("\n") + 1 for _, caption in cells), default=1)
    width, height = side_px + _GAP_PX, side_px + lines * _CAPTION_PX + _GAP_PX
    rows = -(-len(cells) // columns) or 1
    sheet = Image.new("RGB", (columns * width + _GAP_PX, rows * height + _GAP_PX), "white")
    pen, font = ImageDraw.Draw(sheet), caption_font(_CAPTION_PX - 4)
    for position, (image, caption) in enumerate(cells):
        left, top = position % columns * width + _GAP_PX, position // columns * height + _GAP_PX
        if image is None:
            pen.rectangle((left, top, left + side_px, top + side_px), fill="gainsboro")
        else:
            sheet.paste(image, (left + (side_px - image.width) // 2, top + (side_px - image.height) // 2))
        for row, line in enumerate(caption.split("\n")):
            pen.text(
                (left, top + side_px + row * _CAPTION_PX), fitting_end(line, side_px, font), fill="black", font=font
            )
    return sheet


def jpeg(image: Image.Image) -> bytes:
    """The bytes of ``image`` as a JPEG file."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def data_uri(content: bytes, media_type: str) -> str:
    """``content`` as a ``data:`` URI, by which an HTML page can embed it; ``media_type`` is such as ``image/jpeg``."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
