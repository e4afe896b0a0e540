"""However a picture is stored, each decoder gives the pixels of training, or all of them give an error.

``python -m tests.contract.test_variants`` prints how many files came out which way.
"""

import struct
import sys
import tempfile
import warnings
from collections import Counter
from contextlib import closing, suppress
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchcls.images.decoders import open_decoder
from batchcls.images.decoders.base import Decoder, DecoderOptions
from batchcls.images.decoders.batching import BatchingDecoder
from batchcls.images.formats.inspection import examine
from batchcls.images.formats.refusal import RefusedError
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Failure, Pixels, Slide
from batchcls.training.duplicates import fingerprint
from tests.conftest import slide_of

pytest.importorskip("simplejpeg", reason="simplejpeg is not installed")
pytest.importorskip("cykooz_resizer", reason="cykooz.resizer is not installed")
pytest.importorskip("hypothesis", reason="hypothesis is not installed")

from hypothesis import given
from hypothesis import strategies as st

from tests.image_variants import HEIGHT, WIDTH, bmp, damaged, tiff, variants

INPUT = Preprocess(size_px=(40, 48))
DECODERS = ("turbo", "pillow", *(("dali", "graph") if find_spec("nvidia.dali") else ()))
OUTCOMES = ("labelled", "refused")
TOO_DEEP = "its colors are not stored in 8 bits each"
OTHERS = (".gif", ".tga", ".eps")
"""Of formats that are not decoded."""
WHOLE_SLIDE = "whole slides are not decoded"


def in_training(path: Path) -> Pixels | None:
    """The file as torchvision's ImageFolder hands it to a network, in the network's size; None if Pillow cannot."""
    height, width = INPUT.size_px
    try:
        with warnings.catch_warnings(), path.open("rb") as stream, Image.open(stream) as image:
            warnings.simplefilter("ignore")
            return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    except Exception:  # noqa: BLE001  # whatever it is, there are no pixels
        return None


def judged(folder: Path) -> dict[str, str]:
    """Of each file: ``labelled``; ``refused``, by every decoder; or what is wrong."""
    names = sorted(path.name for path in folder.iterdir())
    rows: dict[str, dict[str, Pixels | Failure]] = {name: {} for name in names}
    for decoder in DECODERS:
        with closing(opened_by_name(decoder)) as opened:
            for batch in opened.decode([Slide(str(folder), name) for name in names]):
                assert isinstance(batch.pixels, np.ndarray)
                for slide, pixels in zip(batch.slides, batch.pixels, strict=True):
                    rows[slide.path][decoder] = pixels
                for failure in batch.failures:
                    rows[failure.slide.path][decoder] = failure
    return {name: verdict(row, in_training(folder / name)) for name, row in rows.items()}


def opened_by_name(name: str) -> Decoder:
    """One of `DECODERS`; ``graph`` is what a GPU runs, on the CPU."""
    if name != "graph":
        return open_decoder(name, INPUT, DecoderOptions(batch_size=8, threads=2, max_pixels=10**7))
    from batchcls.images.decoders.dali import GraphGroup

    group = GraphGroup(INPUT, batch_size=8, threads=2, device="cpu")
    return BatchingDecoder(group, INPUT.size_px, DecoderOptions(8, 2, 10**7, 1 << 30))


def verdict(row: dict[str, Pixels | Failure], training: Pixels | None) -> str:
    refused = [name for name, answer in row.items() if isinstance(answer, Failure)]
    if len(refused) == len(DECODERS):
        return "refused"
    if refused:
        return f"refused by {', '.join(refused)} alone"
    if training is None:
        return "labelled, though Pillow cannot decode it"
    for name, answer in row.items():
        by = np.ptp([np.asarray(answer), training], axis=0)
        most = {"turbo": 1, "graph": 15}.get(name, 0)  # DALI repeats the edge, see test_decoders.py
        if by.mean() > 0.5 or by.max() > most:
            return f"{name} is off by {by.mean():.2f} on average, {by.max()} at most"
    return "labelled"


