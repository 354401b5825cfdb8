"""The version of ClassScaleSeg, which Slicer's package and files written by the library name too."""

VERSION = "0.2.0"  # as in pyproject.toml, CITATION.cff and CHANGELOG.md
