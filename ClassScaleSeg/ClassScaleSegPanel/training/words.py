"""What a sentence of the command says of its options, said of the dialog."""

from __future__ import annotations

from slicer.i18n import tr as _


def missing_texts() -> dict[str, str]:
    """Return what it can mean that a case lacks a structure, by the word of the command."""
    return {
        "": _("Stop, and say which case lacks what"),
        "background": _("It is not in the image"),
        "unlabelled": _("It may be there: nobody has drawn it"),
    }


def overlap_texts() -> dict[str, str]:
    """Return which label can win where structures overlap, by the word of the command."""
    return {
        "": _("Stop, and say which ones"),
        "first": _("The first of the labels wins"),
        "last": _("The last of the labels wins"),
    }


def panel_words(fault: str) -> str:
    """Return a sentence of the command that says what to do here, not in a terminal."""
    for option, texts in (("--missing", missing_texts()), ("--overlap", overlap_texts())):
        for word, text in texts.items():
            if word:
                fault = fault.replace(f"{option} {word}", f'"{text}"')
    # the rest of that sentence is English in every language
    return fault.replace("run the same command again: it goes on there", f"press {_('Start')}: it goes on there")
