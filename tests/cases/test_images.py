"""Every kind of ordinary image, and every way in which a file may be none."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile

from gsco.cases import ImageRef, load_image
from gsco.cases.raster import scale_to_uint8
from gsco.errors import ImageError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (24, 31, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def pixels(source: Path | ImageRef) -> np.ndarray:
    image = load_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey_of(source: Path | ImageRef) -> np.ndarray:
    array = pixels(source)
    assert (array[..., 0] == array[..., 1]).all() and (array[..., 1] == array[..., 2]).all()
    return array[..., 0]


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp", "ppm", "gif", "jp2"])
def test_lossless_formats_give_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    source = Image.fromarray(COLOUR)
    options = {"webp": {"lossless": True}, "jp2": {"irreversible": False}}.get(suffix, {})
    if suffix == "gif":
        source = source.quantize(64)
    source.save(path, **options)
    assert (pixels(path) == np.asarray(source.convert("RGB"))).all()


def test_a_jpeg_equals_pillows_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).save(path, quality=90)
    assert (pixels(path) == np.asarray(Image.open(path).convert("RGB"))).all()


def test_the_name_does_not_decide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(COLOUR).save(path, format="PNG")
    assert (pixels(path) == COLOUR).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_modes_follow_pillow(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.png" if mode in {"L", "1", "P"} else "a.tif")
    Image.fromarray(COLOUR).convert(mode).save(path)
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert (pixels(path) == expected).all()
    if mode == "1":
        assert set(np.unique(expected)) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_black(tmp_path: Path, mode: str) -> None:
    alpha = np.zeros(GREY.shape, np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 255, 128
    image = Image.fromarray(COLOUR if mode == "RGBA" else GREY)
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == mode
    image.save(tmp_path / "a.png")
    array = pixels(tmp_path / "a.png").astype(int)
    colour = np.asarray(image.convert("RGB")).astype(int)
    assert (array[:, :10] == colour[:, :10]).all()
    assert (array[:, 20:] == 0).all()
    assert abs(array[:, 10:20] - colour[:, 10:20] * 128 / 255).max() <= 1


def test_a_transparent_palette_colour_is_black(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([250, 10, 10, 10, 250, 10])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "one.png", transparency=1)
    image.save(tmp_path / "bytes.png", transparency=bytes([255, 0]))
    for name in ("one.png", "bytes.png"):
        assert pixels(tmp_path / name).tolist() == [[[250, 10, 10], [0, 0, 0]]]


def test_a_transparent_key_colour_is_black(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[[9, 9, 9], [200, 0, 0]]], np.uint8))
    image.save(tmp_path / "a.png", transparency=(200, 0, 0))
    assert pixels(tmp_path / "a.png").tolist() == [[[9, 9, 9], [0, 0, 0]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    """The stored picture is the upright one turned the other way; reading turns it back."""
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :8] = 255  # a mark in the upper left
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        image.save(path, tiffinfo={274: orientation})
    else:
        exif = Image.Exif()
        exif[274] = orientation
        image.save(path, exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    array = grey_of(path)
    assert array.shape == upright.shape
    assert abs(array.astype(int) - upright).max() <= 8


def test_broken_exif_does_not_hide_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert pixels(path).shape == COLOUR.shape


def test_sixteen_bit_grey_uses_its_actual_depth(tmp_path: Path) -> None:
    for bits in (8, 10, 12, 14, 16):
        top = 2**bits - 1
        values = np.array([[0, top // 2, top]], np.uint16)
        expected = [[0, round(top // 2 * 255 / top), 255]]
        Image.fromarray(values).save(tmp_path / "a.png")
        tifffile.imwrite(tmp_path / "a.tif", values)
        tifffile.imwrite(tmp_path / "b.tif", values, byteorder=">")
        for name in ("a.png", "a.tif", "b.tif"):
            assert grey_of(tmp_path / name).tolist() == expected, (bits, name)


def test_signed_and_wide_integers_span_their_own_range(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "signed.tif", np.array([[-1000, 0, 1000]], np.int16))
    tifffile.imwrite(tmp_path / "wide.tif", np.array([[0, 100_000, 200_000]], np.int32))
    for name in ("signed.tif", "wide.tif"):
        assert grey_of(tmp_path / name).tolist() == [[0, 128, 255]]


def test_types_that_pillow_takes_for_others(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "u32.tif", np.array([[0, 2**31, 2**32 - 1]], np.uint32))
    tifffile.imwrite(tmp_path / "i8.tif", np.array([[-100, 0, 100]], np.int8))
    assert grey_of(tmp_path / "u32.tif").tolist() == [[0, 128, 255]]
    assert grey_of(tmp_path / "i8.tif").tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_tiff_whose_zero_is_white(tmp_path: Path, kind: type) -> None:
    top = 1.0 if kind is np.float32 else np.iinfo(kind).max
    values = np.array([[0, top // 4 if kind is not np.float32 else 0.25, top]], kind)
    for zero in ("miniswhite", "minisblack"):
        tifffile.imwrite(tmp_path / f"{zero}.tif", values, photometric=zero)
    white, black = (grey_of(tmp_path / f"minis{name}.tif") for name in ("white", "black"))
    assert black.tolist()[0][::2] == [0, 255]
    assert (white == 255 - black).all()


def test_colour_of_16_bits_keeps_the_upper_byte(tmp_path: Path) -> None:
    wide = RNG.integers(0, 65536, (5, 6, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", wide, photometric="rgb")
    assert (pixels(tmp_path / "a.tif") == wide >> 8).all()


def test_a_tiff_beyond_pillow_is_not_called_no_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4)))
    with pytest.raises(ImageError, match="is a TIFF file that is damaged or of a kind that is not read"):
        load_image(tmp_path / "a.tif")


def test_floats(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "unit.tif", np.array([[0.0, 0.25, 0.5]], np.float32))
    tifffile.imwrite(tmp_path / "free.tif", np.array([[-4.0, 0.0, 4.0, np.nan]], np.float32))
    tifffile.imwrite(tmp_path / "none.tif", np.full((2, 2), np.nan, np.float32))
    assert grey_of(tmp_path / "unit.tif").tolist() == [[0, 64, 128]]
    assert grey_of(tmp_path / "free.tif").tolist() == [[0, 128, 255, 0]]
    with pytest.raises(ImageError, match="no finite"):
        load_image(tmp_path / "none.tif")


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.stack([np.full((4, 5), v, np.uint8) for v in (10, 20, 30)]), photometric="minisblack"
    )
    assert (grey_of(path) == 10).all()
    assert (grey_of(ImageRef(path, index=2)) == 30).all()
    with pytest.raises(ImageError, match=r"3 frames, so none with index 3"):
        load_image(ImageRef(path, index=3))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_16_bit_scaling_is_monotone_and_keeps_8_bit_values(values: np.ndarray) -> None:
    scaled = scale_to_uint8(values)
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(scaled.ravel()[order].astype(int)) >= 0).all()
    if values.max() <= 255:
        assert (scaled == values).all()
    else:
        assert scaled.max() >= 64 - 1  # the largest value uses at least a quarter of its depth
        exact = values.ravel() * 255.0
        top = min(2**b - 1 for b in (10, 12, 14, 16) if values.max() < 2**b)
        assert abs(scaled.ravel() - exact / top).max() <= 0.5


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)))
def test_16_bit_png_and_tiff_agree_with_the_array(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "h.png")
    tifffile.imwrite(tmp_path / "h.tif", values)
    expected = scale_to_uint8(values)
    assert (grey_of(tmp_path / "h.png") == expected).all()
    assert (grey_of(tmp_path / "h.tif") == expected).all()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.int8]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    )
)
def test_any_numbers_scale_without_warning(values: np.ndarray) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).any():
        with pytest.raises(ImageError):
            scale_to_uint8(values)
        return
    scaled = scale_to_uint8(values)
    assert scaled.dtype == np.uint8 and scaled.shape == values.shape


def test_a_span_beyond_the_largest_float() -> None:
    top = np.finfo(np.float64).max
    assert scale_to_uint8(np.array([[top, 0.0, -top]])).tolist() == [[255, 128, 0]]


# what is not an image


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"nothing\.png: there is no such file"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="empty file"):
        load_image(tmp_path / "empty.png")
    with pytest.raises(ImageError):
        load_image("a\0b.png")


def test_text_named_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("image,label,split\n" * 40)
    with pytest.raises(ImageError, match=r"a\.png: is not an image") as caught:
        load_image(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp", "gif", "jp2"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_truncated(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(path, **({"lossless": True} if suffix == "webp" else {}))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ImageError, match=rf"a\.{suffix}: "):
        load_image(path)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(1 << 20)) for _ in range(4)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_decompression_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(30_000, 30_000))
    # In a process that may not have the 900 MB the pixels would take.
    program = (
        "import resource, sys; from gsco.cases import load_image; from gsco.errors import ImageError\n"
        "import PIL.Image, PIL.PngImagePlugin; from pathlib import Path\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)\n"
        "try: load_image(sys.argv[1])\n"
        "except ImageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert "is too large (900,000,000 pixels; at most 100,000,000 are decoded)" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1 and not done.stderr


@pytest.mark.parametrize(("width", "height"), [(9_999, 10_002), (11_000, 11_000)])
def test_sizes_between_ours_and_pillows_limit(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(ImageError, match=f"{width} x {height}"):
        load_image(path)


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="too large"):
        load_image(tmp_path / "a.png", max_pixels=700)
    assert load_image(tmp_path / "a.png", max_pixels=24 * 31).size == (31, 24)


def test_a_png_of_no_size(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_header(0, 5))
    with pytest.raises(ImageError):
        load_image(path)


def test_other_formats_of_pillow_are_not_opened(tmp_path: Path) -> None:
    """PostScript would start another program; nobody's radiograph is PostScript."""
    Image.fromarray(COLOUR).save(tmp_path / "a.eps")
    with pytest.raises(ImageError, match="is not an image"):
        load_image(tmp_path / "a.eps")


def test_pillows_settings_are_left_alone(tmp_path: Path) -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    (tmp_path / "bomb.png").write_bytes(png_header(30_000, 30_000))
    with pytest.raises(ImageError):
        load_image(tmp_path / "bomb.png")
    after = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert after == before
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_an_image_or_an_image_error(tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(["png", "jpg", "tif", "bmp", "webp", "gif", "jp2"]))
    path = tmp_path / f"fuzz.{suffix}"
    Image.fromarray(COLOUR).save(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        assert load_image(path, max_pixels=1_000_000).mode == "RGB"
    except ImageError as error:
        assert str(path) in str(error) and "\n" not in str(error)
