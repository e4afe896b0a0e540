"""Patterns in the names of folders that suggest splits, views, patients or system folders."""

import re
import unicodedata
from collections.abc import Sequence

SPLITS_BY_NAME = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
"""Split (train, val or test) by the usual names of its folder, in lower case."""
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
    """The label for the name of a folder: the name in Unicode's composed form, without surrounding blanks."""
    return unicodedata.normalize("NFC", name).strip() or name


def is_system_folder(name: str) -> bool:
    """Whether operating systems create folders of this name by themselves."""
    return name in _LITTER


def suggests_split(name: str) -> bool:
    """Whether a word of the name is one for parts of a data set: TestA, fold_0, C-NMC_training_data."""
    return any(map(_PART.fullmatch, _words(name)))


def suggested_split(name: str) -> str:
    """The split, train, val or test, that the first word for parts in a name suggests; empty if there is none."""
    word = next(filter(None, map(_PART.fullmatch, _words(name))), None)
    return next((part for part, text in word.groupdict().items() if text), "") if word else ""


def proposed_splits(names: Sequence[str]) -> str:
    """A proposal for the value of --split-folders, PART=FOLDER,..., from the folders' names.

    If no name suggests train, the last folder becomes test and the others train.
    """
    parts = {name: suggested_split(name) for name in names}
    if len(names) > 1 and "train" not in parts.values():
        parts = {**dict.fromkeys(names, "train"), names[-1]: "test"}
    return ",".join(f"{part}={name}" for name, part in parts.items() if part) or "train=FOLDER,test=FOLDER"


def suggests_view(name: str) -> bool:
    """Whether a word of the name denotes a processing of the images: Original, Segmented."""
    return any(map(_VIEW.fullmatch, _words(name)))


def is_one_of_many(name: str) -> bool:
    """Whether the name is that of a patient or a slide, a magnification or a date, which are seldom classes."""
    return _ONE_OF_MANY.fullmatch(name.strip().casefold()) is not None


def _words(name: str) -> Sequence[str]:
    return [word.casefold() for word in _WORD.findall(name)]
