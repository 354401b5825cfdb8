"""Hypothesis strategies for DICOM series and NIfTI headers that may be odd in every way, and the check of a reading.

The rule: voxels and geometry equal the truth to 0.01 mm, or there is a sentence. `test_reading_cases.py` tries some
examples, `Testing/Benchmarks/reading_fuzz.py` thousands.
"""

from __future__ import annotations

import gzip
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from ClassScaleSegLib import ImageError
from ClassScaleSegLib.images.reading import read_image
from dicom_phantom import CT, MR, PET, SECONDARY_CAPTURE, Plane, compare, localizer, planes, write_frames, write_series
from hypothesis import strategies as st
from nibabel.imageglobals import LoggingOutputSuppressor

PLACE_TOLERANCE = 0.01  # mm


def rotation(seed: int) -> np.ndarray:
    """Return a rotation: of right angles for seeds below 24, else any."""
    random = np.random.default_rng(seed)
    if seed < 24:
        matrix = np.eye(3)[random.permutation(3)] * random.choice([-1, 1], 3)
    else:
        matrix = np.linalg.qr(random.normal(size=(3, 3)))[0]
    matrix[:, 2] *= np.sign(np.linalg.det(matrix))
    return matrix


@dataclass(frozen=True)
class DicomCase:
    """A series or object to be written.

    :ivar planes: those that make the volume.
    :ivar others: localizers in the same series.
    :ivar order: of the files, or frames.
    :ivar frames: write one object with many frames.
    :ivar tags: further elements of every header.
    """

    planes: tuple[Plane, ...]
    others: tuple[Plane, ...]
    order: tuple[int, ...]
    frames: bool
    tags: dict[str, Any]


@st.composite
def dicom_cases(draw: Any) -> DicomCase:
    count = draw(st.integers(1, 7))
    shape = (draw(st.integers(2, 5)), draw(st.integers(2, 5)))
    turn = rotation(draw(st.integers(0, 60)))
    tilt = np.deg2rad(draw(st.sampled_from([0, 0, 0, 0.01, 0.2, 1, 15, -25])))
    shift = draw(st.sampled_from([0, 0, 0, 0.05, 2]))
    distance = draw(st.sampled_from([5.0, -5.0, 0.625, 1.25, 3.0, 0.3]))
    row, column, normal = turn.T
    column = np.cos(tilt) * column - np.sin(tilt) * normal
    step = distance * turn[:, 2] + shift * row
    volume = planes(
        count,
        shape,
        origin=draw(st.sampled_from([(-40.0, 12.0, 7.0), (0.0, 0.0, 0.0), (-123.456, 987.6543, -1500.25)])),
        step=tuple(step),
        dtype=draw(st.sampled_from([np.int16, np.int16, np.uint16, np.uint8])),
        seed=draw(st.integers(0, 1000)),
        directions=(*row, *column),
        spacing=(draw(st.sampled_from([3.0, 0.7])), draw(st.sampled_from([2.0, 0.7]))),
        slope=draw(st.sampled_from([1.0, 1.0, 2.0, 0.5, -1.0])),
        intercept=draw(st.sampled_from([0.0, -1024.0, 0.25])),
        decimals=draw(st.sampled_from([None, None, None, 1, 2, 3])),
    )
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        volume = draw(st.sampled_from(_FAULTS))(draw, volume)
    others = [localizer(shape)] * draw(st.sampled_from([0, 0, 0, 1]))
    tags = draw(
        st.fixed_dictionaries(
            {"Modality": st.sampled_from(["CT", "MR", "PT", "OT"])},
            optional={
                "SpacingBetweenSlices": st.sampled_from(["-5", "1", "5", "0", ""]),
                "SliceThickness": st.sampled_from(["5", "0.1", ""]),
                "GantryDetectorTilt": st.sampled_from(["0", "15"]),
                "PhotometricInterpretation": st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
                "SOPClassUID": st.sampled_from([CT, MR, PET, SECONDARY_CAPTURE]),
            },
        )
    )
    order = tuple(draw(st.permutations(range(len(volume)))))
    return DicomCase(tuple(volume), tuple(others), order, draw(st.integers(0, 2)) == 0, tags)


