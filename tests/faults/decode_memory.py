"""What decoding takes in memory, beside what the header said: `python -m tests.faults.decode_memory SCRATCH [SIDE]`.

Each way to store an image of SIDE x SIDE pixels is decoded in a process of its own, and resized; its peak is compared
with the cost that it was lent. Ends with 1 if a cost is below the peak, or more than three times as high.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import ROOT
from tests.faults.machine_line import machine_line

JPEG = {"format": "JPEG", "quality": 85}
TIFF = {"format": "TIFF", "compression": "tiff_lzw"}
STRIP = {"tiffinfo": {278: 1 << 20}}
"""All rows in one strip."""
J2K = {"format": "JPEG2000", "quality_mode": "rates", "quality_layers": [40]}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("RGB", JPEG),
    "jpeg grey": ("L", JPEG),
    "jpeg cmyk": ("CMYK", JPEG),
    "jpeg progressive": ("RGB", JPEG | {"progressive": True}),
    "jpeg progressive 4:4:4": ("RGB", JPEG | {"progressive": True, "subsampling": 0}),
    "jpeg progressive grey": ("L", JPEG | {"progressive": True}),
    "jpeg progressive cmyk": ("CMYK", JPEG | {"progressive": True}),
    **{f"png {mode}": (mode, {"format": "PNG", "compress_level": 1}) for mode in ("RGB", "RGBA", "L", "P", "1")},
    **{f"bmp {mode}": (mode, {"format": "BMP"}) for mode in ("RGB", "L", "P")},
    **{f"pnm {mode}": (mode, {"format": "PPM"}) for mode in ("RGB", "L", "1")},
    **{f"webp {mode}": (mode, {"format": "WEBP", "method": 0}) for mode in ("RGB", "RGBA")},
    "webp lossless": ("RGB", {"format": "WEBP", "lossless": True, "method": 0, "quality": 0}),
    **{f"tiff {mode}": (mode, {"format": "TIFF"}) for mode in ("RGB", "L")},
    "tiff lzw": ("RGB", TIFF),
    "tiff turned": ("RGB", TIFF | {"tiffinfo": {274: 6}}),
    **{f"tiff lzw, one strip {mode}": (mode, TIFF | STRIP) for mode in ("RGB", "L", "RGBA", "CMYK")},
    "tiff deflate, one strip": ("RGB", TIFF | STRIP | {"compression": "tiff_adobe_deflate"}),
    "tiff jpeg": ("RGB", TIFF | {"compression": "jpeg"}),
    "tiff jpeg, one strip": ("RGB", TIFF | STRIP | {"compression": "jpeg"}),
    **{f"jp2 {mode}": (mode, J2K) for mode in ("RGB", "L", "RGBA")},
    "jp2 tiles": ("RGB", J2K | {"tile_size": (1024, 1024)}),
}
DECODED = """if True:
    import sys, time
    from pathlib import Path
    from batchcls import machine
    from batchcls.storage import memory
    memory.limit_memory_use()
    from batchcls.images.decoders import open_decoder
from batchcls.images.decoders.base import DecoderOptions
    from batchcls.images.decoders.read_ahead import Encoded
    from batchcls.images.formats.inspection import examine
    from batchcls.networks.preprocess import Preprocess
    from batchcls.records import Slide

    small, large, name, resize = sys.argv[1:]
    options = {"batch_size": 8, "threads": 1, "max_pixels": 10**9, "memory_bytes": 1 << 40}
    decode = open_decoder(name, Preprocess(resize=resize), DecoderOptions(**options))._decode_group
    granted = memory.Granted(1 << 40)

    def encoded(path):
        data = Path(path).read_bytes()
        return Encoded(Slide("", path), data, examine(path, data, 10**9), 0)

    for _ in range(2):
        decode([encoded(small)], granted)
    item = encoded(large)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before, since = memory.resident_bytes(), time.perf_counter()
    decode([item], granted)
    peak = machine.peak_memory_bytes() - before
    print(decode.cost_bytes(item), peak, memory.resident_bytes() - before, time.perf_counter() - since)
"""


def measured(scratch: Path, side: int, decoder: str, way: str, resize: str) -> tuple[float, ...]:
    """Cost, peak, and what is kept afterwards, in bytes a pixel; and seconds."""
    mode, save = WAYS[way]
    coarse = np.random.default_rng(0).integers(0, 255, (side // 64 + 1, side // 64 + 1, 3), np.uint8)
    paths = [scratch / "small", scratch / "large"]
    for path, size in zip(paths, ((300, 200), (side, side)), strict=True):
        Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).convert(mode).save(path, **save)
    done = subprocess.run(
        [sys.executable, "-c", DECODED, *paths, decoder, resize], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *sizes, seconds = map(float, done.stdout.split())
    return *(size / side**2 for size in sizes), seconds


def main() -> None:
    scratch, side = Path(sys.argv[1]), int((sys.argv[2:] or ["6000"])[0])
    scratch.mkdir(parents=True, exist_ok=True)
    print(f"{machine_line()}; {side}x{side} pixels; bytes a pixel\n", flush=True)
    print(
        "| way | decoder | resize | cost | peak | cost / peak | kept | s |\n|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    bad = 0
    for way in WAYS:
        for decoder, resize in (("turbo", "stretch"), ("pillow", "shorter"), ("dali", "stretch")):
            cost, peak, kept, seconds = measured(scratch, side, decoder, way, resize)
            good = peak <= cost <= 3 * peak
            bad += not good
            figures = (
                f"{cost:.1f} | {peak:.1f} | {cost / peak:.2f}{'' if good else ' WRONG'} | {kept:.1f} | {seconds:.1f}"
            )
            print(f"| {way} | {decoder} | {resize} | {figures} |", flush=True)
    print(f"\n{bad} wrong")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
