"""The names that a NIfTI label map has in its header, as TotalSegmentator writes them, and damaged or hostile ones."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib import LabelTable, Segmentation
from ClassScaleSegLib.commands.main import ExitCode, main
from ClassScaleSegLib.images import nifti
from ClassScaleSegLib.images.nifti_labels import read_named_values

nib = pytest.importorskip("nibabel")

AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
LIVER = '<Label Key="5" Red="1" Green="0.5" Blue="0" Alpha="1"><![CDATA[liver]]></Label>'


def labels() -> np.ndarray:
    """``(x, y, z)``: the values 5, 7 and 300."""
    values = np.zeros((4, 5, 6), np.uint16)
    values[1:3], values[3], values[0, 0] = 5, 7, 300
    return values


def table(*rows: str) -> str:
    """The XML of a table, with what else TotalSegmentator has in it."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?> <CaretExtension>  <Date><![CDATA[2013-07-14T05:45:09]]></Date>   '
        f'<VolumeInformation Index="0">   <LabelTable>\n{"".join(rows)}\n  </LabelTable>  <StudyMetaDataLinkSet>  '
        "</StudyMetaDataLinkSet>  <VolumeType><![CDATA[Label]]></VolumeType>   </VolumeInformation></CaretExtension>\n "
    )


def save(file, text: str | bytes, kind=nib.Nifti1Image, code=0):
    image = kind(labels(), AFFINE)
    content = text if isinstance(text, bytes) else text.encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a comment before it"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(code, content))
    nib.save(image, file)
    return file


@pytest.mark.parametrize("code", [0, 30])
@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_names_colours_and_codes(tmp_path, kind, name, code):
    absent = '<Label Key="2" Red="0" Green="0" Blue="0.2" Alpha="1">kidney_left</Label>'
    file = save(tmp_path / name, table(LIVER, absent), kind, code)
    read = Segmentation.from_image(file)
    assert read.table.names == {0: "background", 2: "kidney_left", 5: "liver", 7: "label 7", 300: "label 300"}
    assert read.table[5].color == (255, 128, 0) and read.table[2].color == (0, 0, 51)
    assert read.table[2].type_modifier.meaning == "Left"
    assert np.array_equal(read.labels, labels().T)
    assert read.geometry.spacing == (2, 2, 3)
    assert read_named_values(file).notices == ()


def test_big_endian_files(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.uint16)
    image = nib.Nifti1Image(labels(), AFFINE, header)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, table(LIVER).encode()))
    nib.save(image, tmp_path / "ct.nii")
    assert (tmp_path / "ct.nii").read_bytes()[:4] == (348).to_bytes(4, "big")
    read = Segmentation.from_image(tmp_path / "ct.nii")
    assert read.table[5].name == "liver"
    assert np.array_equal(read.labels, labels().T)


# every entity is ten times the one before it: 10 to the power of 8 words
ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "liver"}">' for n in range(9))
BOMB = f'<!DOCTYPE x [{ENTITIES}]><CaretExtension><Label Key="5">&e8;</Label></CaretExtension>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "declares types of its own"),
        (
            '<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/hostname">]><CaretExtension>&x;</CaretExtension>',
            "declares types of its own",
        ),
        (table(LIVER)[:-40], "no element found"),
        (table(LIVER).replace("liver", "leb\xe9r").encode("latin-1"), "not well-formed"),
        (table(LIVER).replace("UTF-8", "utf-7"), "multi-byte encodings"),
        (table(LIVER).replace("UTF-8", "base64"), "not a text encoding"),
        (table("<a>" * 100_000), "nested more than"),
    ],
)
def test_what_cannot_be_understood_is_left_out_with_a_notice(tmp_path, text, said):
    file = save(tmp_path / "ct.nii", text)
    [notice] = read_named_values(file).notices
    assert notice.startswith(f"{file} has names of its labels that cannot be read (") and said in notice
    read = Segmentation.from_image(file)
    assert read.table[5].name == "label 5" and np.array_equal(read.labels, labels().T)
    assert read.notices == (notice,) and replace(read, counts=None).notices == (notice,)
    assert Segmentation.from_image(file, LabelTable.from_names({5: "a", 7: "b", 300: "c"})).notices == ()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('<Label Key="-1">x</Label>', 'for the label value "-1"'),
        ('<Label Key="70000">x</Label>', 'for the label value "70000"'),
        ("<Label>x</Label>", 'for the label value ""'),
        ('<Label Key="5">spleen</Label>', "several names for the label value 5"),
        ('<Label Key="0">spleen</Label>', 'calls the label value 0 "spleen"'),
    ],
)
def test_contradictions_are_told_and_the_others_are_read(tmp_path, row, said):
    file = save(tmp_path / "ct.nii.gz", table(LIVER, row))
    found = read_named_values(file)
    assert found.names == {5: "liver"}
    [notice] = found.notices
    assert notice.startswith(str(file)) and said in notice


