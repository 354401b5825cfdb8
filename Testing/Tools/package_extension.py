"""Build the package that Slicer's "Install from file..." takes, without a Slicer build tree or a compiler.

    python Testing/Tools/package_extension.py --slicer-version 5.12 --revision 12345

The revision is the number in Slicer's Help > About. The package has the same files as the one that Slicer's own build
makes of a scripted extension, except for compiled ``.pyc`` files. The same commit always gives the same bytes, because
entries are sorted and have a fixed time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import zipfile
from pathlib import Path

from extension_files import REPOSITORY, extension_metadata, installed_files

NAME = "ClassScaleSeg"
SYSTEMS = {"Linux": "linux", "Darwin": "macosx", "Windows": "win"}


def main(arguments: list[str] | None = None) -> Path:
    """Parse the command line, write the package, and print and return its path."""
    parser = argparse.ArgumentParser(description="Package the extension for Slicer's 'Install from file...'.")
    parser.add_argument("--slicer-version", default="5.12", type=_version, help="such as 5.12.1 (default: 5.12)")
    parser.add_argument("--revision", required=True, type=_number, help="revision of Slicer, from Help > About")
    parser.add_argument("--os", choices=sorted(SYSTEMS.values()), default=SYSTEMS.get(platform.system(), "linux"))
    parser.add_argument("--arch", choices=["amd64", "arm64"], default="amd64")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("dist"),
        metavar="FOLDER",
        help="default: dist",
    )
    options = parser.parse_args(arguments)
    name = package_name(options.revision, options.os, options.arch)
    files = package_files(options.slicer_version, options.revision, options.os)
    options.output.mkdir(parents=True, exist_ok=True)
    archive = options.output / f"{name}.zip"
    write_archive(archive, {f"{name}/{path}": content for path, content in files.items()})
    print(f"{archive}: {len(files)} files, {archive.stat().st_size / 1e6:.1f} MB")
    return archive


def package_name(revision: str, system: str, arch: str) -> str:
    """Return the name of the archive and of its top folder, as Slicer's build names them.

    :param revision: revision of Slicer.
    :param system: "linux", "macosx" or "win".
    :param arch: "amd64" or "arm64".
    """
    commit = _git("rev-parse", "--short=7", "HEAD")
    date = _git("log", "-1", "--format=%cs")
    return f"{revision}-{system}-{arch}-{NAME}-" + (f"git{commit}-{date}" if commit else "local")


def package_files(version: str, revision: str, system: str) -> dict[str, bytes]:
    """Return the contents of the files in the package, by path below the top folder.

    :param version: major and minor version of Slicer, for example 5.12, which is part of folder names.
    :param revision: revision of Slicer.
    :param system: "linux", "macosx" or "win". On macOS, extensions are inside the bundle of the application.
    """
    root = f"Slicer.app/Contents/Extensions-{revision}/{NAME}/" if system == "macosx" else ""
    modules = f"{root}lib/Slicer-{version}/qt-scripted-modules"
    files = {f"{modules}/{path}": file.read_bytes() for path, file in installed_files().items()}
    share = f"{root}share/Slicer-{version}"
    files[f"{share}/{NAME}.s4ext"] = description().encode()
    files[f"{share}/qt-scripted-modules/{NAME}/LICENSE"] = (REPOSITORY / "LICENSE").read_bytes()
    return files


def description() -> str:
    """Return the text of the ``.s4ext`` file, made from ``CMakeLists.txt`` and the catalogue entry."""
    fields = extension_metadata()
    entry = json.loads((REPOSITORY / f"{NAME}.json").read_text(encoding="utf-8"))
    lines = {
        "scm": "git",
        "scmurl": entry["scm_url"],
        "scmrevision": _git("rev-parse", "HEAD") or "NA",
        "depends": fields["depends"],
        "build_subdirectory": entry["build_subdirectory"],
        "homepage": fields["homepage"],
        "contributors": fields["contributors"],
        "category": entry["category"],
        "iconurl": fields["iconurl"],
        "tier": str(entry["tier"]),
        "description": fields["description"],
        "screenshoturls": fields["screenshoturls"],
        "enabled": "1",
    }
    return "".join(f"{keyword} {value}\n" for keyword, value in lines.items())


def write_archive(archive: Path, files: dict[str, bytes]) -> None:
    """Write a zip whose bytes depend on ``files`` only. The file gets its name once it is complete.

    :param files: contents by path in the zip.
    """
    partial = archive.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as package:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # as on Unix, on every system
            package.writestr(entry, files[path])
    os.replace(partial, archive)


def _git(*arguments: str) -> str:
    """Return the output of git, or "" outside a checkout."""
    try:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _version(text: str) -> str:
    match = re.fullmatch(r"(\d+\.\d+)(\.\d+)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a version of Slicer, such as 5.12")
    return match[1]


def _number(text: str) -> str:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a revision of Slicer, which is a number. See Help > About.")
    return text


if __name__ == "__main__":
    main()
