"""The advice to export a network to ONNX, for networks that cannot be read in another way."""


def export_advice(size_px: tuple[int, int] = (224, 224), channels: int = 3) -> str:
    """The call that exports a network, and the command that builds the ONNX file, as the end of an error.

    Args:
        size_px: Height and width of the network's input.
        channels: Number of the input's channels.
    """
    height, width = size_px
    return (
        f"export it where it was trained: torch.onnx.export(model, (torch.zeros(2, {channels}, {height}, {width}),), "
        "'model.onnx', dynamo=True, dynamic_shapes=({0: torch.export.Dim('batch')},)), with model.eval() before; "
        "then: batchcls build model.onnx --labels A,B,... --out engines/model"
    )