def _moved(draw: Any, volume: list[Plane]) -> list[Plane]:
    index = draw(st.integers(0, len(volume) - 1))
    by = np.array(draw(st.sampled_from([(0, 0, 0.001), (0, 0, 0.3), (0, 0, 2), (1, 0, 0), (0, -0.02, 0), (0, 0, 50)])))
    return [
        replace(plane, position=(np.array(plane.position) + by).tolist()) if number == index else plane
        for number, plane in enumerate(volume)
    ]


def _missing(draw: Any, volume: list[Plane]) -> list[Plane]:
    index = draw(st.integers(0, len(volume) - 1))
    return [plane for number, plane in enumerate(volume) if number != index] or volume


def _repeated(draw: Any, volume: list[Plane]) -> list[Plane]:
    return [*volume, draw(st.sampled_from(volume))]


def _changed(draw: Any, volume: list[Plane]) -> list[Plane]:
    changes = draw(
        st.sampled_from(
            [
                {"directions": (1, 0, 0, 0, 0.9998476952, 0.0174524064)},
                {"directions": (0, 0, 0, 0, 0, 0)},
                {"directions": (1, 0, 0, 1, 0, 0)},
                {"spacing": (3.0, 2.001)},
                {"spacing": (0.0, 2.0)},
                {"slope": 0.37, "intercept": 3.0},
                {"slope": 3.0},
                {"slope": 0.0},
                {"intercept": 20000.0},
                {"stored": np.arange(24, dtype=np.int16).reshape(6, 4)},
                {"stored": "unsigned"},
            ]
        )
    )
    index = draw(st.sampled_from([0, len(volume) - 1, None]))
    changed = []
    for number, plane in enumerate(volume):
        new = dict(changes)
        if isinstance(new.get("stored"), str):
            new["stored"] = plane.stored.astype(np.uint16)
        changed.append(replace(plane, **new) if index in (number, None) else plane)
    return changed


def _without_tag(draw: Any, volume: list[Plane]) -> list[Plane]:
    keywords = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "SOPInstanceUID"]
    keywords += ["SeriesInstanceUID", "Rows", "BitsStored", "PixelRepresentation", "ImageType", "Modality"]
    keyword = draw(st.sampled_from(keywords))
    value = draw(st.sampled_from([None, None, ""])) if keyword not in ("Rows", "BitsStored") else None
    index = draw(st.sampled_from([0, len(volume) - 1, None]))
    return [
        replace(
            plane,
            tags={**plane.tags, keyword: value},
            slope=1.0 if keyword == "RescaleSlope" else plane.slope,  # what a missing slope means
        )
        if index in (number, None)
        else plane
        for number, plane in enumerate(volume)
    ]


_FAULTS = [_moved, _missing, _repeated, _changed, _changed, _without_tag]


