"""DICOM in the order of the standard, against pydicom's own functions and files."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import apply_windowing, pixel_array
from pydicom.uid import (
    MPEG2MPML,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from gsco.cases import ImageRef, load_image
from gsco.cases.dicom import _without_pixels, apply_window
from gsco.errors import ImageError

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)


def write(path: Path, values: np.ndarray, syntax: Any = ExplicitVRLittleEndian, **tags: Any) -> Path:
    """A small grey (or RGB) image object with the given tags on top of the usual ones."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    little = syntax != ExplicitVRBigEndian
    implicit = syntax == ImplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, b"\0" * 128, meta, implicit, little)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.PatientName = "SECRET^NAME"
    frames = values.shape[0] if values.ndim == 3 and values.shape[-1] != 3 else 1
    colour = values.ndim >= 3 and values.shape[-1] == 3
    dataset.Rows, dataset.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    bits = values.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.astype(values.dtype.newbyteorder("<" if little else ">")).tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def grey(source: Path | ImageRef) -> np.ndarray:
    array = np.asarray(load_image(source))
    assert (array == array[..., :1]).all()
    return array[..., 0]


def item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    if "LUTData" in dataset:
        dataset["LUTData"].VR = "US"
    return dataset


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(128.0, 100.0), (40.0, 400.0), (100.5, 1.0), (0.0, 3.5)])
def test_windows_equal_pydicoms(function: str, center: float, width: float) -> None:
    values = np.arange(-300, 600, dtype=np.float64).reshape(30, 30)
    reference = item(
        PhotometricInterpretation="MONOCHROME2",
        BitsStored=8,
        PixelRepresentation=0,
        RescaleSlope=1,
        RescaleIntercept=0,
        WindowCenter=center,
        WindowWidth=width,
        VOILUTFunction=function,
    )
    with np.errstate(over="ignore"):
        expected = apply_windowing(values, reference)  # to 0..255
    assert abs(apply_window(values, center, width, function) * 255 - expected).max() < 1e-9


def test_impossible_windows() -> None:
    for width, function in [(0.5, "LINEAR"), (0, "LINEAR_EXACT"), (-1, "SIGMOID"), (float("nan"), "LINEAR")]:
        with pytest.raises(ValueError, match="window width"):
            apply_window(np.zeros((1, 1)), 0.0, width, function)
    with pytest.raises(ValueError, match="unknown"):
        apply_window(np.zeros((1, 1)), 0.0, 5.0, "CUBIC")


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=3000
    )
    values = RAMP * 2.0 - 1000
    expected = np.floor(np.clip((values - 999.5) / 2999 + 0.5, 0, 1) * 255 + 0.5)
    assert (grey(path) == expected).all()


@pytest.mark.parametrize(
    "tags", [{}, {"WindowCenter": 900, "WindowWidth": 700}, {"RescaleSlope": -1.5, "RescaleIntercept": 9}]
)
def test_monochrome1_is_inverted_last(tmp_path: Path, tags: dict[str, Any]) -> None:
    usual = grey(write(tmp_path / "a.dcm", RAMP, **tags))
    inverse = grey(write(tmp_path / "b.dcm", RAMP, PhotometricInterpretation="MONOCHROME1", **tags))
    shape = grey(write(tmp_path / "c.dcm", RAMP, PresentationLUTShape="INVERSE", **tags))
    both = grey(
        write(
            tmp_path / "d.dcm",
            RAMP,
            PhotometricInterpretation="MONOCHROME1",
            PresentationLUTShape="INVERSE",
            **tags,
        )
    )
    for array in (inverse, shape, both):
        assert (array == 255 - usual).all()
    assert len(np.unique(usual)) > 20


