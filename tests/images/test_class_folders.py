"""Which folders are taken for classes, and which are not."""

import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from batchcls.cli import main
from batchcls.errors import LabelsError
from batchcls.images.labels.class_folders import folder_labels
from batchcls.images.labels.labeled_images import LabeledImages

CLASSES = ("Benign", "Early", "Pre", "Pro")


def images(root: Path, paths: Iterable[str]) -> Path:
    """A folder of files that are called like images."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def inside(*tops: str, classes: Iterable[str] = CLASSES) -> list[str]:
    return [f"{top}/{label}/{number}.jpg" for top in tops for label in classes for number in (1, 2)]


def flat(*folders: str) -> list[str]:
    return [f"{folder}/{number}.jpg" for folder in folders for number in (1, 2)]


def labels(root: Path, split_folders: str = "", known: Iterable[str] = ()) -> set[str]:
    return set(LabeledImages.read(root, split_folders=split_folders, known=list(known)).table["label"].to_pylist())


def splits(root: Path, split_folders: str = "") -> dict[str, str]:
    table = LabeledImages.read(root, split_folders=split_folders).table
    tops = (path.split("/")[0] for path in table["path"].to_pylist())
    return dict(zip(tops, table["split"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("paths", "promised"),
    [
        (inside("Original", "Segmented"), "'Original', 'Segmented', called like parts or views.*DATA/Original'"),
        (
            inside("fold_0", "fold_1", "fold_2", classes=("all", "hem")),
            "--split-folders train=fold_0,train=fold_1,test=",
        ),
        (inside("Train", "TestA", "TestB"), "--split-folders train=Train,test=TestA,test=TestB;"),
        (inside("TRAIN", "TEST", "TEST_SIMPLE"), "--split-folders train=TRAIN,test=TEST,test=TEST_SIMPLE;"),
        (inside("train_1", "valid2"), "--split-folders train=train_1,val=valid2;"),
        (inside("Fold 1", "Fold 2"), "--split-folders 'train=Fold 1,test=Fold 2';"),
        (inside("1", "2", "3"), "more than one of them holds 'Benign', 'Early', 'Pre', 'Pro'"),
        (inside("siteA", "siteB"), "name the folder that holds the classes, such as '.*DATA/siteA'"),
        (inside("Blood cell Cancer [ALL]"), r"holds one folder alone.*DATA/Blood cell Cancer \[ALL\]'"),
        (inside("archive/data"), "holds one folder alone.*DATA/archive/data'"),
        (
            inside("archive/train", "archive/test"),
            "called like parts, are inside '.*DATA/archive'; name '.*DATA/archive'",
        ),
        (
            ["one/JPEGImages/1.jpg", *inside("two/images/TRAIN", "two/images/TEST")],
            "are inside '.*DATA/two/images'; name '.*DATA/two/images'",
        ),
        (
            inside("C-NMC_training_data/fold_0", "C-NMC_training_data/fold_1") + flat("C-NMC_test"),
            "C-NMC_training_data'",
        ),
        (inside("cv1/train", "cv1/test", "cv2/train", "cv2/test"), "name '.*DATA/cv1'"),
        (inside(*CLASSES, classes=("train", "test")), "put the classes inside the parts"),
        (flat(*CLASSES) + inside("Segmented"), "'Segmented' holds 'Benign', .* once more; move 'Segmented' elsewhere"),
        (inside("train") + flat("unlabelled"), "--split-folders train=train;"),
        (
            inside("train/Original", "train/Segmented", "test/Original", "test/Segmented"),
            "train=train/Original,test=test/",
        ),
        (inside("train/images", "test/images"), "--split-folders train=train/images,test=test/images"),
        (inside("A/images", "B/images"), "more than one of them holds 'Benign'.*such as '.*DATA/A/images'"),
        (inside("patient1/x", "patient2/x"), "more than one of them holds 'Benign', 'Early', 'Pre', 'Pro'"),
        (
            inside(*(f"{name}/patient_{number}" for name in CLASSES for number in (1, 2)), classes=("Original", "raw")),
            "has the views 'Original', 'raw' inside several folders",
        ),
        (inside(*CLASSES, classes=("Original", "Segmented")), "has the views 'Original', 'Segmented' inside several"),
        (flat("train", "test"), "with images and no class folders in them"),
        (flat("Train", "TestA"), "with images and no class folders in them"),
        (inside("Benign", "Pro", classes="012"), "if 'Benign', 'Pro' are the classes: --split-folders none"),
    ],
)
def test_folders_that_are_no_classes_are_refused_with_what_to_do(
    tmp_path: Path, paths: list[str], promised: str
) -> None:
    root = images(tmp_path / "DATA", paths)

    with pytest.raises(LabelsError, match=promised) as refusal:
        LabeledImages.read(root)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("paths", "wanted"),
    [
        (flat(*CLASSES), set(CLASSES)),
        (inside("Benign", "Pro", classes=("patient_1", "patient_2")), {"Benign", "Pro"}),
        (inside(*CLASSES, classes=("40X", "100X", "400X")), set(CLASSES)),
        (inside("Benign", "Pro", classes=("2021-03-01", "2021_03_02", "20210303", "007")), {"Benign", "Pro"}),
        (inside("Benign", "Pro", classes=("Pt 1", "S02", "UID_H14", "slide7", "p3")), {"Benign", "Pro"}),
        (flat("Benign/smith", "Benign/jones", "Pro/lee", "Pro/smith", "Pro/wu"), {"Benign", "Pro"}),
        (inside("Benign", "Pro", classes=("images",)), {"Benign", "Pro"}),
        (inside("Benign/patient_1", "Pro/patient_1", classes=("slide A", "slide B")), {"Benign", "Pro"}),
        (["Malignant/Early/1.jpg", "Malignant/Pre/1.jpg", *flat("Benign")], {"Benign", "Malignant"}),
        ([f"{label}/{label}/1.jpg" for label in CLASSES], set(CLASSES)),
        (flat("test", "control"), {"test", "control"}),
        (flat("Segmented neutrophil", "Band neutrophil"), {"Segmented neutrophil", "Band neutrophil"}),
        (inside("Benign", classes=("patient_1", "patient_2")), {"Benign"}),
        (flat(*CLASSES, "__MACOSX/Benign", ".ipynb_checkpoints", "@eaDir") + ["Pro/@eaDir/1.jpg"], set(CLASSES)),
        (flat("Benign ", "Benign", "Pro"), {"Benign", "Pro"}),
        (flat(unicodedata.normalize("NFD", "Métamyélocyte"), "Pro"), {"Métamyélocyte", "Pro"}),
        (inside("train", "Validation", "TEST"), set(CLASSES)),
    ],
)
def test_class_folders_are_classes_whatever_is_in_them(tmp_path: Path, paths: list[str], wanted: set[str]) -> None:
    root = images(tmp_path / "DATA", [*paths, ".DS_Store", "Thumbs.db", "desktop.ini"])

    assert labels(root) == wanted


def test_litter_has_no_label_even_in_a_class_folder(tmp_path: Path) -> None:
    root = images(tmp_path, [*flat("a", "b"), "a/@eaDir/1.jpg/thumb.jpg", "__MACOSX/a/1.jpg"])

    assert len(LabeledImages.read(root).table) == 4


def test_split_folders_say_which_folder_is_which_part(tmp_path: Path) -> None:
    root = images(tmp_path, inside("Train", "TestA", "TestB", "drafts"))

    assert splits(root, "train=Train,val=TestB,test=TestA") == {"Train": "train", "TestB": "val", "TestA": "test"}
    assert splits(root, "train=Train,train=./TestB/") == {"Train": "train", "TestB": "train"}
    assert labels(root, "train=Train,test=TestA") == set(CLASSES)
    assert LabeledImages.read(root, split_folders="train=Train").unlabeled == 24


def test_split_folders_may_be_deeper_and_hold_a_comma(tmp_path: Path) -> None:
    root = images(tmp_path, inside("train/Original", "train/Segmented", "late, b"))

    assert splits(root, "train=train/Original,test=late, b") == {"train": "train", "late, b": "test"}


def test_no_folder_is_a_part_if_so_asked(tmp_path: Path) -> None:
    root = images(tmp_path, inside("Original", "Segmented", "train"))

    assert labels(root, "none") == {"Original", "Segmented", "train"}


def test_folders_called_like_the_engines_labels_are_its_classes(tmp_path: Path) -> None:
    assert labels(images(tmp_path, inside("1", "2")), known=["1", "2", "3"]) == {"1", "2"}


@pytest.mark.parametrize(
    ("split_folders", "promised"),
    [
        ("Train", "is not understood at 'Train'; write PART=FOLDER"),
        ("train=", "is not understood at 'train='"),
        ("practice=Train", "where a part is train, val or test"),
        ("train=Trian", "names 'Trian'; '.*' has no such folder of images: 'TestA', 'Train'"),
        ("train=Train,test=Train", "names 'Train', or a folder in it, more than once"),
        ("train=Train,test=Train/Pre", "names 'Train/Pre', or a folder in it, more than once"),
    ],
)
def test_split_folders_that_do_not_fit_are_refused(tmp_path: Path, split_folders: str, promised: str) -> None:
    with pytest.raises(LabelsError, match=promised):
        LabeledImages.read(images(tmp_path, inside("Train", "TestA")), split_folders=split_folders)


def test_folds_inside_a_part_are_no_classes_either(tmp_path: Path) -> None:
    root = images(tmp_path, inside("data/fold_0", "data/fold_1"))

    with pytest.raises(LabelsError, match="'fold_0', 'fold_1', called like parts"):
        LabeledImages.read(root, split_folders="train=data")


def test_split_folders_are_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\n1.jpg,a\n")

    with pytest.raises(LabelsError, match="say in its column split which part each image is in"):
        LabeledImages.read(tmp_path / "labels.csv", split_folders="train=a")


def trained(data: Path, out: Path, *more: str) -> Result:
    pytest.importorskip("lightning")
    return CliRunner().invoke(main, ["train", *map(str, (data, "--out", out / "n.safetensors", *more))])


def test_a_training_on_folders_that_are_no_classes_does_not_begin(tmp_path: Path) -> None:
    root = images(tmp_path / "DATA", inside("Original", "Segmented"))

    result = trained(root, tmp_path)

    assert result.exit_code == 1
    assert result.stderr.startswith(f"batchcls: '{root}' holds 'Original', 'Segmented', called like parts or views")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["DATA"]


@given(
    tops=st.lists(st.text("abfoldtrsTS_0123", min_size=1, max_size=8), min_size=2, max_size=5, unique_by=str.casefold),
    classes=st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=2, max_size=5, unique=True),
)
def test_folders_inside_which_one_set_of_names_stands_are_never_the_classes(
    tops: list[str], classes: list[str]
) -> None:
    paths = inside(*tops, classes=classes)

    with suppress(LabelsError):
        assert set(folder_labels("DATA", paths).labels) == set(classes)


@given(
    classes=st.lists(
        st.text("abcdefgh -", min_size=1, max_size=8).map(lambda name: f"x{name}y"), min_size=1, unique=True
    ),
    patients=st.integers(0, 3),
)
def test_classes_with_and_without_patients_are_the_classes(classes: list[str], patients: int) -> None:
    deeper = [f"patient_{number}" for number in range(patients)]
    paths = inside(*classes, classes=deeper) if deeper else flat(*classes)

    found = folder_labels("DATA", paths)

    assert (found.paths, found.splits, found.unlabeled) == (paths, None, 0)
    assert [path.split("/")[0] for path in found.paths] == found.labels