def written(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def wrong(verdicts: dict[str, str]) -> dict[str, str]:
    return {name: found for name, found in verdicts.items() if found not in OUTCOMES}


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what it reads all the same
@pytest.mark.parametrize("kind", ["as written", "damaged"])
def test_every_decoder_gives_the_pixels_of_training_or_all_give_an_error(kind: str, tmp_path: Path) -> None:
    files = variants() if kind == "as written" else damaged(variants())
    verdicts = judged(written(files, tmp_path))
    assert len(verdicts) == len(files) > 800
    assert wrong(verdicts) == {}
    labelled = sum(found == "labelled" for found in verdicts.values())
    assert labelled > len(files) // 5


@pytest.mark.filterwarnings("ignore")
def test_what_pillow_reads_is_refused_for_its_depth_or_as_a_whole_slide_alone(tmp_path: Path) -> None:
    for path in written(variants(), tmp_path).iterdir():
        try:
            fingerprint(slide_of(path))
        except (ValueError, OSError, SyntaxError) as error:
            told = str(error)
            assert in_training(path) is None or TOO_DEEP in told or WHOLE_SLIDE in told or path.suffix in OTHERS, told


@pytest.mark.filterwarnings("ignore")
def test_training_uses_the_files_that_a_run_uses(tmp_path: Path) -> None:
    sound = variants()
    for name, found in judged(written(sound | damaged(sound), tmp_path)).items():
        try:
            fingerprint(slide_of(tmp_path / name))
        except Exception:  # noqa: BLE001  # as `batchcls.training.dataset` does
            assert found == "refused", name
        else:
            assert found == "labelled", name


def test_a_small_image_in_a_huge_tile_is_refused_from_its_header() -> None:
    data = tiff(tile=16, compression=8)
    for tag in (322, 323):
        data = data.replace(struct.pack("<HHII", tag, 3, 1, 16), struct.pack("<HHII", tag, 3, 1, 65_535))
    with pytest.raises(RefusedError, match="its tiles have more than"):
        examine("a.tif", data, 10**8)


@pytest.mark.parametrize(
    ("data", "promised"),
    [
        (tiff(compression=50001), "unsupported: a TIFF of this layout, with compression 50001, is not decoded"),
        (tiff(compression=34933), "unsupported: a TIFF of this layout, with compression 34933, is not decoded"),
        (tiff(order=">", big=True), "unsupported: BigTIFF of big-endian numbers is not decoded"),
    ],
    ids=["webp", "png", "bigtiff"],
)
def test_a_sound_tiff_that_pillow_cannot_decode_is_not_called_corrupt(data: bytes, promised: str) -> None:
    with pytest.raises(RefusedError, match=promised):
        examine("a.tif", data, 10**8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compression", [1, 7, 34933])
def test_a_tiff_whose_tags_are_of_any_type_is_read_or_refused(compression: int) -> None:
    sound = tiff(compression=compression)
    for tag, kind in product((256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 339), range(19)):
        data = sound
        for usual in (3, 4):
            data = data.replace(struct.pack("<HH", tag, usual), struct.pack("<HH", tag, kind))
        with suppress(RefusedError):
            assert examine("a.tif", data, 10**8).width > 0


def test_a_tile_whose_width_is_a_text_takes_no_memory() -> None:
    data = tiff(more=((322, 2, b"a" * 1000 + b"\0"), (323, 4, (2**32 - 1,))))
    with pytest.raises(RefusedError):
        examine("a.tif", data, 10**8)


@pytest.mark.parametrize("name", ["frame", "plain", "deep"])
def test_a_header_that_is_read_by_our_own_lines_says_what_pillow_says(name: str) -> None:
    content = {"frame": written_once()["turbo-440.jpg"], "plain": bmp(24), "deep": written_once()["12bits.jpg"]}[name]
    if name == "deep":
        with pytest.raises(RefusedError, match=TOO_DEEP):
            examine("a.jpg", content, 10**8)
    else:
        header = examine("a", content, 10**8)
        assert (header.width, header.height) == (WIDTH, HEIGHT)


@given(st.binary(max_size=60), st.integers(0, 400), st.sampled_from([".jp2", ".j2k", ".jpg", ".webp", ".bmp", ".tif"]))
def test_a_header_of_any_bytes_is_read_or_refused(noise: bytes, place: int, ending: str) -> None:
    name = {
        ".jp2": "RGB-False-False.jp2",
        ".j2k": "RGB-False-False.j2k",
        ".jpg": "turbo-420.jpg",
        ".webp": "RGB-True-20-True-True.webp",
        ".bmp": "24-40-False.bmp",
        ".tif": "rgb-tiles-little.tif",
    }[ending]
    data = written_once()[name]
    with suppress(RefusedError):
        header = examine(name, data[:place] + noise + data[place + len(noise) :], 10**7)
        assert 0 < header.width * header.height <= 10**7


@cache
def written_once() -> dict[str, bytes]:
    return variants()


def main() -> None:
    """Print what became of each format's files."""
    sound = variants()
    for title, files in (("as written", sound), ("damaged", damaged(sound))):
        with tempfile.TemporaryDirectory() as folder:
            verdicts = judged(written(files, Path(folder)))
        endings = sorted({name.rsplit(".", 1)[1] for name in verdicts})
        lines = [f"{title:12} {'files':>6} {'label':>6} {'error':>6} {'wrong':>6}"]
        for ending in [*endings, ""]:
            of_it = [found for name, found in verdicts.items() if name.endswith(ending)]
            kinds = Counter(found if found in OUTCOMES else "wrong" for found in of_it)
            counts = [len(of_it), kinds["labelled"], kinds["refused"], kinds["wrong"]]
            lines.append(f"{ending or 'all':12}" + "".join(f" {count:6}" for count in counts))
        lines += [f"{name}: {found}" for name, found in wrong(verdicts).items()]
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