def test_without_a_window_the_values_span_the_range(tmp_path: Path) -> None:
    values = np.array([[-2000, -100], [0, 300]], np.int16)
    assert grey(write(tmp_path / "a.dcm", values)).tolist() == [[0, 211], [222, 255]]
    padded = write(tmp_path / "b.dcm", values, PixelPaddingValue=-2000)
    assert grey(padded).tolist() == [[0, 0], [64, 255]]
    ranged = write(tmp_path / "c.dcm", values, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-50)
    assert grey(ranged).tolist() == [[0, 0], [0, 255]]
    constant = write(tmp_path / "d.dcm", np.full((2, 2), 7, np.uint16))
    assert grey(constant).tolist() == [[0, 0], [0, 0]]
    all_padding = write(tmp_path / "e.dcm", np.full((2, 2), 7, np.uint16), PixelPaddingValue=7)
    assert grey(all_padding).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    "tags", [{"WindowCenter": 5, "WindowWidth": 0}, {"WindowCenter": 5}, {"WindowWidth": 5}]
)
def test_an_unusable_window_counts_as_none(tmp_path: Path, tags: dict[str, Any]) -> None:
    assert (grey(write(tmp_path / "a.dcm", RAMP, **tags)) == grey(write(tmp_path / "b.dcm", RAMP))).all()


def test_the_first_of_several_windows_is_taken(tmp_path: Path) -> None:
    several = write(tmp_path / "a.dcm", RAMP, WindowCenter=[500, 2000], WindowWidth=[300, 4000])
    one = write(tmp_path / "b.dcm", RAMP, WindowCenter=500, WindowWidth=300)
    assert (grey(several) == grey(one)).all()


@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 1, "RescaleIntercept": -5}])
def test_a_voi_lut_wins_over_the_window(tmp_path: Path, rescale: dict[str, Any]) -> None:
    lut = item(LUTDescriptor=[4, 10, 8], LUTData=[255, 100, 50, 0])
    path = write(
        tmp_path / "a.dcm",
        np.array([[0, 10 - int(rescale.get("RescaleIntercept", 0)), 40]], np.uint16),
        VOILUTSequence=[lut],
        WindowCenter=5,
        WindowWidth=5,
        **rescale,
    )
    assert grey(path).tolist() == [[255, 255, 0]]


def test_a_modality_lut(tmp_path: Path) -> None:
    lut = item(LUTDescriptor=[3, 0, 16], ModalityLUTType="US", LUTData=[1000, 0, 2000])
    path = write(tmp_path / "a.dcm", np.array([[0, 1, 2]], np.uint16), ModalityLUTSequence=[lut])
    assert grey(path).tolist() == [[128, 0, 255]]


def test_the_middle_frame_or_the_one_asked_for(tmp_path: Path) -> None:
    frames = np.stack([np.array([[0, 10 * k + 10], [k, 255]], np.uint8) for k in range(4)])
    path = write(tmp_path / "a.dcm", frames)
    for index, wanted in [(None, 2), (0, 0), (3, 3)]:
        assert grey(ImageRef(path, index=index)).tolist() == frames[wanted].tolist()
    with pytest.raises(ImageError, match=r"4 frames, so none with index 4"):
        load_image(ImageRef(path, index=4))


def test_functional_groups_of_enhanced_objects(tmp_path: Path) -> None:
    frames = np.stack([RAMP, RAMP, RAMP])
    per_frame = [
        item(FrameVOILUTSequence=[item(WindowCenter=500 * (k + 1), WindowWidth=400)]) for k in range(3)
    ]
    shared = item(PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-100)])
    path = write(
        tmp_path / "a.dcm",
        frames,
        PerFrameFunctionalGroupsSequence=per_frame,
        SharedFunctionalGroupsSequence=[shared],
    )
    for index in range(3):
        plain = write(
            tmp_path / "b.dcm",
            RAMP,
            RescaleSlope=1,
            RescaleIntercept=-100,
            WindowCenter=500 * (index + 1),
            WindowWidth=400,
        )
        assert (grey(ImageRef(path, index=index)) == grey(plain)).all()


