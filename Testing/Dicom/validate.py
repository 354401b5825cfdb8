"""Check DICOM files with dciodvfy (dicom3tools) and DCMTK, which know the standard independently of us.

python Testing/Dicom/validate.py --install      installs Debian's dicom3tools and dcmtk, as root
python Testing/Dicom/validate.py FILE ...       prints every error that is none of KNOWN; exit code 1 if there are any
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = {"dciodvfy": "dicom3tools", "dcmdump": "dcmtk", "dsrdump": "dcmtk"}
SEGMENTATION, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"  # Comprehensive 3D SR
# Complaints that are wrong: SOP class, the whole line as a regular expression, and why.
# Debian's dicom3tools is of 2022, and label maps are of 2024 (Supplement 243). So they are checked as segmentations of
# the older kind, from which they differ only as this says.
KNOWN = [
    (
        LABEL_MAP,
        r"Error - </SegmentationType\(0062,0001\)\[1\]> - Unrecognized enumerated value = <LABELMAP>",
        "it is what makes a label map (C.8.20.2.3)",
    ),
    (
        LABEL_MAP,
        r"Error - </(BitsAllocated|BitsStored|HighBit)\(0028,010[012]\)\[1\]> - Unrecognized enumerated value = "
        r"<0x(10|f)>",
        "a label map has 8 or 16 bits (C.8.20.2.3)",
    ),
    (
        LABEL_MAP,
        r"Error - </SegmentSequence\(0062,0002\)\[1\]/SegmentNumber\(0062,0004\)\[1\]> - Value is zero",
        "in a label map, segment numbers are the values of pixels, and 0 is that of the background",
    ),
    (
        LABEL_MAP,
        r"Error - </SegmentSequence\(0062,0002\)\[\d+\]/SegmentNumber\(0062,0004\)> - SegmentNumber not monotonically "
        r"increasing from one by one .*",
        "in a label map, segment numbers are the values of pixels, which need not follow each other",
    ),
    (
        LABEL_MAP,
        r"Error - </(Shared|PerFrame)FunctionalGroupsSequence\(5200,92(29|30)\)\[\d+\]/"
        r"SegmentIdentificationSequence\(0062,000a\)> - Missing attribute for Type 1 Required .*",
        "a frame of a label map belongs to all segments, so it names none (C.8.20.3.1)",
    ),
    (
        REPORT,
        r"Error - </ContentSequence.*/ReferencedSegmentNumber\(0062,000b\)> - Shall not be present for Referenced SOP "
        r"Class that is not segmentation",
        "the report refers to a label map, which is not known for a segmentation yet",
    ),
]


def missing_programs() -> list[str]:
    """Return the programs that are not installed."""
    return [program for program in PACKAGES if shutil.which(program) is None]


def errors_of(file: Path) -> list[str]:
    """Return the lines in which a program finds an error in a file, except those that are known to be wrong."""
    import pydicom

    dumped = _run("dcmdump", "-q", file)
    found = [line for line in dumped.stderr.splitlines() if line.startswith(("E:", "F:"))]
    if dumped.returncode and not found:
        found.append(f"dcmdump ended with {dumped.returncode}")
    data = pydicom.dcmread(file)
    kind = data.SOPClassUID
    if data.file_meta.TransferSyntaxUID.is_deflated:  # Debian's dciodvfy cannot read it
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    if kind == REPORT and LABEL_MAP.encode() not in file.read_bytes():  # dsrdump refuses references to label maps too
        found += _run("dsrdump", "-q", "+Pn", file).stderr.splitlines()
    if kind == LABEL_MAP:
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SEGMENTATION
    with tempfile.TemporaryDirectory() as folder:
        data.save_as(Path(folder, "plain.dcm"), enforce_file_format=True)
        said = _run("dciodvfy", "-new", Path(folder, "plain.dcm")).stderr
    wrong = [text for known, text, _ in KNOWN if known == kind]
    errors = (line for line in said.splitlines() if line.startswith("Error"))
    return found + [line for line in errors if not any(re.fullmatch(text, line) for text in wrong)]


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace")


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 2
    if arguments == ["--install"]:
        subprocess.run(["apt-get", "update"], check=True)
        command = ["apt-get", "install", "-y", "--no-install-recommends", *sorted(set(PACKAGES.values()))]
        return subprocess.run(command).returncode
    if missing := missing_programs():
        print(f"{', '.join(missing)}: not installed. Run {sys.argv[0]} --install as root.", file=sys.stderr)
        return 2
    bad = False
    for file in map(Path, arguments):
        errors = errors_of(file)
        bad |= bool(errors)
        print(f"{file}: {len(errors)} errors", *errors, sep="\n  ")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
