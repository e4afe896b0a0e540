"""Append operators and their constants to an ONNX graph, under names of their own."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper


class GraphSteps:
    """Appends operators and constants to a graph.

    Args:
        graph: The graph, which is changed in place.
        prefix: Beginning of the names of all results and constants; no name in the graph may begin so.
    """

    def __init__(self, graph: onnx.GraphProto, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix
        self._count = 0

    def add(self, operator: str, *inputs: str | npt.NDArray[Any] | np.generic, **attributes: Any) -> str:
        """Append an operator, and return the name of its result; inputs are names, or constants."""
        names = [value if isinstance(value, str) else self.constant(np.asarray(value)) for value in inputs]
        result = self._name()
        self._graph.node.append(helper.make_node(operator, names, [result], **attributes))
        return result

    def constant(self, value: npt.NDArray[Any]) -> str:
        """Append a constant, and return its name."""
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}_{self._count}"
