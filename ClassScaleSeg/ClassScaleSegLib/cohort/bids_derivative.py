"""Write what makes a folder of results a BIDS derivative: its description, and the tables beside each segmentation.

Source: the specification of BIDS 1.11.1, common-principles.md (where derivatives are), derivatives/imaging.md
(segmentations) and modality-agnostic-files/dataset-description.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ..errors import ImageError, OutputError
from ..files import replacing, unwritable
from ..images.dicom.object import UsedModel
from ..labels.label import CODE_FIELDS, one_line, unique_names
from ..labels.table import LabelTable
from ..version import VERSION
from .bids import DESCRIPTION, RESULT, image_kind, read_description

BIDS_VERSION = "1.11.1"
PROGRAM = "classscaleseg"
SOURCE = "source"  # the name of the dataset of the images in BIDS URIs
_CODE_URL = "https://github.com/classscaleseg/SlicerClassScaleSeg"
_DERIVATIVES = "derivatives"
_IGNORED = """\
# files that ClassScaleSeg may write too, and BIDS has no names for
*.csv
*.dcm
*.html
*.mha
*.nrrd
report
# the folder of CT images, which is a proposal yet (BIDS extension proposal 24)
ct
"""
_README = """\
# {name}

Label maps `*_dseg.nii.gz` of the {kind} images of {source}, made by [ClassScaleSeg]({url}). Nobody has checked or
corrected them.

