"""Of image files that show the same image one is used."""

from hypothesis import given
from hypothesis import strategies as st

from batchcls.training.duplicates import duplicate_reasons


@given(st.lists(st.tuples(st.sampled_from("ab"), st.binary(max_size=1)), max_size=30))
def test_of_images_alike_one_stays_unless_they_are_called_differently(images: list[tuple[str, bytes]]) -> None:
    labels = {str(row): label for row, (label, _) in enumerate(images)}
    fingerprints = {str(row): fingerprint for row, (_, fingerprint) in enumerate(images)}

    left_out = duplicate_reasons(labels, fingerprints)

    stay = [path for path in labels if path not in left_out]
    assert len({fingerprints[path] for path in stay}) == len(stay)
    labels_of = {fingerprint: {label for label, other in images if other == fingerprint} for _, fingerprint in images}
    assert {fingerprints[path] for path in stay} == {
        fingerprint for fingerprint, names in labels_of.items() if len(names) == 1
    }
