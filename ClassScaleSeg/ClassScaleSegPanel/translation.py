"""Show the library's sentences in the language of Slicer.

The library knows nothing of Slicer, so its sentences are English, with names and numbers in them. `library_sentences`
lists their templates, which translators see. Here the template of a sentence is found again, translated by Slicer's own
`translate`, and filled with the names and numbers of the sentence. What is not recognised stays English, as does
everything if Slicer is English.

Names come from files that nobody has checked. They are only ever copied: none is read as a template, and the search
takes no longer for a name that was made up to delay it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import qt
import slicer
from slicer.i18n import translate

_CONTEXT = "ClassScaleSegPanel.library_sentences"
_LONGEST = 4000  # characters of a text that is looked at
_MOST_ENDS = 24  # places at which a text may be divided
_FEWEST_LETTERS = 6  # that a template must share with a text: less would be an accident
_DEEPEST = 4  # sentences in sentences
_AROUND = " ,;"  # what joins parts of a sentence, and is not looked at
_END = 4  # last letters of a template by which it is found
_PLACEHOLDER = re.compile(r"(?<!\{)\{(\w+)\}(?!\})|\{\{|\}\}")
# where a sentence, or a part that the library appends to one, may begin
_BEGIN = re.compile(
    r"(?<=[.!?]) (?=\S)|(?<=: )(?=\S)| (?=\()|, (?=but |one with |cuda:)|; (?=did |grows |does |islands )"
)


class _Template(NamedTuple):
    """A template that is divided at its placeholders.

    :ivar source: the template.
    :ivar names: the placeholders.
    :ivar pieces: the texts before, between and after the placeholders; one more than ``names``.
    :ivar letters: how many letters the pieces have.
    """

    source: str
    names: tuple[str, ...]
    pieces: tuple[str, ...]
    letters: int

    def values(self, text: str) -> list[tuple[str, ...]]:
        """Return what the text has for each placeholder; nothing if it is not made from this template.

        A comma or a word may occur in a value too, so there can be two answers: the first values as short as possible,
        or the last. Nothing else is tried, so that this takes as long as the text is, however it is made.
        """
        if not self.names:
            return [()] if text == self.pieces[0] else []
        first, *between, last = self.pieces
        end = len(text) - len(last)
        if end < len(first) or not (text.startswith(first) and text.endswith(last)):
            return []
        found = []
        for backwards in (False, True):
            values, left, right = [], len(first), end
            for piece in reversed(between) if backwards else between:
                at = text.rfind(piece, left, right) if backwards else text.find(piece, left, right)
                if at < 0:
                    return []
                values.append(text[at + len(piece) : right] if backwards else text[left:at])
                left, right = (left, at) if backwards else (at + len(piece), right)
            values.append(text[left:right])
            answer = tuple(reversed(values)) if backwards else tuple(values)
            if all(answer) and answer not in found:
                found.append(answer)
        return found


def load_translations() -> None:
    """Let Slicer translate the module, if it comes with the language in which Slicer is shown.

    Slicer itself looks for translations in a folder of its own, to which language packs are installed. A language that
    is "de-DE" or "de_AT" is translated by ``ClassScaleSeg_de.qm``, unless there is a file for the country.
    """
    folder = Path(__file__).parents[1] / "Resources" / "Translations"
    locale = _locale().replace("-", "_")
    for name in (locale, locale.partition("_")[0]):
        file = folder / f"ClassScaleSeg_{name}.qm"
        if file.is_file():
            translator = qt.QTranslator(slicer.app)
            if translator.load(str(file)):
                slicer.app.installTranslator(translator)
            return


def translated(text: str) -> str:
    """Return a text of the library, one or more sentences, in the language of Slicer as far as it is known."""
    if _locale().startswith("en") or len(text) > _LONGEST:
        return text
    return _translated(text, _locale())


def _locale() -> str:
    return str(getattr(slicer.app, "applicationLocaleName", None) or "en_US")


@functools.lru_cache(maxsize=256)
def _translated(text: str, locale: str) -> str:
    return "\n".join(_divide(line, 0)[1] for line in text.split("\n"))


@functools.lru_cache(maxsize=1024)
def _divide(text: str, depth: int) -> tuple[int, str]:
    """Translate a text that may consist of several sentences.

    :returns: how many letters of templates were recognised, and the translation.
    """
    whole = _fill(text, depth)
    if whole[0]:
        return whole
    begins = [match.start() for match in _BEGIN.finditer(text)][:_MOST_ENDS]
    bounds = [0, *begins, len(text)]
    # the best division of what lies before each bound: that which recognises most, in as few parts as possible
    best: list[tuple[int, int, str]] = [(0, 0, "")]
    for end in range(1, len(bounds)):
        choices = []
        for begin in range(end):
            part = text[bounds[begin] : bounds[end]]
            letters, shown = _fill(part, depth) if (begin, end) != (0, len(bounds) - 1) else (0, part)
            before = best[begin]
            choices.append((before[0] + letters, before[1] - 1, before[2] + shown))
        best.append(max(choices, key=lambda choice: choice[:2]))
    return best[-1][0], best[-1][2]


def _fill(text: str, depth: int) -> tuple[int, str]:
    """Translate a text by the template that shares most letters with it; 0 letters if there is none."""
    stripped = text.strip(_AROUND)
    if not stripped:
        return 0, text
    before, _, behind = text.partition(stripped)
    candidates = (template for template in _candidates(stripped) if template.values(stripped))
    fitting = max(candidates, key=lambda template: template.letters, default=None)
    if fitting is None:
        return 0, text
    if not fitting.pieces[-1] and stripped[-1] == "." and " " not in fitting.values(stripped)[-1][-1]:
        stripped, behind = stripped[:-1], "." + behind  # of the sentence, not of the word at its end
    letters, shown = 0, []
    for values in fitting.values(stripped):
        inside = [_divide(value, depth + 1) if depth < _DEEPEST and " " in value else (0, value) for value in values]
        known = fitting.letters + sum(more for more, _words in inside)
        if known > letters:
            letters, shown = known, [words for _more, words in inside]
    wanted = translate(_CONTEXT, fitting.source)
    if sorted(_names(wanted)) != sorted(fitting.names):
        wanted = fitting.source  # a mistake of a translator
    filled = dict(zip(fitting.names, shown, strict=True))
    # in one pass, so that a value is never looked at
    shown_text = _PLACEHOLDER.sub(lambda match: filled[match[1]] if match[1] else match[0][0], wanted.strip(_AROUND))
    return letters, before + shown_text + behind


def _names(template: str) -> Iterator[str]:
    return (match[1] for match in _PLACEHOLDER.finditer(template) if match[1])


def _candidates(text: str) -> Iterator[_Template]:
    """Return the templates that may fit, from their ends: a few of the hundreds."""
    index = _index()
    yield from index.get(text[-_END:], ())
    yield from index.get("", ())


@functools.cache
def _index() -> dict[str, list[_Template]]:
    """Return the templates by the last letters of their ends; those that end too soon, or in a value, under ""."""
    from .library_sentences import SENTENCES

    index: dict[str, list[_Template]] = {}
    for source in SENTENCES:
        pieces, names, begin = [""], [], 0
        bare = source.strip(_AROUND)
        for match in _PLACEHOLDER.finditer(bare):
            pieces[-1] += bare[begin : match.start()]
            begin = match.end()
            if match[1]:
                names.append(match[1])
                pieces.append("")
            else:
                pieces[-1] += match[0][0]
        pieces[-1] += bare[begin:]
        letters = sum(letter.isalpha() for piece in pieces for letter in piece)
        if letters >= _FEWEST_LETTERS:
            end = pieces[-1][-_END:] if len(pieces[-1]) >= _END else ""
            index.setdefault(end, []).append(_Template(source, tuple(names), tuple(pieces), letters))
    return index