- `*_dseg.tsv` has the name, colour and codes of each value of the label map beside it.
- `*_dseg.json` names the image; the label map is on its grid.
- `dataset_description.json` names the program and its models, and the folder of the images.
"""


def write_derivative(out: Path, dataset: Path, suffix: str, models: Sequence[UsedModel]) -> None:
    """Make a folder the BIDS derivative of a dataset, before the first result is written there.

    Writes ``dataset_description.json``, to which a later run adds its version and models, and, unless they exist,
    ``dseg.json`` (what is true of all results), ``README.md`` and ``.bidsignore``.

    :param out: the folder, anywhere beside the dataset, or below ``derivatives`` in it.
    :param suffix: of the images, as for `bids_images`.
    :param models: that make the results.
    :raises OutputError: if a derivative must not be there, the folder holds the derivative of another program, dataset
        or suffix, or a file cannot be written.
    :raises ImageError: if the dataset's own description cannot be read.
    """
    _refuse_place(out, dataset)
    kind, source = image_kind(suffix), read_description(dataset)
    known = _own_description(out, dataset, kind)
    made = {
        "Name": PROGRAM,
        "Version": VERSION,
        "CodeURL": _CODE_URL,
        "Description": f"Segmentation of {kind} images",
        "ImageSuffix": kind,
        "Models": [_described(model) for model in models],
    }
    before = [entry for entry in known.get("GeneratedBy", []) if entry != made]
    name = _line(source.get("Name")) or dataset.resolve().name
    title = f"Segmentations of {name} by ClassScaleSeg"
    link = _link(out, dataset)
    licence, doi = _line(source.get("License")), _line(source.get("DatasetDOI"))
    described = {
        "Name": title,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        **({"License": licence} if licence else {}),
        "DatasetLinks": {SOURCE: link},
        "SourceDatasets": [{"DOI": doi} if doi else {"URL": link}],
        **known,  # users may have added to it
        "GeneratedBy": [made, *before],
    }
    if described != known:
        _write_json(out / DESCRIPTION, described)
    if not os.path.lexists(out / "dseg.json"):
        _write_json(out / "dseg.json", _common())
    if not any(os.path.lexists(out / f"README{ending}") for ending in ("", ".md", ".rst", ".txt")):
        _write(out / "README.md", _README.format(name=title, kind=kind, source=name, url=_CODE_URL))
    if not os.path.lexists(out / ".bidsignore"):
        _write(out / ".bidsignore", _IGNORED)


def side_files(output: Path) -> tuple[Path, Path]:
    """Return the look-up table and the sidecar of a result.

    >>> [file.name for file in side_files(Path("sub-01_dseg.nii.gz"))]
    ['sub-01_dseg.tsv', 'sub-01_dseg.json']
    """
    stem = output.name.removesuffix(RESULT) + "_dseg"
    return output.with_name(f"{stem}.tsv"), output.with_name(f"{stem}.json")


def write_side_files(output: Path, source: str, table: LabelTable) -> None:
    """Write the look-up table ``_dseg.tsv`` and the sidecar ``_dseg.json`` of a result, in place of older ones.

    :param output: file of the result. Write it last: it tells that a case is finished.
    :param source: path of the image in its dataset, as in `BidsImage`.
    :param table: all classes that the result may have.
    :raises OutputError: if a file cannot be written.
    """
    lookup, sidecar = side_files(output)
    uri = f"bids:{SOURCE}:{source}"
    _write(lookup, format_lookup(table))
    # without the entity `space` in the name, the sidecar must say on which grid the result is
    _write_json(sidecar, {"Sources": [uri], "SpatialReference": uri})


def format_lookup(table: LabelTable) -> str:
    """Return a label table as the TSV of a segmentation in BIDS.

    The columns are ``index``, ``name`` and ``color``, and ClassScaleSeg's own with the codes, such as
    ``SCT:10200004``, as far as a label has any. BIDS has two more, ``abbreviation`` and ``mapping`` (to twelve tissues
    of the brain), for which a label table has nothing to say.

    >>> format_lookup(LabelTable.from_names({0: "background", 7: "cell"})).splitlines()
    ['index\\tname\\tcolor', '0\\tbackground\\t#000000', '7\\tcell\\t#80fe7a']
    """
    used = [field for field in CODE_FIELDS if any(label.codes[field] for label in table)]
    names = unique_names(table)
    rows = [["index", "name", "color", *used]]
    for label in table:
        codes = (label.codes[field] for field in used)
        cells = [f"{code.scheme}:{code.value}" if code else "n/a" for code in codes]
        rows.append([str(label.value), names[label.value], "#{:02x}{:02x}{:02x}".format(*label.color), *cells])
    return "".join("\t".join(row) + "\n" for row in rows)


def _common() -> dict[str, Any]:
    """Return what is said once of all results; each one inherits it."""
    columns = {
        field: {"Description": f"Code of the {field.replace('_', ' ')} of the structure: coding scheme and value"}
        for field in CODE_FIELDS
    }
    return {"Description": "Label map of the structures in the image", "Manual": False, **columns}


def _refuse_place(out: Path, dataset: Path) -> None:
    """Refuse folders in the dataset where raw data are expected.

    :raises OutputError: naming a better folder.
    """
    place, raw = Path(os.path.realpath(out)), Path(os.path.realpath(dataset))
    better = dataset / _DERIVATIVES / PROGRAM
    if place == raw or raw in place.parents:
        inside = place.relative_to(raw).parts
        if len(inside) != 2 or inside[0] != _DERIVATIVES:
            raise OutputError(
                f"{out} is among the data of the dataset {dataset}. Name {better}, or a folder outside the dataset."
            )
        if PROGRAM not in inside[1]:
            raise OutputError(
                f"{out}: BIDS wants the name of the program in that of a folder in {_DERIVATIVES}. Name {better} or "
                f"{better}-{inside[1]}, or a folder outside the dataset."
            )


def _own_description(out: Path, dataset: Path, kind: str) -> dict[str, Any]:
    """Return the description of the same derivative by an earlier run; empty if the folder is new.

    :raises OutputError: if the folder holds something else.
    """
    if not os.path.lexists(out / DESCRIPTION):
        try:
            subjects = out.is_dir() and any(name.startswith("sub-") for name in os.listdir(out))
        except OSError as error:
            raise unwritable(out, error) from error
        if subjects:
            raise OutputError(f"{out} has folders of subjects, but no {DESCRIPTION}. Name another folder.")
        return {}
    try:
        known = read_description(out)
    except ImageError as error:
        raise OutputError(f"{error} Name another folder for the results, or restore the file.") from error
    programs = known.get("GeneratedBy")
    entries = [entry for entry in programs if isinstance(entry, dict)] if isinstance(programs, list) else []
    own = next((entry for entry in entries if entry.get("Name") == PROGRAM), None)
    if known.get("DatasetType") != "derivative" or own is None:
        whose = ", ".join(filter(None, (_line(entry.get("Name")) for entry in entries))) or "other data"
        raise OutputError(f"{out} is a BIDS dataset of its own, by {whose}. Name another folder for the results.")
    links = known.get("DatasetLinks")
    link = str(links.get(SOURCE)) if isinstance(links, dict) else ""
    if not _leads_to(out, link, dataset):
        raise OutputError(
            f"{out} has results of another dataset, {_line(link) or 'unknown'}, not of {dataset}. Name another folder. "
            f"If the dataset was moved, correct DatasetLinks in {out / DESCRIPTION}."
        )
    before = _line(own.get("ImageSuffix"))
    if before.casefold() != kind.casefold():
        raise OutputError(
            f"{out} has results of {before or 'other'} images, and those of {kind} images would have the same names. "
            f"Name another folder, such as {out}-{kind}."
        )
    return {**known, "GeneratedBy": entries}


def _link(out: Path, dataset: Path) -> str:
    """Return the way from the derivative to the dataset, as in ``DatasetLinks``: relative, so both may be moved."""
    target, start = os.path.realpath(dataset), os.path.realpath(out)
    try:
        relative = os.path.relpath(target, start)
    except ValueError:  # on another drive of Windows
        return Path(target).as_uri()
    return quote_from_bytes(os.fsencode(Path(relative).as_posix()))


def _leads_to(out: Path, link: str, dataset: Path) -> bool:
    if link == _link(out, dataset):
        return True
    try:
        target = os.path.join(os.path.realpath(out), os.fsdecode(unquote_to_bytes(link)))
        return bool(link) and os.path.samefile(target, dataset)
    except (OSError, ValueError):
        return False


def _described(model: UsedModel) -> dict[str, str]:
    facts = {"Name": model.name, "License": model.licence, "SHA256": model.sha256}
    return {key: fact for key, fact in facts.items() if fact}


def _line(value: object) -> str:
    """Return a text from a JSON file that is not trusted as one line; nothing for other values."""
    return one_line(value)[:500] if isinstance(value, str) else ""


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))  # in JSON the escape is the same letter
