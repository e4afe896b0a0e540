"""Hundreds of ways to store one picture.

What Pillow writes is written by Pillow; the rest by the few lines here, after the formats' specifications.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from benchmarks.workload import draw_field

Array = npt.NDArray[Any]
WIDTH, HEIGHT = 75, 53
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Left, top, and steps across and down of each pass of an interlaced PNG."""
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I;16", "F")
_EXIF_TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def picture(channels: int = 3) -> Array:
    """(HEIGHT, WIDTH, channels) uint8; what comes after the colors differs from place to place."""
    drawn = np.asarray(draw_field(np.random.default_rng(7), WIDTH, HEIGHT))
    more = np.random.default_rng(8).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return np.concatenate([drawn, more], axis=2)[..., :channels]


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    """The file that Pillow makes of an image."""
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def packed(values: Array, bits: int) -> bytes:
    """(rows, samples) of ``bits`` each, every row filled up to whole bytes."""
    if bits in (8, 16, 32):
        return values.astype(f">u{bits // 8}").tobytes()
    digits = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def png(depth: int, color: int, *, interlaced: bool = False, transparent: bytes = b"", chunks: bytes = b"") -> bytes:
    """A PNG of a color type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    values = picture(samples).astype(np.uint32)
    values = values * 257 + 3 if depth == 16 else values >> (8 - depth)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = b""
    for left, top, across, down in passes:
        part = values[top::down, left::across].reshape(len(values[top::down]), -1)
        if part.size:
            rows += b"".join(b"\0" + packed(row[None], depth) for row in part)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    palette = np.random.default_rng(1).integers(0, 256, (1 << min(depth, 8), 3), np.uint8).tobytes()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color, 0, 0, interlaced))
        + (chunk(b"PLTE", palette) if color == 3 else b"")
        + (chunk(b"tRNS", transparent) if transparent else b"")
        + (chunk(b"eXIf", chunks) if chunks else b"")
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def bmp(
    bits: int, header: int = 40, *, top_down: bool = False, masks: tuple[int, ...] = (), core: bool = False
) -> bytes:
    """A BMP with a header of so many bytes."""
    rows = picture(4)
    values: Array = rows[..., 0] >> (8 - bits) if bits <= 8 else rows
    if bits == 16:
        deep = rows.astype(np.uint16)
        green = 6 if masks and masks[1] == 0x7E0 else 5
        values = ((deep[..., 0] >> 3) << (5 + green)) | ((deep[..., 1] >> (8 - green)) << 5) | (deep[..., 2] >> 3)
        lines = [row.astype("<u2").tobytes() for row in values]
    elif bits <= 8:
        lines = [packed(row[None], bits) for row in values]
    else:
        order = [2, 1, 0, 3][: bits // 8]
        lines = [row[:, order].tobytes() for row in values]
    lines = [line + bytes(-len(line) % 4) for line in (lines if top_down else lines[::-1])]
    body = b"".join(lines)
    entries = np.random.default_rng(2).integers(0, 256, (1 << bits, 3 if core else 4), np.uint8) if bits <= 8 else None
    palette = entries.tobytes() if entries is not None else b""
    if core:
        info = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits)
    else:
        tall = -HEIGHT if top_down else HEIGHT
        info = struct.pack("<IiiHHIIiiII", header, WIDTH, tall, 1, bits, 3 if masks else 0, len(body), 2835, 2835, 0, 0)
        told = b"".join(struct.pack("<I", mask) for mask in masks)
        info += told if header == 40 else (told + bytes(header - 40))[: header - 40]
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + info + palette + body


def bmp_of_runs() -> bytes:
    """An eight-bit BMP, run-length encoded."""
    grey = picture(1)[::-1, :, 0] >> 5 << 5
    body = b"".join(b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in grey) + b"\0\1"
    palette = np.repeat(np.arange(256, dtype=np.uint8), 4).tobytes()
    info = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(body), 2835, 2835, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + info + palette + body


def pnm(kind: int, most: int) -> bytes:
    """A PBM, PGM or PPM, as text or not."""
    values = picture(1 if kind in (1, 2, 4, 5) else 3).reshape(HEIGHT, -1).astype(np.uint32) * most // 255
    head = b"P%d\n# drawn\n%d %d\n" % (kind, WIDTH, HEIGHT)
    if kind in (1, 4):
        bits = values > most / 2
        plain = b"\n".join(b" ".join(b"01"[bit : bit + 1] for bit in row) for row in bits.astype(int))
        return head + (plain if kind == 1 else packed(bits, 1))
    head += b"%d\n" % most
    if kind in (2, 3):
        return head + b"\n".join(b" ".join(b"%d" % value for value in row) for row in values)
    return head + values.astype(">u2" if most > 255 else "u1").tobytes()


def tiff(
    bits: int = 8,
    samples: int = 3,
    photometric: int = 2,
    *,
    order: str = "<",
    big: bool = False,
    compression: int = 1,
    predictor: bool = False,
    planar: bool = False,
    tile: int = 0,
    rows_per_strip: int = HEIGHT,
    extra: tuple[int, ...] = (),
    orientation: int = 0,
    sample_format: int = 1,
    fill_order: int = 1,
    more: tuple[tuple[int, int, tuple[int, ...] | bytes], ...] = (),
    pages: int = 1,
) -> bytes:
    """A TIFF: https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf."""
    values = picture(samples).astype(np.uint32)
    values = values >> (8 - bits) if bits < 8 else values << (bits - 8)
    if predictor:
        values[:, 1:] = (values[:, 1:] - values[:, :-1].copy()) & ((1 << bits) - 1)
    planes = [values[..., [band]] for band in range(samples)] if planar else [values]

    if tile:
        padded = [np.pad(plane, ((0, -HEIGHT % tile), (0, -WIDTH % tile), (0, 0)), "edge") for plane in planes]
        cut = [
            plane[top : top + tile, left : left + tile]
            for plane in padded
            for top in range(0, HEIGHT, tile)
            for left in range(0, WIDTH, tile)
        ]
    else:
        cut = [plane[top : top + rows_per_strip] for plane in planes for top in range(0, HEIGHT, rows_per_strip)]
    kind = f"{order}{'f' if sample_format == 3 else 'u'}{bits // 8}"
    parts = [_compressed(_bytes(part, bits, kind, fill_order), len(part), compression) for part in cut]
    long = 16 if big else 4
    tags: list[tuple[int, int, tuple[int, ...] | bytes]] = [
        (256, 4, (WIDTH,)),
        (257, 4, (HEIGHT,)),
        (258, 3, (bits,) * samples),
        (259, 3, (compression,)),
        (262, 3, (photometric,)),
        (277, 3, (samples,)),
        (284, 3, (2 if planar else 1,)),
        (339, 3, (sample_format,) * samples),
        *more,
    ]
    if tile:
        tags += [(322, 3, (tile,)), (323, 3, (tile,)), (325, long, tuple(map(len, parts)))]
    else:
        tags += [(278, 3, (rows_per_strip,)), (279, long, tuple(map(len, parts)))]
    if photometric == 3:
        tags.append((320, 3, tuple(np.random.default_rng(3).integers(0, 65536, 3 << min(bits, 12)).tolist())))
    tags += [(338, 3, extra)] if extra else []
    tags += [(274, 3, (orientation,))] if orientation else []
    tags += [(317, 3, (2,))] if predictor else []
    tags += [(266, 3, (fill_order,))] if fill_order != 1 else []
    return _laid_out(tags, 324 if tile else 273, parts, order, big, pages)


def _bytes(part: Array, bits: int, kind: str, fill_order: int) -> bytes:
    rows = part.reshape(len(part), -1)
    if "f" in kind:
        rows = rows / 255
    data = rows.astype(kind).tobytes() if bits in (16, 32) else packed(rows, bits)
    if fill_order == 2:
        return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")).tobytes()
    return data


def _compressed(data: bytes, rows: int, compression: int) -> bytes:
    if compression in (8, 32946):
        return zlib.compress(data)
    if compression == 32773:  # PackBits: every row as literal runs
        size = len(data) // rows
        lines = [data[start : start + size] for start in range(0, len(data), size)]
        runs = [line[at : at + 128] for line in lines for at in range(0, len(line), 128)]
        return b"".join(bytes((len(run) - 1,)) + run for run in runs)
    return data


def _laid_out(tags: list[Any], offsets_tag: int, parts: list[bytes], order: str, big: bool, pages: int) -> bytes:
    """Header, pixels, and for each page a directory with what does not fit its entries."""
    word, entry = ("Q", 20) if big else ("I", 12)
    data = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0))
    )
    offsets = []
    for part in parts:
        offsets.append(len(data))
        data += part + bytes(len(part) % 2)
    link = 8 if big else 4
    tags = sorted([*tags, (offsets_tag, 16 if big else 4, tuple(offsets))])
    codes = {1: "B", 2: "s", 3: "H", 4: "I", 7: "s", 16: "Q"}
    for _ in range(pages):
        data = data[:link] + struct.pack(order + word, len(data)) + data[link + struct.calcsize(word) :]
        count = struct.pack(order + ("Q" if big else "H"), len(tags))
        outside = len(data) + len(count) + entry * len(tags) + struct.calcsize(word)
        directory, tail = count, b""
        for tag, kind, values in tags:
            content = (
                values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{codes[kind]}", *values)
            )
            directory += struct.pack(order + "HH" + word, tag, kind, len(values))
            if len(content) <= struct.calcsize(word):
                directory += content.ljust(struct.calcsize(word), b"\0")
            else:
                directory += struct.pack(order + word, outside + len(tail))
                tail += content + bytes(len(content) % 2)
        link = len(data) + len(directory)
        data += directory + struct.pack(order + word, 0) + tail
    return data


_COLORS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "grey": (1, 1, ()),
    "white-is-zero": (1, 0, ()),
    "palette": (1, 3, ()),
    "rgb": (3, 2, ()),
    "rgb-unspecified": (4, 2, (0,)),
    "rgb-premultiplied": (4, 2, (1,)),
    "rgb-alpha": (4, 2, (2,)),
    "grey-unspecified": (2, 1, (0,)),
    "grey-premultiplied": (2, 1, (1,)),
    "grey-alpha": (2, 1, (2,)),
    "cmyk": (4, 5, ()),
    "ycbcr": (3, 6, ()),
    "lab": (3, 8, ()),
}
"""Samples, photometric interpretation, kinds of the extra samples."""
_LAYOUTS: dict[str, dict[str, Any]] = {
    "strip": {},
    "strips": {"rows_per_strip": 7},
    "tiles": {"tile": 16},
    "planes": {"planar": True},
    "planes-tiles": {"planar": True, "tile": 32},
}


def tiffs() -> Iterator[tuple[str, bytes]]:
    yield from _tiff_layouts()
    yield from _tiff_depths()
    yield from _odd_tiffs()
    yield from _pillow_tiffs()


def _tiff_layouts() -> Iterator[tuple[str, bytes]]:
    for (color, (samples, photometric, extra)), (layout, options), (order, big) in product(
        _COLORS.items(), _LAYOUTS.items(), (("<", False), (">", False), ("<", True), (">", True))
    ):
        name = f"{color}-{layout}-{'little' if order == '<' else 'big'}{'-bigtiff' if big else ''}"
        yield name, tiff(8, samples, photometric, extra=extra, order=order, big=big, **options)


def _tiff_depths() -> Iterator[tuple[str, bytes]]:
    for compression, predictor, (layout, options) in product((8, 32946, 32773), (False, True), _LAYOUTS.items()):
        if not (compression == 32773 and predictor):
            yield f"c{compression}-{predictor}-{layout}", tiff(compression=compression, predictor=predictor, **options)
    for color, (samples, photometric, extra) in _COLORS.items():
        for bits in (1, 2, 4, 12, 16, 32):
            if bits < 8 and samples > 1:
                continue
            yield f"{color}-{bits}bits", tiff(bits, samples, photometric, extra=extra)
        yield f"{color}-deflate", tiff(8, samples, photometric, extra=extra, compression=8, order=">")


def _odd_tiffs() -> Iterator[tuple[str, bytes]]:
    for orientation, compression in product(range(1, 9), (1, 8)):
        yield f"o{orientation}-c{compression}", tiff(orientation=orientation, compression=compression)
        yield f"o{orientation}-grey-c{compression}", tiff(8, 1, 1, orientation=orientation, compression=compression)
    for bits in (16, 32):
        yield f"float{bits}", tiff(bits, 1, 1, sample_format=3)
        yield f"signed{bits}", tiff(bits, 1, 1, sample_format=2)
    yield "signed8", tiff(8, 1, 1, sample_format=2)
    yield "fill2", tiff(8, 1, 1, fill_order=2)
    yield "fill2-rgb", tiff(fill_order=2)
    yield "pages", tiff(pages=3)
    yield "aperio", tiff(more=((270, 2, b"Aperio Image Library v11\0"),))
    yield "hamamatsu", tiff(more=((271, 2, b"Hamamatsu\0"), (65420, 3, (1,))))
    for compression in (2, 3, 4, 5, 6, 7, 33003, 33005, 34712, 34887, 34892, 34933, 34934, 50000, 50002, 22610, 99):
        yield f"claims-{compression}", tiff(compression=compression)


def _pillow_tiffs() -> Iterator[tuple[str, bytes]]:
    for mode, name in product(_MODES, ("raw", "tiff_lzw", "tiff_deflate", "packbits", "zstd", "lzma")):
        yield f"pillow-{mode}-{name}", saved(in_mode(mode), "TIFF", compression=name)
    for mode in ("L", "RGB", "CMYK", "YCbCr"):
        yield f"pillow-{mode}-jpeg", saved(in_mode(mode), "TIFF", compression="jpeg")
    for name in ("group3", "group4", "tiff_ccitt"):
        yield f"pillow-1-{name}", saved(in_mode("1"), "TIFF", compression=name)


def in_mode(mode: str) -> Image.Image:
    """The picture in a mode of Pillow's."""
    drawn = Image.fromarray(picture(3))
    if mode in ("I;16", "F"):
        deep = picture(1)[..., 0].astype(np.uint16 if mode == "I;16" else np.float32)
        return Image.fromarray(deep * 257 if mode == "I;16" else deep)
    if mode in ("RGBA", "LA"):
        drawn.putalpha(Image.fromarray(picture(4)[..., 3]))
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.applyTransform(drawn, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    return drawn.convert(mode)


def pngs() -> Iterator[tuple[str, bytes]]:
    for (color, depths), interlaced in product(
        ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))), (False, True)
    ):
        for depth in depths:
            name = f"{color}-{depth}{'-interlaced' if interlaced else ''}"
            yield name, png(depth, color, interlaced=interlaced)
            if color in (0, 2, 3):
                hidden = {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: bytes(range(1 << min(depth, 8)))}[color]
                yield f"{name}-transparent", png(depth, color, interlaced=interlaced, transparent=hidden)
    yield "turned", png(8, 2, chunks=_EXIF_TURNED[6:])
    frames = [Image.fromarray(picture(3)), Image.fromarray(255 - picture(3))]
    yield "film", saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "film-cover", saved(frames[0], "PNG", save_all=True, append_images=frames, default_image=True)


