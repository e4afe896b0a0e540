"""Half precision arithmetic, as a GPU does it, against the trained float32 network."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from batchcls.building.reference import Reference, torch_answer
from batchcls.cli import main
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import to_predictions
from batchcls.images.decoders import open_decoder
from batchcls.images.decoders.base import DecoderOptions
from batchcls.networks.checkpoint import load_network
from batchcls.records import Slide
from tests.conftest import DATA
from tests.engines import opened_engine

CHECKPOINT = DATA.parent / "models" / "googlenet_all4.pth"
EVERY = 40


@pytest.mark.skipif(not (DATA / "all4").is_dir() or not CHECKPOINT.is_file(), reason="the real data are not here")
def test_the_engine_answers_real_slides_as_the_trained_network_does_each_step_rounded_to_half_precision(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "engine"
    arguments = ["build", str(CHECKPOINT), "--labels", "Benign,Early,Pre,Pro", "--out", str(folder), "--device", "cpu"]
    built = CliRunner().invoke(main, arguments)
    assert built.exit_code == 0, built.output
    manifest = Manifest.read(folder)
    network = load_network(CHECKPOINT, "googlenet", transform_input=False)
    reference = Reference(torch_answer(network.module), manifest.preprocess)
    slides = [Slide(*map(str, (path.parent, path.name))) for path in sorted(Path(DATA / "all4").rglob("*.jpg"))]
    decoder = open_decoder("pillow", manifest.preprocess, DecoderOptions(batch_size=64, threads=2, max_pixels=10**7))
    with (
        closing(decoder),
        closing(opened_engine(folder, backend="torch", threads=2, precision="f16")) as half,
    ):
        pixels = np.concatenate([batch.pixels for batch in decoder.decode(slides[::EVERY])])
        ours, theirs = to_predictions(half.infer(pixels).logits), to_predictions(reference.logits_of_pixels(pixels))
    assert len(pixels) == len(slides[::EVERY])
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert np.abs(ours.probabilities - theirs.probabilities).max() < 0.005
