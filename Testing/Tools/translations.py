"""Bring the translations up to date with the sources, or say what is missing.

    python Testing/Tools/translations.py            # says what is missing; ends with 1 if something is
    python Testing/Tools/translations.py update     # writes the list of sentences, the .ts files and the .qm files
    python Testing/Tools/translations.py add fr     # begins another language

A translator fills in the ``.ts`` file in ``ClassScaleSeg/Resources/Translations``, in Qt Linguist or in an editor, and
calls ``update`` again, which makes the ``.qm`` file that Slicer reads. ``update`` needs PySide6 for that.

``.ts`` files have the layout that Slicer's ``update_translations.py`` writes, without line numbers, which change with
every edit of the sources. A text without a translation stays English. If the sources have changed a text, its old
translation is kept as a proposal, ``type="unfinished"``, which Slicer does not use.
"""

from __future__ import annotations

import difflib
import functools
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from sentences import LIBRARY, MODULE, library_sentences, panel_texts, placeholders

FOLDER = MODULE / "Resources" / "Translations"
LIST = MODULE / "ClassScaleSegPanel" / "library_sentences.py"
_SIMILAR = 0.7  # of a text and its new form, whose translation is proposed
_HEAD = '''"""The sentences of the library that the panel can show. Made by Testing/Tools/translations.py.

What is in braces is a name or a number. Slicer's ``update_translations.py`` finds the texts here as it finds those of
the panel; `translation` uses them.
"""

# ruff: noqa: E501
# fmt: off


def _(text: str) -> str:
    return text  # only marks it: a sentence is translated when it is shown


SENTENCES = (
'''


class Translation(NamedTuple):
    """The translation of a text; not finished: a proposal, which is not used."""

    text: str
    finished: bool


Catalogue = dict[tuple[str, str], Translation]  # by context and text


@functools.cache
def sources() -> list[tuple[str, str]]:
    """Return all texts, with their contexts, in the order of the .ts files."""
    panel = [(context, text) for context, text in panel_texts() if context != LIBRARY]  # of the list before this one
    return sorted({*panel, *((LIBRARY, text) for text in library_sentences())})


def list_of_sentences() -> str:
    """Return the contents of ``library_sentences.py``."""
    return _HEAD + "".join(f"    _({_quoted(text)}),\n" for text in library_sentences()) + ")\n"


def _quoted(text: str) -> str:
    """Return a text as Python; Slicer's script takes ``")`` for the end of the text."""
    return repr(text) if '"' in text else '"' + text.replace("\\", "\\\\") + '"'


def read(file: Path) -> Catalogue:
    """Read a .ts file."""
    catalogue: Catalogue = {}
    for context in ElementTree.parse(file).getroot().iter("context"):
        for message in context.iter("message"):
            found = message.find("translation")
            text = "" if found is None else found.text or ""
            finished = bool(text) and found is not None and found.get("type") is None
            catalogue[context.findtext("name") or "", message.findtext("source") or ""] = Translation(text, finished)
    return catalogue


def updated(old: Catalogue) -> Catalogue:
    """Return the catalogue of the texts that there are now, with the translations that are known of them."""
    known = {text: translation for (_, text), translation in old.items() if translation.finished}
    gone = {key: old[key] for key in set(old) - set(sources()) if old[key].text}
    new: Catalogue = {}
    for context, text in sources():
        translation = old.get((context, text), Translation("", False))
        if not translation.finished and text in known:
            translation = known[text]
        elif not translation.text:
            earlier = {before: had for (where, before), had in gone.items() if where == context}
            near = difflib.get_close_matches(text, earlier, 1, _SIMILAR)
            translation = Translation(earlier[near[0]].text, False) if near else translation
        new[context, text] = translation
    return new


def as_ts(catalogue: Catalogue, language: str) -> str:
    """Return the contents of a .ts file."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<!DOCTYPE TS>"]
    lines.append(f'<TS version="2.1" language="{language}" sourcelanguage="en">')
    for context in dict.fromkeys(context for context, _ in catalogue):
        lines += ["<context>", f"    <name>{escape(context)}</name>"]
        for (where, text), (translation, finished) in catalogue.items():
            if where == context:
                lines += ["    <message>", f"        <source>{escape(text)}</source>"]
                state = "" if finished else ' type="unfinished"'
                lines += [f"        <translation{state}>{escape(translation)}</translation>", "    </message>"]
        lines.append("</context>")
    return "\n".join([*lines, "</TS>", ""])


def faults(file: Path) -> list[str]:
    """Return what is missing or wrong in a .ts file, in a line each."""
    catalogue, found = read(file), []
    for key in sources():
        if key not in catalogue or not catalogue[key].finished:
            found.append(f"{file.name}: not translated: {key[0]}: {key[1]!r}")
    for (context, text), translation in catalogue.items():
        if (context, text) not in set(sources()):
            found.append(f"{file.name}: no longer used: {context}: {text!r}")
        elif translation.finished and placeholders(text) != placeholders(translation.text):
            found.append(f"{file.name}: other values in braces: {translation.text!r}")
        elif translation.finished and "&" in text and translation.text.count("&") != text.count("&"):
            found.append(f"{file.name}: another number of &: {translation.text!r}")
    return found


def files() -> list[Path]:
    """Return the .ts files."""
    return sorted(FOLDER.glob("*.ts"))


def update() -> None:
    """Write the list of sentences, the .ts files and the .qm files."""
    LIST.write_text(list_of_sentences(), encoding="utf-8")
    for file in files():
        language = file.stem.partition("_")[2]
        file.write_text(as_ts(updated(read(file)), language), encoding="utf-8")
        release(file, file.with_suffix(".qm"))


def release(ts: Path, qm: Path) -> None:
    """Make the file that Slicer reads, without texts that are not translated."""
    import PySide6

    program = next(Path(PySide6.__path__[0]).rglob("lrelease*"))
    subprocess.run([program, "-silent", "-nounfinished", "-removeidentical", ts, "-qm", qm], check=True)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["add"] and len(arguments) == 2:
        new = FOLDER / f"ClassScaleSeg_{arguments[1]}.ts"
        if not new.exists():
            new.write_text(as_ts({}, arguments[1]), encoding="utf-8")
        update()
    elif arguments == ["update"]:
        update()
    elif arguments:
        print(__doc__)
        return 2
    found = [line for file in files() for line in faults(file)]
    if LIST.read_text(encoding="utf-8") != list_of_sentences():
        found.append(f"{LIST.name} is out of date: call this with update")
    print("\n".join(found) or "All texts are translated.")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