def jpegs() -> Iterator[tuple[str, bytes]]:
    drawn = Image.fromarray(picture(3))
    for mode, sampling, progressive, quality, restarts in product(
        ("RGB", "L", "CMYK"), ("4:4:4", "4:2:2", "4:2:0", "4:1:1"), (False, True), (30, 90, 100), (0, 1)
    ):
        if mode != "L" or sampling == "4:4:4":
            options = {"quality": quality, "progressive": progressive, "restart_marker_rows": restarts}
            name = f"{mode}-{sampling.replace(':', '')}-{progressive}-{quality}-{restarts}"
            yield name, saved(drawn.convert(mode), "JPEG", subsampling=sampling, **options)
    for sampling in ("444", "422", "420", "440", "411", "Gray"):
        yield f"turbo-{sampling}", simplejpeg.encode_jpeg(np.ascontiguousarray(picture(3)), 85, "RGB", sampling)
    plain = saved(drawn, "JPEG")
    yield "rgb-space", saved(drawn, "JPEG", keep_rgb=True)
    yield "turned", saved(drawn, "JPEG", exif=_EXIF_TURNED)
    yield "comment", saved(drawn, "JPEG", comment=b"\xff\xda" * 20)
    yield "profile", saved(drawn, "JPEG", icc_profile=bytes(range(256)) * 300)
    yield "photoshop", plain[:2] + b"\xff\xed\0\x14Photoshop 3.0\0\0\0\0\0" + plain[2:]
    yield "trailing", plain + bytes(500)
    yield "followed", plain + plain
    yield "no-end", plain[:-2]
    yield "film", saved(drawn, "MPO", save_all=True, append_images=[Image.fromarray(255 - picture(3))])
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"
    for transform in (0, 1, 2):
        yield f"adobe-{transform}", plain[:2] + adobe + bytes((transform,)) + plain[2:]
    frame = plain.index(b"\xff\xc0")
    for marker in (0xC1, 0xC3, 0xC5, 0xC9, 0xCA, 0xCB):
        yield f"frame-{marker:x}", plain[: frame + 1] + bytes((marker,)) + plain[frame + 2 :]
    yield "12bits", plain[: frame + 4] + b"\x0c" + plain[frame + 5 :]
    for luma in (0x11, 0x12, 0x14, 0x21, 0x22, 0x24, 0x31, 0x41, 0x42, 0x44):
        yield f"luma-{luma:x}", plain[: frame + 11] + bytes((luma,)) + plain[frame + 12 :]
        yield f"chroma-{luma:x}", plain[: frame + 14] + bytes((luma,)) + plain[frame + 15 :]


