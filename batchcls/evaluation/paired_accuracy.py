"""Whether one of two predictions files is right more often than the other on the same images."""

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from batchcls.evaluation.run_comparison import PairedAccuracy


def paired_accuracy(right_a: npt.NDArray[np.bool_], right_b: npt.NDArray[np.bool_]) -> PairedAccuracy:
    """The accuracy of two files on the same images.

    Args:
        right_a: (N,) whether the first file's label is the true one; N is 1 or more.
        right_b: (N,) the same of the second file.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return PairedAccuracy(len(right_a), int(right_a.sum()), int(right_b.sum()), only_a, only_b, p_value)
