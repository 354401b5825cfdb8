"""Find models of the catalogue by words, modality, region of the body and licence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

from .entries import WHOLE_BODY, Entry

Names = Callable[[Entry], Sequence[str]]  # the names of what a model finds


def _stated(entry: Entry) -> Sequence[str]:
    return entry.structures


@dataclass(frozen=True)
class Search:
    """What a model must have; what is not given does not matter. Case does not matter either.

    :ivar text: words. A model has a word if a word of its id, name, description, modality, regions, family or
        structures begins with it; an ending of the plural is ignored. A word of one or two letters must be a whole one.
    :ivar modality: such as "CT".
    :ivar region: one of ``REGIONS``. What finds structures in the whole body fits every region.
    :ivar licence: words of the licence, such as "Apache" or "CC BY".

    >>> Search("left kidneys", modality="ct", licence="apache").text
    'left kidneys'
    """

    text: str = ""
    modality: str = ""
    region: str = ""
    licence: str = ""

    def find(self, entries: Sequence[Entry], names: Names = _stated) -> tuple[Entry, ...]:
        """Return those of the entries that fit, in their order.

        :param names: returns the names of the structures of an entry; is asked only if there are words.
        """
        return tuple(entry for entry in entries if self._fits(entry, names))

    def advice(self, entries: Sequence[Entry], names: Names = _stated) -> str:
        """Return a sentence that says that nothing was found, and what could be tried instead."""
        sentences = ["No model fits."]
        known = sorted({word for entry in entries for word in _words_of(entry, names)}) if self.text else []
        for word in _words(self.text):
            if not _has(word, known):
                near = difflib.get_close_matches(word, known, n=3)
                sentences.append(f"None has the word {word}" + (f"; did you mean {', '.join(near)}?" if near else "."))
        modalities = sorted({entry.modality for entry in entries if entry.modality})
        if self.modality and self.modality.casefold() not in map(str.casefold, modalities):
            sentences.append(f"The modalities are {', '.join(modalities)}.")
        given = [criterion.name for criterion in fields(self) if getattr(self, criterion.name)]
        for name in given if len(given) > 1 else ():
            if count := len(replace(self, **{name: ""}).find(entries, names)):
                option = "search" if name == "text" else name
                sentences.append(f"Without --{option} there {'is one' if count == 1 else f'are {count}'}.")
        if len(sentences) == 1:
            sentences.append("Leave words out, or list all models without a filter.")
        return " ".join(sentences)

    def _fits(self, entry: Entry, names: Names) -> bool:
        if self.modality and self.modality.casefold() != (entry.modality or "").casefold():
            return False
        if self.region and not {self.region.casefold(), WHOLE_BODY} & set(entry.regions):
            return False
        licence = _words(entry.licence or "")
        if not all(_has(word, licence) for word in _words(self.licence)):
            return False
        wanted = _words(self.text)
        known = _words_of(entry, names) if wanted else []
        return all(_has(word, known) for word in wanted)


def _words_of(entry: Entry, names: Names) -> list[str]:
    texts = (entry.id, entry.name, entry.description, entry.modality or "", entry.family or "")
    return _words(" ".join([*texts, *entry.regions, *names(entry)]))


def _words(text: str) -> list[str]:
    """Return the words of a text in small letters; 1.5mm is one, kidney_left are two."""
    return list(dict.fromkeys(re.findall(r"[^\W_]+(?:\.[^\W_]+)*", text.casefold())))


def _has(word: str, words: Sequence[str]) -> bool:
    """Tell whether one of the words begins with ``word``, or is the same if it is short."""
    if len(word) < 3:
        return word in words
    singular = re.sub(r"(?<=\w{3})[se]$", "", word)  # kidneys, vertebrae
    return any(one == singular or one.startswith(word) for one in words)
