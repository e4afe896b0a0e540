"""What the name of a folder says of the images in it."""

import re
import unicodedata
from collections.abc import Sequence

PARTS_CALLED = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
"""What a part of a data set may be called, in lower case."""
_LITTER = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")
_PART = re.compile(
    r"(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?|dev)|(?P<test>test(?:ing)?|holdout|eval(?:uation)?)"
    r"|k?folds?|cv|splits?|parts?|subsets?)(?:set|data|[a-d])?"
)
_VIEW = re.compile(
    r"originals?|raw|segment(?:ed|ation)|aug(?:mented|mentation)?|(?:pre)?processed|normali[sz]ed|resized|cropped|enhanced"
)
_ONE_OF_MANY = re.compile(
    r"(?:patient|pat|pt|pid|p|person|subject|subj|s|case|donor|animal|mouse|slide|smear|sample|specimen|roi|tile|field"
    r"|image|img|series|scan|study|visit|day|session|batch|run|uid|id)[\s_-]*\w?\d+"
    r"|x?\d+x|x\d+|\d{3,}|\d+(?:[-_.]\d+)+"
)


def label_of(name: str) -> str:
    """What a class is called, however its name is encoded and whatever blanks surround it."""
    return unicodedata.normalize("NFC", name).strip() or name


def is_litter(name: str) -> bool:
    """Whether a system leaves such folders among images."""
    return name in _LITTER


def is_part(name: str) -> bool:
    """Whether a word of it is what parts of a data set are called: TestA, fold_0, C-NMC_training_data."""
    return any(map(_PART.fullmatch, _words(name)))


def part_of(name: str) -> str:
    """train, val or test, if its first word of that kind says so."""
    word = next(filter(None, map(_PART.fullmatch, _words(name))), None)
    return next((part for part, text in word.groupdict().items() if text), "") if word else ""


def proposed_parts(names: Sequence[str]) -> str:
    """``names`` as PART=FOLDER,...: what they say of themselves; if none says that it trains, the last is the test."""
    parts = {name: part_of(name) for name in names}
    if len(names) > 1 and "train" not in parts.values():
        parts = {**dict.fromkeys(names, "train"), names[-1]: "test"}
    return ",".join(f"{part}={name}" for name, part in parts.items() if part) or "train=FOLDER,test=FOLDER"


def is_view(name: str) -> bool:
    """Whether a word of it says what was done to the images: Original, Segmented."""
    return any(map(_VIEW.fullmatch, _words(name)))


def is_one_of_many(name: str) -> bool:
    """Whether it is a patient, a slide, a magnification or a day: what classes are seldom called."""
    return _ONE_OF_MANY.fullmatch(name.strip().casefold()) is not None


def _words(name: str) -> Sequence[str]:
    return [word.casefold() for word in _WORD.findall(name)]
