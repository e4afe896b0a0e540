"""What the name of a folder suggests about the images in it."""

import re
import unicodedata
from collections.abc import Sequence

SPLITS_BY_NAME = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
"""train, val or test, by what folders of that part are called, in lower case."""
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
    """The label that a name stands for: in Unicode's composed form, without surrounding blanks."""
    return unicodedata.normalize("NFC", name).strip() or name


def is_system_folder(name: str) -> bool:
    """Whether operating systems leave folders of this name among images."""
    return name in _LITTER


def suggests_split(name: str) -> bool:
    """Whether a word of the name is one for parts of a data set: TestA, fold_0, C-NMC_training_data."""
    return any(map(_PART.fullmatch, _words(name)))


def suggested_split(name: str) -> str:
    """train, val or test, if the first word for a part says so; else empty."""
    word = next(filter(None, map(_PART.fullmatch, _words(name))), None)
    return next((part for part, text in word.groupdict().items() if text), "") if word else ""


def proposed_splits(names: Sequence[str]) -> str:
    """A value for --split-folders, PART=FOLDER,..., by the folders' names; if none says train, the last one is test."""
    parts = {name: suggested_split(name) for name in names}
    if len(names) > 1 and "train" not in parts.values():
        parts = {**dict.fromkeys(names, "train"), names[-1]: "test"}
    return ",".join(f"{part}={name}" for name, part in parts.items() if part) or "train=FOLDER,test=FOLDER"


def suggests_view(name: str) -> bool:
    """Whether a word of the name says what was done to the images: Original, Segmented."""
    return any(map(_VIEW.fullmatch, _words(name)))


def is_one_of_many(name: str) -> bool:
    """Whether the name is a patient's, a slide's, a magnification or a day, as classes are seldom called."""
    return _ONE_OF_MANY.fullmatch(name.strip().casefold()) is not None


def _words(name: str) -> Sequence[str]:
    return [word.casefold() for word in _WORD.findall(name)]
