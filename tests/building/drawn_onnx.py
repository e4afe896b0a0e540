"""ONNX classifiers of every input type, layout, number of channels, ending and operator set, with random weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from PIL import Image

from batchcls.building.onnx.graph_steps import GraphSteps
from batchcls.engine.probes import draw_probes
from batchcls.records import Pixels
from tests.building.onnx_networks import Floats, probability_of

HEIGHT, WIDTH = 14, 11
FLOAT, HALF, BYTES = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
NUMPY: dict[int, Any] = {FLOAT: np.float32, HALF: np.float16, BYTES: np.uint8}
KINDS = {"logits": "logits", "softmax": "shares", "one logit": "one logit", "sigmoid": "one probability"}
MEAN, STD = 0.45, 0.225


@dataclass(frozen=True)
class Drawing:
    """What to draw."""

    opset: int = 18
    takes: int = FLOAT
    computes: int = FLOAT
    layout: str = "NCHW"
    channels: int = 3
    ending: str = "logits"
    batch: int | str = "n"

    @property
    def recipe(self) -> dict[str, Any]:
        """Recipe keys that feed the network as `own_probabilities` does."""
        labels = ("a", "b", "c", "d") if self.ending in ("logits", "softmax") else ("no", "yes")
        scales = {} if self.takes == BYTES else {"mean": (MEAN,) * self.channels, "std": (STD,) * self.channels}
        return {"labels": labels, **scales}

    def model(self, middle: Any = None) -> onnx.ModelProto:
        """A convolution, a ReLU6, a mean and a linear layer, each in the form that the operator set has for it.

        Args:
            middle: Function from `GraphSteps` and the name of the (N, 8, 4, 3) values before the mean to that of the
                values that take their place.
        """
        graph, random, kind = onnx.GraphProto(name="drawn"), np.random.default_rng(6), NUMPY[self.computes]
        steps, name = GraphSteps(graph, "v"), "image"
        if self.takes != self.computes:
            name = steps.add("Cast", name, to=self.computes)
        if self.takes == BYTES:
            name = steps.add("Mul", steps.add("Sub", name, kind(255 * MEAN)), kind(1 / (255 * STD)))
        if self.layout == "NHWC":
            name = steps.add("Transpose", name, perm=[0, 3, 1, 2])
        kernel = random.normal(0, 0.5, (8, self.channels, 3, 3))
        name = steps.add("Conv", name, kernel.astype(kind), strides=[3, 3])
        name = (
            steps.add("Clip", name, kind(0), kind(6)) if self.opset >= 11 else steps.add("Clip", name, min=0.0, max=6.0)
        )
        name = middle(steps, name) if middle else name
        axes = ([np.array([2, 3])], {}) if self.opset >= 18 else ([], {"axes": [2, 3]})
        name = steps.add("ReduceMean", name, *axes[0], **axes[1], keepdims=0)
        rows = random.normal(0, 2, (8, 4 if self.ending in ("logits", "softmax") else 1))
        rows -= rows.mean(axis=0)
        name = steps.add("MatMul", name, (rows - rows.mean(axis=1, keepdims=True) * (rows.shape[1] > 1)).astype(kind))
        if self.ending in ("softmax", "sigmoid"):
            name = steps.add("Softmax", name, axis=1) if self.ending == "softmax" else steps.add("Sigmoid", name)
        graph.node.append(helper.make_node("Identity", [name], ["answer"]))
        shape = (self.channels, HEIGHT, WIDTH) if self.layout == "NCHW" else (HEIGHT, WIDTH, self.channels)
        graph.input.append(helper.make_tensor_value_info("image", self.takes, [self.batch, *shape]))
        graph.output.append(helper.make_tensor_value_info("answer", self.computes, [self.batch, rows.shape[1]]))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def own_probabilities(self, model: onnx.ModelProto, pixels: Pixels) -> Floats:
        """(N, classes) probabilities of the unedited file, one image at a time, by ONNX Runtime and Pillow."""
        if self.channels == 1:
            pixels = np.stack([np.asarray(Image.fromarray(image).convert("L"))[..., None] for image in pixels])
        images: npt.NDArray[Any] = pixels if self.takes == BYTES else (pixels / np.float32(255) - MEAN) / STD
        images = (images if self.layout == "NHWC" else images.transpose(0, 3, 1, 2)).astype(NUMPY[self.takes])
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        times = self.batch if isinstance(self.batch, int) else 1
        raw = [session.run(None, {"image": np.repeat(image[None], times, 0)})[0][:1] for image in images]
        return probability_of(KINDS[self.ending], np.concatenate(raw).astype(np.float32))


def pixels_to_try() -> Pixels:
    """Drawn images and noise, (24, HEIGHT, WIDTH, 3) uint8 RGB."""
    noise = np.random.default_rng(1).integers(0, 256, (8, HEIGHT, WIDTH, 3), np.uint8)
    return np.concatenate([draw_probes((HEIGHT, WIDTH)), noise])