def test_colour(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert (np.asarray(load_image(write(tmp_path / "a.dcm", colour))) == colour).all()
    wide = colour.astype(np.uint16) * 257
    assert (np.asarray(load_image(write(tmp_path / "b.dcm", wide))) == colour).all()
    with pytest.raises(ImageError, match="CMYK"):
        load_image(write(tmp_path / "c.dcm", colour, PhotometricInterpretation="CMYK"))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_uncompressed_syntaxes(tmp_path: Path, syntax: Any) -> None:
    path = write(tmp_path / "a.dcm", RAMP, syntax)
    assert (grey(path) == grey(write(tmp_path / "b.dcm", RAMP))).all()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_file_without_preamble_is_read(tmp_path: Path, syntax: Any) -> None:
    whole = write(tmp_path / "a.dcm", RAMP, syntax)
    raw = whole.read_bytes()
    length = int.from_bytes(raw[140:144], "little")
    (tmp_path / "bare.dcm").write_bytes(raw[144 + length :])
    assert (grey(tmp_path / "bare.dcm") == grey(whole)).all()


def test_dicom_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "IM000001", RAMP)
    assert grey(path).shape == (16, 16)
    path.rename(tmp_path / "a.png")
    assert grey(tmp_path / "a.png").shape == (16, 16)


# pydicom's own files

SHIPPED = [
    "CT_small.dcm", "ExplVR_BigEnd.dcm", "GDCMJ2K_TextGBR.dcm", "J2K_pixelrep_mismatch.dcm",
    "JPEG2000.dcm", "JPEGLSNearLossless_16.dcm", "JPGExtended.dcm", "MR_small.dcm", "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm", "examples_jpeg2k.dcm", "examples_overlay.dcm", "examples_palette.dcm",
    "examples_rgb_color.dcm", "examples_ybr_color.dcm", "image_dfl.dcm", "liver_1frame.dcm", "rtdose.dcm",
    "rtdose_rle.dcm", "SC_rgb_rle_32bit_2frame.dcm", "SC_ybr_full_422_uncompressed.dcm",
]  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_read(name: str) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip("not shipped with this pydicom")
    image = load_image(path)
    header = pydicom.dcmread(path, stop_before_pixels=True)
    assert image.size == (header.Columns, header.Rows)
    assert len(np.unique(np.asarray(image))) > 1


@pytest.mark.parametrize("name", ["examples_rgb_color.dcm", "examples_ybr_color.dcm"])
def test_colour_equals_pydicoms_decoding(name: str) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip("not shipped with this pydicom")
    frames = int(pydicom.dcmread(path, stop_before_pixels=True).get("NumberOfFrames", 1))
    assert (np.asarray(load_image(path)) == pixel_array(path, index=frames // 2)).all()


BARS = [
    (255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255), (128, 128, 255), (0, 0, 0),
    (64, 64, 64), (192, 192, 192), (255, 255, 255),
]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_dcmtk_+eb+cr", "SC_rgb_dcmtk_+eb+cy+n1", "SC_rgb_dcmtk_+eb+cy+np", "SC_rgb_dcmtk_+eb+cy+s2",
        "SC_rgb_dcmtk_+eb+cy+s4", "SC_rgb_gdcm_KY", "SC_rgb_jpeg_dcmtk", "SC_rgb_jpeg_gdcm",
        "SC_rgb_rle", "SC_rgb_rle_16bit", "SC_rgb_rle_32bit", "SC_rgb_rle_2frame",
    ],
)  # fmt: skip
def test_colour_bars_come_out_in_their_colours(name: str) -> None:
    """One test picture in many encodings: RGB and YBR, subsampled, planar, RLE, JPEG, 8 to 32 bits."""
    path = get_testdata_file(f"{name}.dcm", download=False)
    assert path is not None
    array = np.asarray(load_image(ImageRef(Path(path), index=0))).astype(int)
    for row, colour in zip(range(5, 100, 10), BARS, strict=True):
        assert abs(array[row, 50] - colour).max() <= 6, (row, colour)


