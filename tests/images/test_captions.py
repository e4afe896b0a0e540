"""Captions: what is drawn is the text that was given, and boxes are never drawn."""

import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageDraw

from batchcls.images.captions import caption_font, class_caption, drawable, fitting_end, is_drawable
from batchcls.images.thumbnails import contact_sheet

LABELS = ("Benign", "Lymphozyt-µ", "Łagodny", "Αιμοσφαίριο", "Лимфоцит", "ßőŵ", "良性", "مرض", "\U0001f9ec")


def ink(text: str) -> bytes:
    """What is drawn for a text."""
    image = Image.new("L", (300, 40), 255)
    ImageDraw.Draw(image).text((2, 2), text, fill=0, font=caption_font(16))
    return image.tobytes()


@pytest.mark.parametrize("label", LABELS[:6])
def test_latin_greek_and_cyrillic_labels_are_drawn(label: str) -> None:
    assert class_caption(label, LABELS) == label
    box = ink("\U0010ffff")
    assert all(ink(character) != box for character in label)


def test_every_letter_of_three_alphabets_can_be_drawn() -> None:
    letters = [
        chr(code)
        for first, last in ((0x41, 0x24F), (0x386, 0x3FF), (0x400, 0x4FF))
        for code in range(first, last + 1)
        if unicodedata.category(chr(code)).startswith("L")
    ]

    assert [letter for letter in letters if not is_drawable(letter)] == []


@pytest.mark.parametrize(("label", "caption"), [("良性", "class 7"), ("\U0001f9ec", "class 9")])
def test_a_label_that_cannot_be_drawn_is_called_by_its_number(label: str, caption: str) -> None:
    assert class_caption(label, LABELS) == caption


def test_what_cannot_be_drawn_in_a_file_name_is_a_question_mark() -> None:
    assert drawable("µ/良性 1\x07.png") == "µ/?? 1?.png"


def test_a_long_line_keeps_its_end_and_fits() -> None:
    font = caption_font(11)

    line = fitting_end("folder/" * 30 + "Лимфоцит.png", 160, font)

    assert line.startswith("...")
    assert line.endswith("Лимфоцит.png")
    assert font.getlength(line) <= 160


def test_captions_stand_below_their_pictures() -> None:
    sheet = np.asarray(contact_sheet([(Image.new("RGB", (40, 40), "white"), f"a.png\n{LABELS[4]}")], 1, 160))

    below = sheet[8 + 160 :].min(axis=(1, 2))

    assert (sheet[: 8 + 160] == 255).all()
    assert (below < 128).any()
