"""What differs between two records of a run."""

from collections.abc import Mapping
from typing import Any


def differences(values: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """The entries of ``values`` that differ from ``others``, as text; a key that ``values`` lacks counts as None."""
    words = []
    for key in sorted(values.keys() | others.keys()):
        value, other = values.get(key), others.get(key)
        if value != other:
            if isinstance(value, dict) and isinstance(other, dict):
                value = {name: value[name] for name in value if name not in other or value[name] != other[name]}
            words.append(f"{key} {value!r}")
    return ", ".join(words)
