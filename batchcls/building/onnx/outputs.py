"""What the outputs of an ONNX classifier are, judged by their values, and what makes logits of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from batchcls.records import Logits

Kind = Literal["logits", "probabilities"]
Values = npt.NDArray[np.float32]

LEAST_PROBABILITY = 1e-30
"""What a probability of 0 becomes, whose logarithm no engine could hold."""
_TOLERANCE = 0.02
"""By which probabilities that were rounded or clipped may miss a sum of 1."""
_CONSTANT_SUM = 1e-3
"""By which other sums of what is shared out, relative to them, may differ from one another."""
_RESHAPING = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that leave every value, and the order of values, as they were."""
_WIDE = (TensorProto.FLOAT, TensorProto.DOUBLE)
_MIXING = ("Gemm", "MatMul", "Conv", "ConvTranspose", "GlobalAveragePool", "AveragePool", "Einsum", "LSTM", "GRU")
"""Operators before which nothing is the closing of a classifier."""

_BOUNDED = ("Tanh", "Sigmoid", "HardSigmoid", "Softmax", "Exp")
"""Operators behind which no logits come, unless a logarithm follows."""


class UnclearOutputsError(ValueError):
    """Outputs that are not one number for each of several classes; says what they are."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a file's outputs are."""

    kind: Kind
    numbers: int
    """Outputs for an image; a single one is that of the second of two classes."""
    change: float = 0.0
    """Largest change of a probability by having them sum to 1."""

    @property
    def classes(self) -> int:
        return max(2, self.numbers)

    def logits(self, values: Values) -> Logits:
        """The file's own answers as (N, classes) float32 logits, whose softmax is its probabilities."""
        if self.kind == "probabilities":
            both = np.concatenate([1 - values, values], axis=1) if self.numbers == 1 else values
            return np.log(np.maximum(both, LEAST_PROBABILITY, dtype=np.float32))
        return np.concatenate([np.zeros_like(values), values], axis=1) if self.numbers == 1 else values


def judged(values: Values, extremes: Values, closing: frozenset[str], told: str) -> Judgement:
    """What ``values`` are: probabilities if they lie within 0..1 and sum to 1, or to another constant; else logits.

    Args:
        values: (N, numbers), to images of many kinds.
        extremes: (M, numbers), to inputs far beyond those of any image: a logit leaves 0..1 there.
        closing: Operators behind the last layer with weights; see `closing_operators`.
        told: ``logits`` or ``probabilities``, as a recipe says; ``auto``: by the values.

    Raises:
        UnclearOutputsError: If they are neither, or both are likely.
    """
    if told == "logits":
        return Judgement("logits", values.shape[1])
    if not np.isfinite(values).all():
        raise UnclearOutputsError("some of its answers to drawn images are not numbers; check its weights")
    extremes = extremes[np.isfinite(extremes).all(axis=1)]
    everything = np.concatenate([values, extremes])
    if np.ptp(everything, axis=0).max() == 0:
        raise UnclearOutputsError(f"it answers every image with the same {_shown(values)}, whatever is on it")
    if "TopK" in closing:
        raise UnclearOutputsError("it ends in a TopK, which loses what class a value is of; export it without")
    one = values.shape[1] == 1
    kind = _kind_of_one(everything, closing, told) if one else _kind(values, everything, closing, told)
    if kind == "logits" or one:
        return Judgement(kind, values.shape[1])
    sums = values.sum(axis=1, keepdims=True)
    return Judgement(kind, values.shape[1], float(np.abs(values / sums - values / _whole(sums)).max()))


def _kind(values: Values, everything: Values, closing: frozenset[str], told: str) -> Kind:
    sums = everything.sum(axis=1, dtype=np.float64)
    whole = _whole(sums)
    low, high = everything.min(), everything.max()
    if told == "probabilities":
        if low < -_TOLERANCE * whole or sums.min() <= 0:
            raise UnclearOutputsError(f"a recipe says output = 'probabilities', but it answers {_shown(values)}")
        return "probabilities"
    if low >= -1e-3 * whole and _sum_to(whole, sums, np.ptp(everything, axis=0).max()):
        return "probabilities"
    if np.array_equal(everything, np.rint(everything)):
        raise UnclearOutputsError(
            f"it answers with whole numbers, such as {_shown(values)}, which are no probabilities"
        )
    if "Sigmoid" in closing and low >= 0 and high <= 1:
        raise UnclearOutputsError(
            f"it ends in a Sigmoid over {values.shape[1]} outputs, so an image may have several labels at once; "
            "batchcls gives each just one"
        )
    if low >= 0 and high <= 1:
        raise UnclearOutputsError(
            f"its answers lie within 0 and 1 and sum to {sums.min():.3g} to {sums.max():.3g}, which may be "
            'probabilities or logits; say which in a recipe: output = "probabilities", or "logits"'
        )
    _refuse_changed(everything, closing)
    return "logits"


def _refuse_changed(everything: Values, closing: frozenset[str]) -> None:
    """Refuse probabilities that something was made of, which no softmax turns into them again."""
    with np.errstate(over="ignore"):
        total = np.exp(-everything.astype(np.float64)).sum(axis=1)
    if np.abs(total - 1).max() <= _TOLERANCE:
        raise UnclearOutputsError("it answers with negative logarithms of probabilities; export it without the sign")
    bounded = [name for name in (*_BOUNDED, "LogSoftmax") if name in closing]
    if bounded and not (closing & {"Log", "LogSoftmax"} and _are_logarithms(everything)):
        raise UnclearOutputsError(
            f"it ends in {bounded[0]}, but its answers, within {everything.min():.3g} and {everything.max():.3g}, are "
            "no probabilities, nor their natural logarithms; export it without what follows its last layer, or say in "
            'a recipe: output = "logits"'
        )


