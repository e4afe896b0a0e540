"""Answers that a run adds to labels and probabilities."""

from dataclasses import replace

import numpy as np

from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import to_predictions
from batchcls.inference.added_answers import AddedAnswers
from batchcls.inference.answer_options import AnswerOptions
from batchcls.networks.feature_layout import FeatureLayer, FeatureLayout
from batchcls.records import Outputs
from tests.conftest import ALL4


def test_an_embedding_that_no_float16_holds_is_no_embedding() -> None:
    layout = FeatureLayout((FeatureLayer("last", 2),))
    manifest = replace(Manifest.read(ALL4), features=layout, novelty=None)
    features = np.ones((3, layout.width), np.float32)
    features[1, -1], features[2, -2] = 65_520, np.nan
    outputs = Outputs(np.eye(3, 4, dtype=np.float32), features)

    answers = AddedAnswers(ALL4, manifest, AnswerOptions(embedding=2)).to(to_predictions(outputs.logits), outputs)

    assert answers.added["embedding"].tolist()[0] == [1, 1]
    assert np.isnan(answers.added["embedding"][1:]).all()