def check_dicom(case: DicomCase, folder: Path) -> str:
    """Write and read a case.

    :returns: "read", "told" if there was a notice too, or "refused".
    :raises AssertionError: if something else was read than was written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    ordered = [case.planes[index] for index in case.order]
    same_shape = len({plane.stored.shape for plane in ordered}) == len({plane.stored.dtype for plane in ordered}) == 1
    if case.frames and same_shape and len(ordered) > 1:
        source = write_frames(folder / "frames.dcm", ordered, **{"SOPClassUID": None, **_no_class(case.tags)})
    else:
        source = write_series(folder, ordered, "1.2.3.4", **case.tags)
        write_series(folder, case.others, "1.2.3.4", "scout{}.dcm")
    try:
        read = read_image(source, 1)
    except ImageError as error:
        assert str(error).endswith("."), f"no sentence: {error}"
        return "refused"
    told = " ".join(read.notices)
    decimals = case.planes[0].decimals
    rounding = 0.0 if decimals is None else 10.0**-decimals  # of the written positions, in three directions
    tolerance = PLACE_TOLERANCE + rounding + (0.1 if "rounded" in told else 0)
    apart = compare(read, case.planes, 0.02)
    assert apart <= tolerance, f"places differ by {apart:.4g} mm"
    return "told" if told else "read"


def _no_class(tags: dict[str, Any]) -> dict[str, Any]:
    from dicom_phantom import ENHANCED_CT

    return {**tags, "SOPClassUID": ENHANCED_CT}


@dataclass(frozen=True)
class NiftiCase:
    """A NIfTI file as bytes.

    :ivar name: of the file.
    :ivar content: of the file, header and voxels.
    :ivar compressed: as gzip, whatever the name says.
    """

    name: str
    content: bytes
    compressed: bool


@st.composite
def nifti_cases(draw: Any) -> NiftiCase:
    version = draw(st.sampled_from([1, 1, 1, 2]))
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=3, max_size=3)))
    shape += draw(st.sampled_from([(), (), (), (1,), (1, 1), (2,)]))
    dtype = draw(st.sampled_from(["<i2", "<i2", "<f4", "<u1", ">i2", "<f8", "<u2", "<i4", "<i8"]))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    voxels = random.integers(0, 200, shape).astype(dtype)
    affine = np.eye(4)
    affine[:3, :3] = rotation(draw(st.integers(0, 60))) * draw(st.sampled_from([(2, 3, 5), (1, 1, 1), (0.3, 0.3, 2)]))
    affine[:3, 3] = draw(st.sampled_from([(-40, 12, 7), (0, 0, 0), (1234.5, -7, 0.25)]))
    affine[:3, 0] *= draw(st.sampled_from([1, 1, -1]))
    affine[0, 1] += draw(st.sampled_from([0, 0, 0, 0, 1e-6, 1e-3, 0.3]))
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = kind(voxels, affine, dtype=np.dtype(dtype))
    image.header.set_data_dtype(dtype)
    if dtype.startswith(">"):
        image = kind(voxels, affine, header=image.header.as_byteswapped(">"))
    other = rotation(draw(st.integers(0, 30))) * (2, 3, 5)
    turned = np.eye(4)
    turned[:3, :3] = other
    image.header.set_qform(draw(st.sampled_from([affine, affine, turned])), draw(st.sampled_from([0, 1, 1, 2])), True)
    image.header.set_sform(draw(st.sampled_from([affine, affine, turned])), draw(st.sampled_from([0, 1, 1, 2])))
    image.header.set_xyzt_units(draw(st.sampled_from(["mm", "mm", "unknown", "meter", "micron"])))
    header = image.header
    offset = 352 if version == 1 else 544
    header["vox_offset"] = offset
    header["magic"] = b"n+1" if version == 1 else b"n+2"
    header["scl_slope"], header["scl_inter"] = draw(
        st.sampled_from([(1, 0), (1, 0), (0, 0), (2, -3), (0.5, 7), (np.nan, np.nan), (0, 5), (1, np.nan), (np.inf, 1)])
    )
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        key, value = draw(st.sampled_from(_HEADER_FAULTS))
        try:
            header[key] = (
                value if not isinstance(value, tuple) else header[key] * 0 + np.resize(value, header[key].shape)
            )
        except (TypeError, ValueError, OverflowError):
            pass
    content = header.binaryblock + bytes(offset - header.sizeof_hdr)
    content += voxels.astype(dtype).tobytes(order="F")
    cut = draw(st.sampled_from([0] * 12 + [1, 5, 300]))
    content = content[: len(content) - cut] + draw(st.sampled_from([b"", b"", b"", b"\0" * 40, b"garbage"]))
    name = draw(st.sampled_from(["ct.nii", "ct.nii.gz", "CT.NII.GZ", "CT.NII", "ct 1.nii.gz"]))
    compressed = name.lower().endswith(".gz") != (draw(st.integers(0, 9)) == 0)
    return NiftiCase(name, content, compressed)


_HEADER_FAULTS: list[tuple[str, Any]] = [
    ("pixdim", (1.0, 2.0, 3.0)),
    ("pixdim", (-1.0, 2.0, 3.0)),
    ("pixdim", (0.0,)),
    ("pixdim", (float("nan"),)),
    ("pixdim", (3.0, 1.0, 1.0)),
    ("dim", (3, 2, 2, 2)),
    ("dim", (0,)),
    ("dim", (9, 1)),
    ("dim", (3, -4, 4, 4)),
    ("dim", (3, 30, 30, 30)),
    ("vox_offset", 0),
    ("vox_offset", 348),
    ("vox_offset", 360),
    ("vox_offset", 1e9),
    ("datatype", 2),
    ("datatype", 16),
    ("datatype", 1792),
    ("datatype", 77),
    ("bitpix", 32),
    ("bitpix", 0),
    ("srow_x", (0.0,)),
    ("srow_y", (float("nan"),)),
    ("srow_z", (0.0, 0.0, 5.0, 1.0)),
    ("quatern_b", 0.9),
    ("quatern_c", 5.0),
    ("quatern_d", float("nan")),
    ("qform_code", 77),
    ("sform_code", -3),
    ("sform_code", 4),
    ("xyzt_units", 255),
    ("magic", b"ni1"),
    ("magic", b"abc"),
    ("sizeof_hdr", 0),
    ("intent_code", 1007),
]


def check_nifti(case: NiftiCase, folder: Path) -> str:
    """Write and read a case, as nibabel would and as ITK would.

    :returns: "read", "told" if there was a notice too, or "refused", by either reader.
    :raises AssertionError: if something else was read than the file states.
    """
    folder.mkdir(exist_ok=True)
    file = folder / case.name
    file.write_bytes(gzip.compress(case.content, 1) if case.compressed else case.content)
    results = []
    truth = _truth(case.content)
    for as_nibabel in (False, True):
        try:
            read = read_image(file, 1, nibabel=as_nibabel)
        except ImageError as error:
            assert str(error).endswith("."), f"no sentence: {error}"
            results.append("refused")
            continue
        if read.notices and not as_nibabel:  # ITK decides, as in the training of the model, and the user is told
            results.append("told")
            continue
        assert truth is not None, "a file was read that nibabel cannot read"
        voxels, affine = truth
        found = np.asarray(read.voxels[0], float)
        assert found.shape == voxels.shape, f"shape {found.shape}, not {voxels.shape}"
        assert np.allclose(found, voxels, rtol=1e-6, atol=1e-6), "values differ"
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = read.geometry.axes, read.geometry.origin
        ends = np.array(np.meshgrid(*[(0, n - 1) for n in read.geometry.size])).reshape(3, -1)
        apart = (matrix - affine)[:3, :3] @ ends + (matrix - affine)[:3, 3:]
        assert np.abs(apart).max() <= PLACE_TOLERANCE, f"places differ by {np.abs(apart).max()} mm"
        results.append("told" if read.notices else "read")
    return "/".join(results)


def _truth(content: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what nibabel reads: voxels ``(z, y, x)``, and the affine in LPS and mm; ``None`` if it cannot."""
    import io
    import warnings

    kind = nibabel.Nifti2Image if content[4:7] == b"n+2" or b"\x02\x1c" in content[:4] else nibabel.Nifti1Image
    try:
        with LoggingOutputSuppressor(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = kind.from_stream(io.BytesIO(content))
            voxels = np.asarray(image.dataobj, float)
            unit = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7, 1.0)
            affine = image.affine
    except Exception:
        return None
    voxels = voxels.reshape((*voxels.shape, 1, 1)[:3] + tuple(n for n in voxels.shape[3:] if n > 1))
    return voxels.T, np.diag([-unit, -unit, unit, 1.0]) @ affine