def _are_logarithms(everything: Values) -> bool:
    """Whether a softmax makes of them what they are logarithms of; of one number, whether it is log(p / (1 - p))."""
    if everything.shape[1] == 1:
        return bool(everything.max() > 0)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.exp(everything.astype(np.float64)).sum(axis=1)
        return bool(np.ptp(sums) <= _TOLERANCE * sums.max())


def _kind_of_one(everything: Values, closing: frozenset[str], told: str) -> Kind:
    low, high = everything.min(), everything.max()
    if {"Softmax", "ReduceMax"} <= closing:
        raise UnclearOutputsError(
            "it answers with its largest probability alone, not saying of which class; export it without its last "
            "ReduceMax"
        )
    within = low >= -1e-3 and high <= 1 + 1e-3
    if told == "probabilities" and not within:
        raise UnclearOutputsError(f"a recipe says output = 'probabilities', but it answers {low:.3g} to {high:.3g}")
    if np.array_equal(everything, np.rint(everything)) and not closing & {"Sigmoid", "HardSigmoid"}:
        raise UnclearOutputsError(
            "it answers with one whole number, such as the position of a class; export it without its last ArgMax"
        )
    if within:
        return "probabilities"
    _refuse_changed(everything, closing)
    return "logits"


def _sum_to(whole: float, sums: npt.NDArray[np.float64], spread: float) -> bool:
    off = np.abs(sums / whole - 1).max() if whole > 0 else np.inf
    if whole in (1.0, 100.0):
        return bool(off <= _TOLERANCE)
    return bool(off <= _CONSTANT_SUM and np.ptp(sums) < spread / 10)  # else it is a network that hardly answers


def _whole(sums: npt.NDArray[np.floating]) -> float:
    """What shares are shares of: 1, or 100 where they are percent, or any other sum."""
    middle = float(np.median(sums))
    return next((whole for whole in (1.0, 100.0) if abs(middle / whole - 1) <= _TOLERANCE), middle)


def softmax(logits: Logits) -> Values:
    """Probabilities, each row's sum 1."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def closing_operators(graph: onnx.GraphProto) -> frozenset[str]:
    """Types of the operators between the last layer with weights and the output."""
    makers = {name: node for node in graph.node for name in node.output}
    names, operators = [graph.output[0].name], set()
    seen = set(names)
    while names:
        node = makers.get(names.pop())
        if node is None:
            continue
        operators.add(node.op_type)
        if node.op_type not in _MIXING:
            fresh = [name for name in node.input if name not in seen]
            seen.update(fresh)
            names += fresh
    return frozenset(operators)


def answering_logits(model: onnx.ModelProto, judgement: Judgement, *, whole: bool) -> onnx.ModelProto | None:
    """``model`` with float32 ``logits``, (N, classes), as its output.

    Args:
        whole: Logarithms are put behind the file's probabilities. Else its closing Softmax or Sigmoid is taken off,
            which is more exact; None if it has none, or answers logits anyhow.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    makers = {name: node for node in graph.node for name in node.output}
    name = _before_reshaping(makers, graph.output[0].name)
    logits = judgement.kind == "logits"
    if not whole:
        last = makers.get(name)
        if logits or last is None or last.op_type not in ("Softmax", "Sigmoid"):
            return None
        logits, name = True, _before_reshaping(makers, last.input[0])
    steps = _Steps(graph)
    name = steps.add("Cast", name, to=TensorProto.FLOAT)
    name = steps.add("Reshape", name, np.array([-1, judgement.numbers]))
    if judgement.numbers == 1:
        # softmax((0, x)) is (1 - sigmoid(x), sigmoid(x))
        first = steps.add("Sub", name, name) if logits else steps.add("Sub", np.array([[1]], np.float32), name)
        name = steps.add("Concat", first, name, axis=1)
    if not logits:
        name = steps.add("Log", steps.add("Max", name, np.array(LEAST_PROBABILITY, np.float32)))
    graph.node.append(helper.make_node("Identity", [name], ["logits"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", judgement.classes]))
    _drop_unused(graph)
    return changed


class _Steps:
    """Operators that are put behind a graph's own."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._count = 0

    def add(self, operator: str, *inputs: str | npt.NDArray[Any], **attributes: Any) -> str:
        """Append an operator, and return the name of its result."""
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        result = self._name()
        self._graph.node.append(helper.make_node(operator, names, [result], **attributes))
        return result

    def _constant(self, value: npt.NDArray[Any]) -> str:
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"answer_{self._count}"


def _before_reshaping(makers: Mapping[str, onnx.NodeProto], name: str) -> str:
    """What became ``name`` by operators that leave values and their order as they were."""
    while (node := makers.get(name)) is not None and (node.op_type in _RESHAPING or _widens(node)):
        name = node.input[0]
    return name


def _widens(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(item.name == "to" and item.i in _WIDE for item in node.attribute)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the steps whose results nobody uses any more, in place."""
    used = {graph.output[0].name}
    for node in reversed(list(graph.node)):
        if used.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            used.update(node.input)


def _shown(values: Values) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values[0][:4])}{', ...' if values.shape[1] > 4 else ''})"