@pytest.mark.parametrize(
    "row",
    [
        '<Label Key="0" Red="0" Green="0" Blue="0" Alpha="0">???</Label>',  # Workbench
        '<Label Key="7"></Label>',
        "",
    ],
)
def test_no_fault_is_no_notice(tmp_path, row):
    assert read_named_values(save(tmp_path / "ct.nii", table(LIVER, row))) == ({5: "liver"}, {5: (255, 128, 0)}, ())


@pytest.mark.parametrize("color", ['Red="nan" Green="1" Blue="1"', 'Red="x" Green="1" Blue="1"', 'Red="1"'])
def test_a_colour_that_is_none_is_that_of_the_value(tmp_path, color):
    read = Segmentation.from_image(save(tmp_path / "ct.nii", table(f'<Label Key="5" {color}>liver</Label>')))
    assert read.table[5].name == "liver"
    assert read.table[5].color == Segmentation.from_image(save(tmp_path / "b.nii", "")).table[5].color


def test_of_several_volumes_the_first_names_the_labels(tmp_path):
    second = '<VolumeInformation Index="1"><LabelTable><Label Key="7">x</Label></LabelTable></VolumeInformation>'
    text = table(LIVER).replace("</CaretExtension>", f"{second}</CaretExtension>")
    assert read_named_values(save(tmp_path / "ct.nii", text)).names == {5: "liver"}


@pytest.mark.parametrize("size", [0, 7, 2**31 - 16, 2**32 - 16])
def test_an_extension_of_a_wrong_size_is_none(tmp_path, size):
    file = save(tmp_path / "ct.nii", table(LIVER))
    content = bytearray(file.read_bytes())
    content[352:356] = size.to_bytes(4, "little")
    file.write_bytes(content)
    assert read_named_values(file).names == {}
    assert Segmentation.from_image(file).table[5].name == "label 5"


def test_only_the_beginning_of_extensions_without_end_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "_LONGEST_EXTENSIONS", 600)
    assert read_named_values(save(tmp_path / "ct.nii", table(LIVER))).names == {}


def test_compare_uses_the_names_and_tells_what_is_wrong_with_them(tmp_path, capsys):
    files = [
        save(tmp_path / "reference.nii.gz", table(LIVER)),
        save(tmp_path / "other.nii.gz", table(LIVER, '<Label Key="-3">x</Label>'), nib.Nifti2Image),
    ]
    assert main(["compare", *map(str, files), "--json"]) == ExitCode.OK
    output = capsys.readouterr()
    facts = json.loads(output.out)
    [rows] = facts["cases"].values()
    assert [(row["name"], row["dice"]) for row in rows] == [("liver", 1), ("label 7", 1), ("label 300", 1)]
    [[notice]] = facts["notices"].values()
    assert notice.startswith(f'{files[1]} has a name for the label value "-3"')


def test_a_table_beside_the_file_comes_first(tmp_path, capsys):
    file = save(tmp_path / "ct.nii.gz", table(LIVER))
    (tmp_path / "ct.labels.csv").write_text("LabelValue,Name\n5,my liver\n7,x\n300,y\n")
    assert main(["compare", str(file), str(file)]) == ExitCode.OK
    assert "my liver" in capsys.readouterr().out


def test_label_maps_are_read_where_itk_refuses_them(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 2] = 1.0
    nib.save(nib.Nifti1Image(labels(), sheared), tmp_path / "sheared.nii.gz")
    read = Segmentation.from_image(tmp_path / "sheared.nii.gz")
    assert np.array_equal(read.labels, labels().T)
    assert np.allclose(read.geometry.axes, np.diag([-1, -1, 1]) @ sheared[:3, :3])
