"""Inputs that are almost right: bytes, JSON and words of sound ones, changed at random."""

import json
import random
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

Mutator = Callable[[random.Random, Sequence[bytes]], bytes]

LONGEST = 1 << 19
_NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e-300, 1e300, float("nan"), float("inf")),
    *("", "a", "0", "=1", "\0", "\ud800", "\x1b[31m", "ä", "a" * 5000, "../../etc/passwd", "[/red]", "NaN", "-inf"),
    *([], {}, [[]], [None], {"": ""}, {"a": {"a": {}}}, [0] * 300, ["a", "a"], [1, 2, 3], [0.1, 0.2, 0.3]),
)
_WORDS = re.compile(rb"\w+|\s+|[^\w\s]")
_TOKENS = (
    *(
        b"",
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r\n",
        b"\r",
        b'"',
        b"'",
        b"\0",
        b":",
        b"-",
        b"- ",
        b"[",
        b"]",
        b"{",
        b"}",
        b"=",
        b"#",
    ),
    *(
        b"sep=",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xfe\xff",
        b"\xff",
        b"\xed\xa0\x80",
        b"nan",
        b"inf",
        b"1e400",
        b"9" * 5000,
    ),
    *(
        b"0",
        b"1",
        b"-1",
        b"null",
        b"true",
        b"path",
        b"label",
        b"group",
        b"split",
        b"train",
        b"test",
        b"&a ",
        b"*a",
        b"<<: ",
    ),
    *(
        b"!!python/object ",
        b"? ",
        b"|\n",
        b"%YAML 9.9\n",
        b'"""',
        b"'''",
        b"[[a]]",
        b"a.b.c=1\n",
        b"\\u0000",
        b"\x1b[2J",
    ),
)


def mutated_bytes(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8, 30))):
        _change(chance, data, seeds)
    return bytes(data[:LONGEST])


def _change(chance: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    # Headers are where it matters: half of the changes are among the first bytes.
    place = chance.randrange(min(len(data), chance.choice((32, 512, 1 << 20))) + 1)
    length = chance.choice((1, 1, 2, 4, 8, 64, 1024))
    match chance.randrange(8):
        case 0 if place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        case 1:
            data[place : place + 1] = bytes([chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))])
        case 2:
            form = chance.choice("<>") + chance.choice("HIQ")
            whole = struct.calcsize(form)
            data[place : place + whole] = struct.pack(form, chance.choice(_NUMBERS) % (1 << 8 * whole))
        case 3:
            del data[place : place + length]
        case 4:
            data[place:place] = data[place : place + length] * chance.choice((1, 2, 20))
        case 5:
            other = chance.choice(seeds)
            start = chance.randrange(len(other) + 1)
            data[place : place + length] = other[start : start + length]
        case 6:
            data[place:place] = chance.randbytes(length)
        case 7 if chance.random() < 0.3:
            del data[place:]


def mutated_words(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    words = _WORDS.findall(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if sum(map(len, words)) > LONGEST:
            break
        place = chance.randrange(len(words) + 1)
        match chance.randrange(5):
            case 0:
                words[place : place + 1] = [chance.choice(_TOKENS)]
            case 1:
                words[place:place] = [chance.choice(_TOKENS)] * chance.choice((1, 1, 2, 200))
            case 2:
                del words[place : place + chance.choice((1, 3, 20))]
            case 3:
                words[place:place] = words[place : place + chance.choice((1, 5, 50))] * chance.choice((1, 2, 50))
            case 4 if chance.random() < 0.2:
                return mutated_bytes(chance, [b"".join(words)])
    return b"".join(words)[:LONGEST]


def mutated_json(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Of seeds that are JSON; now and then as words, which break its syntax."""
    if chance.random() < 0.15:
        return mutated_words(chance, seeds)
    try:
        values = json.loads(chance.choice(seeds))
    except (ValueError, RecursionError):  # one that was changed before
        return mutated_words(chance, seeds)
    for _ in range(chance.choice((1, 1, 2, 4))):
        values = changed(chance, values)
    text = json.dumps(values, ensure_ascii=chance.random() < 0.5)
    if chance.random() < 0.02:
        text = text[:-1] + ',"a":' + "[" * chance.choice((5, 2000, 100_000))
    return text.encode("utf-8", "surrogatepass")[:LONGEST]


def changed(chance: random.Random, value: Any) -> Any:
    """``value`` with one thing in it changed, at any depth."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        match chance.randrange(12):
            case 0:
                return {name: item for name, item in value.items() if name != key}
            case 1:
                return {**value, str(chance.choice(_VALUES)): chance.choice(_VALUES)}
            case 2:
                return {**value, key: value[chance.choice(list(value))]}
        return {**value, key: changed(chance, value[key])}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        match chance.randrange(6):
            case 0:
                return value[:place] + value[place + 1 :]
            case 1:
                return value[:place] + value[place : place + 1] * chance.choice((2, 3, 500)) + value[place + 1 :]
        return [*value[:place], changed(chance, value[place]), *value[place + 1 :]]
    if isinstance(value, str) and value and chance.random() < 0.3:
        return mutated_words(chance, [value.encode("utf-8", "surrogatepass")]).decode("utf-8", "replace")
    return chance.choice(_VALUES)
