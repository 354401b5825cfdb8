"""What a sentence of the command says of its options, said of the dialog."""

from __future__ import annotations

import sys

from slicer.i18n import tr as _


def device_texts() -> dict[str, str]:
    """Return the devices that can be chosen, by the word of the command."""
    mps = {"mps": _("Apple GPU")} if sys.platform == "darwin" else {}
    return {"auto": _("Automatic"), "cpu": _("CPU"), **mps}


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


def keep_a_fifth() -> str:
    """Return the text of the choice to train the fold 0 instead of all."""
    return _("Keep a fifth of the cases to see how good the new model is")


def panel_words(fault: str) -> str:
    """Return a sentence of the command that says what to do here, not in a terminal."""
    words = {
        "Name the two folders by themselves, with -i IMAGES -s SEGMENTATIONS.": _("Save for training... writes one."),
        "Plan without --like.": _("Choose another model to begin with."),
        "Plan without --like, or choose another model.": _("Choose another model to begin with."),
        "Choose a folder with a shorter path (-o or --work), or give the cases shorter names.": _(
            "Choose a folder with a shorter path for the new model, or give the cases shorter names."
        ),
        "If they have other names, name them in a label table (--labels).": _(
            "Give the structures the names that a model has for them, and save the cases again, or choose other models."
        ),
        ", or name --trainer ClassScaleTrainer_Primus, which trains 1000 epochs.": ".",
        # the rest of these sentences is English in every language
        "or choose another folder (-o or --work)": "or choose another file for the new model",
        "name them all with --channels": "choose a model that takes as many",
        "Name a label table with --labels, or put": "Put",
        "train the fold all": f'do not tick "{keep_a_fifth()}"',
        "Run the same command again: it segments": "Press " + _("Compare") + " again: it segments",
        "run the same command again: it goes on there": "press " + _("Start") + ": it goes on there",
    }
    for option, texts in (("--missing", missing_texts()), ("--overlap", overlap_texts())):
        words |= {f"{option} {word}": f'"{text}"' for word, text in texts.items() if word}
    for word, text in words.items():
        fault = fault.replace(word, text)
    return fault