@pytest.mark.parametrize("name", ["rtplan.dcm", "reportsi.dcm", "waveform_ecg.dcm", "DICOMDIR"])
def test_objects_without_pixels(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    with pytest.raises(ImageError, match="is DICOM without pixels"):
        load_image(path)


def test_a_truncated_object() -> None:
    path = get_testdata_file("MR_truncated.dcm", download=False)
    assert path is not None
    with pytest.raises(ImageError, match="truncated"):
        load_image(path)


# bad input


def test_image_object_whose_pixels_are_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(ImageError, match=r"without pixels \(CT Image Storage\)") as caught:
        load_image(path)
    assert "SECRET" not in str(caught.value) and "\n" not in str(caught.value)


def test_text_named_dcm(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("no image\n" * 50)
    with pytest.raises(ImageError, match="is not an image"):
        load_image(tmp_path / "a.dcm")


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.95])
def test_cut_short(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "a.dcm", RAMP)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert "SECRET" not in str(caught.value)


def test_too_large_is_refused_before_decoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP, Rows=30_000, Columns=30_000)
    with pytest.raises(ImageError, match="30000 x 30000 = 900,000,000 pixels"):
        load_image(path)
    with pytest.raises(ImageError, match="has no pixels"):
        load_image(write(tmp_path / "b.dcm", RAMP, Rows=0))


def test_a_deflated_bomb_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP, DeflatedExplicitVRLittleEndian)
    raw = path.read_bytes()
    start = 144 + int.from_bytes(raw[140:144], "little")
    inside = zlib.decompress(raw[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(inside + bytes(2_000_000)) + packer.flush()
    path.write_bytes(raw[:start] + packed)
    with pytest.raises(ImageError, match="unpacks to more than 1,600,000 bytes"):
        load_image(path, max_pixels=100_000)


def test_a_syntax_without_decoder_names_the_remedy(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x0a" + bytes(20)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(ImageError, match=r"MPEG2.*no decoder.*gsco\[dicom\]"):
        load_image(path)


def test_without_pydicom_the_error_names_the_extra(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP)
    program = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from gsco.cases import load_image; from gsco.errors import ImageError, UserError\n"
        "try: load_image(sys.argv[1])\n"
        "except UserError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("UserError") and "pip install 'gsco[dicom]'" in done.stdout


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_an_image_or_an_image_error(tmp_path: Path, data: st.DataObject) -> None:
    path = write(tmp_path / "fuzz.dcm", RAMP, WindowCenter=500, WindowWidth=400, PixelPaddingValue=0)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(128, min(len(raw), 900) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        assert load_image(path, max_pixels=1_000_000).mode == "RGB"
    except ImageError as error:
        assert str(path) in str(error) and "\n" not in str(error) and "SECRET" not in str(error)


def test_a_decoder_that_panics_is_an_image_error(tmp_path: Path) -> None:
    """The RLE decoder is Rust; what it throws on damaged runs is no `Exception`."""
    whole = get_testdata_file("MR_small_RLE.dcm", download=False)
    assert whole is not None
    raw = bytearray(Path(whole).read_bytes())
    raw[1700:4000] = b"\x7f" * 2300
    (tmp_path / "a.dcm").write_bytes(raw)
    with pytest.raises(ImageError, match="damaged"):
        load_image(tmp_path / "a.dcm")


def test_a_damaged_class_tells_nothing_of_the_patient() -> None:
    """A wrong length may put the patient's name into the element before it."""
    for uid, told in (
        ("1.2.840.10008.5.1.4.1.1.2 PN SECRET^NAME", False),
        ("1.2.840.10008.5.1.4.1.1.2", True),
    ):
        said = str(_without_pixels({"SOPClassUID": UID(uid, validation_mode=0)}, "x.dcm"))
        assert "SECRET" not in said
        assert ("CT Image Storage" in said) == told