def webps() -> Iterator[tuple[str, bytes]]:
    for mode, lossless, quality, exif, profile in product(
        ("RGB", "RGBA", "L"), (False, True), (20, 90), (b"", _EXIF_TURNED), (b"", bytes(129))
    ):
        name = f"{mode}-{lossless}-{quality}-{bool(exif)}-{bool(profile)}"
        yield name, saved(in_mode(mode), "WEBP", lossless=lossless, quality=quality, exif=exif, icc_profile=profile)
    for mode, lossless in product(("RGB", "RGBA"), (False, True)):
        options = {"save_all": True, "append_images": [in_mode("L").convert(mode)], "lossless": lossless}
        yield f"film-{mode}-{lossless}", saved(in_mode(mode), "WEBP", **options)


def others() -> Iterator[tuple[str, bytes]]:
    for bits, header, top_down in product((1, 4, 8, 16, 24, 32), (40, 52, 56, 64, 108, 124), (False, True)):
        yield f"{bits}-{header}-{top_down}.bmp", bmp(bits, header, top_down=top_down)
    for bits in (1, 4, 8, 24):
        yield f"core-{bits}.bmp", bmp(bits, core=True)
    for header, masks in product((40, 56, 108), ((0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F), (0x1F, 0x3E0, 0x7C00))):
        yield f"masks16-{header}-{masks[0]:x}.bmp", bmp(16, header, masks=(*masks, 0))
    for header, masks in product((56, 108), ((0xFF0000, 0xFF00, 0xFF, 0), (0xFF0000, 0xFF00, 0xFF, 0xFF000000))):
        yield f"masks32-{header}-{masks[3]:x}.bmp", bmp(32, header, masks=masks)
    yield "runs.bmp", bmp_of_runs()
    yield "headless.dib", bmp(24)[14:]
    for kind, most in product((2, 3, 5, 6), (1, 15, 100, 127, 254, 255, 256, 1023, 65535)):
        yield f"{kind}-{most}.pnm", pnm(kind, most)
    yield from ((f"{kind}.pbm", pnm(kind, 1)) for kind in (1, 4))
    for mode, irreversible, bare, tiles in product(
        ("L", "LA", "RGB", "RGBA"), (False, True), (False, True), (None, (32, 32))
    ):
        name = f"{mode}-{irreversible}-{bool(tiles)}.{'j2k' if bare else 'jp2'}"
        yield name, saved(in_mode(mode), "JPEG2000", irreversible=irreversible, no_jp2=bare, tile_size=tiles)
    yield "deep.jp2", saved(in_mode("I;16"), "JPEG2000")
    yield "deep.j2k", saved(in_mode("I;16"), "JPEG2000", no_jp2=True)
    for ending, bare in (("jp2", False), ("j2k", True)):
        whole = saved(in_mode("RGB"), "JPEG2000", no_jp2=bare)
        size = whole.index(b"\xff\x4f\xff\x51")
        yield f"claims-12bits.{ending}", whole[: size + 42] + b"\x0b" + whole[size + 43 :]
    yield "film.gif", saved(in_mode("RGB"), "GIF")
    yield "named.eps", saved(in_mode("RGB"), "EPS")
    yield "named.tga", saved(in_mode("RGB"), "TGA")


def variants() -> dict[str, bytes]:
    """The content of each file, by its name."""
    kinds: tuple[tuple[str, Callable[[], Iterator[tuple[str, bytes]]]], ...] = (
        ("tif", tiffs), ("png", pngs), ("jpg", jpegs), ("webp", webps),
    )  # fmt: skip
    found = {f"{name}.{ending}": data for ending, made in kinds for name, data in made()}
    found |= dict(others())
    found |= {"renamed.svs": found["rgb-tiles-little.tif"], "renamed.ndpi": found["rgb-strip-little.tif"]}
    return found


def damaged(sound: dict[str, bytes]) -> dict[str, bytes]:
    """Each file cut short, and with some of its bytes changed."""
    rng = np.random.default_rng(11)
    found = {}
    for name, data in sound.items():
        stem, ending = name.rsplit(".", 1)
        found[f"{stem}.cut.{ending}"] = data[: int(rng.integers(len(data) // 3, len(data)))]
        changed = np.frombuffer(data, np.uint8).copy()
        places = rng.integers(0, len(data), 3)
        changed[places] = rng.integers(0, 256, 3)
        found[f"{stem}.changed.{ending}"] = changed.tobytes()
    return found
