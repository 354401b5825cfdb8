"""What a sentence of the library says of the options of the command, said of the dialogs."""

from __future__ import annotations

from ..translation import translated

# Translations of the library's sentences are shown in Slicer alone, and say it by themselves.
_WORDS = {
    "Give --user and the password, or a token in the environment variable CLASSSCALESEG_DICOM_TOKEN.": (
        "Enter user and password, or a token."
    ),
    "name its file in the environment variable REQUESTS_CA_BUNDLE.": 'choose its file in the row "Certificate".',
    "Correct the environment variable REQUESTS_CA_BUNDLE.": 'Choose another file in the row "Certificate".',
    "Correct the environment variable CLASSSCALESEG_DICOM_TOKEN. ": "Correct it. ",
    ", or give a larger --limit.": ".",
    "Use --user, and the environment variable CLASSSCALESEG_DICOM_PASSWORD.": "Enter them in their own fields.",
    " Give --study too.": "",
    ", or give --study too.": ".",
    " classscaleseg dicom find lists them.": "",
    # the panel writes new objects each time
    "Send them again: archives keep one copy.": "Look there before you send again.",
    "Fetch them with --decompress.": 'Tick "Let the archive decompress images", and fetch them again.',
    " (--patient)": "",
    " (--name)": "",
    " (--modality)": "",
    " (--description)": "",
}


def day(date: str) -> str:
    """Return a date of DICOM as people read it, or as it is if it is none.

    >>> day("20260131"), day("2026.01.31")
    ('2026-01-31', '2026.01.31')
    """
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdecimal() else date


def panel_words(fault: str) -> str:
    """Return sentences of the library in the language of Slicer, which say what to do here, not in a terminal."""
    shown = translated(fault)
    for words, instead in _WORDS.items():
        shown = shown.replace(words, instead)
    return shown
