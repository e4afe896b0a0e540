"""The index of an unfinished output in an object store: which objects are its parts."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, groupby, repeat
from typing import Any, Self

from batchcls.errors import OutputError

LOCK, INDEX = "lock", "parts.json"
"""Names of the objects that are the lock and the index."""
_OWN_NAME = re.compile(
    r"lock(-clock-[0-9a-f]{16})?|parts\.json|(part-\d{6,}|run-\d+|beside)-[0-9a-f]{16}\.(arrow|json)"
)


@dataclass(slots=True)
class Finish:
    """What a run that was about to end wrote down of its whole output."""

    size: int
    sha256: str
    beside: str | None
    """Name of the object with the content of the JSON file beside the output; None for an output without."""


@dataclass(slots=True)
class PartIndex:
    """The objects of an unfinished output; an object that the index does not name counts for nothing."""

    note: str | None = None
    """Name of the object with the note on the run."""
    parts: list[str] = field(default_factory=list)
    """Token of the run that wrote each part, by the part's number."""
    finish: Finish | None = None

    def part_name(self, number: int) -> str:
        """Name of the object that is the part of a number."""
        return part_name(number, self.parts[number])

    def names(self) -> set[str]:
        """Names of all objects that count."""
        others = [self.note, self.finish.beside if self.finish else None]
        return {*map(part_name, range(len(self.parts)), self.parts), *(name for name in others if name is not None)}

    def to_json(self, writer: str, serial: int) -> bytes:
        """The index as a content that no other index has.

        Args:
            writer: Token of the run that writes it.
            serial: Number that grows with each index that this run writes.
        """
        finish = self.finish
        values = {
            "writer": writer,
            "serial": serial,
            "note": self.note,
            "parts": [[token, len(list(run))] for token, run in groupby(self.parts)],
            "finish": finish and {"size": finish.size, "sha256": finish.sha256, "beside": finish.beside},
        }
        return json.dumps(values, indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes, most_parts: int) -> Self:
        """The index that `to_json` wrote.

        Raises:
            ValueError: If the content is none, names more than ``most_parts`` parts, or names other objects.
        """
        try:
            values: dict[str, Any] = json.loads(content)
            runs = [(str(token), int(count)) for token, count in values["parts"]]
            if any(count < 1 for _, count in runs) or sum(count for _, count in runs) > most_parts:
                raise ValueError(f"it names none, or more than {most_parts:,} parts")
            note, finish = values["note"], values["finish"]
            names = [note, finish["beside"] if finish else None, *(part_name(0, token) for token, _ in runs)]
            if not all(name is None or _OWN_NAME.fullmatch(name) for name in names):
                raise ValueError("it names objects that are no parts")
            return cls(
                note,
                list(chain.from_iterable(repeat(token, count) for token, count in runs)),
                Finish(int(finish["size"]), str(finish["sha256"]), finish["beside"]) if finish else None,
            )
        except (LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError("it is no index") from error


def part_name(number: int, token: str) -> str:
    """Name of the object with the part of a number, as the run with a token writes it."""
    return f"part-{number:06d}-{token}.arrow"


def check_names(names: Iterable[str], place: str) -> None:
    """Refuse a folder that holds objects that batchcls did not create.

    Args:
        names: Names of all objects in it.
        place: URL of the folder.

    Raises:
        OutputError: If there is an object of another name.
    """
    for name in names:
        if not _OWN_NAME.fullmatch(name):
            raise OutputError(
                f"'{place}/{name}' is an object that batchcls did not make; nothing was touched: move it away, or "
                "choose another --out"
            )
