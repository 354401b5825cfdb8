"""Find the image of each channel of a model by name: "sub-01_T1w" is "T1", and "BraTS-GLI-00001-000-t2f" is "FLAIR".

Names are those that nnU-Net's datasets, BIDS, BraTS, ISLES, PI-CAI, autoPET and scanners use. T1 with and without
contrast agent are different, and so are T2, T2* and FLAIR, or DWI and ADC. What is not certain is left to the user.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# what one word of a name says of the kind of image
_WORDS = {
    "t1": "t1 t1w t1n t1wi mprage mp2rage t1mprage t1native t1pre bravo t1se t1tse t1fse t1w1",
    "t1c": "t1c t1ce t1gd t1gad t1post t1contrast t1km t1wce t1wgd t1wc t1cw t1kontrast ct1 t1cm",
    "t2": "t2 t2w t2wi t2tse t2fse t2n",
    "flair": "flair fla t2f t2flair flairt2 t2wflair darkfluid tirm",
    "t2star": "t2star t2starw t2s",
    "pd": "pd pdw",
    "dwi": "dwi dw trace b1000 b800",
    "hbv": "hbv b1400 b1500 b2000",
    "adc": "adc",
    "swi": "swi swan",
    "dce": "dce",
    "pwi": "pwi dsc perfusion",
    "cbf": "cbf rcbf",
    "cbv": "cbv rcbv",
    "mtt": "mtt",
    "tmax": "tmax",
    "asl": "asl",
    "mra": "mra tof",
    "ct": "ct ncct",
    "cta": "cta",
    "ctp": "ctp",
    "pet": "pet pt suv fdg",
    "us": "us",
}
_KIND_OF = {word: kind for kind, words in _WORDS.items() for word in words.split()}
_PAIRS = {("dark", "fluid"): "flair", ("t2", "star"): "t2star", ("t2w", "star"): "t2star", ("t1", "c"): "t1c"}
_CONTRAST = frozenset("ce gd gad gado gadolinium gadovist post postcontrast contrast km kontrast enhanced cm".split())
_NATIVE = frozenset("pre precontrast native non no none without ohne nativ unenhanced noncontrast".split())
_DERIVED = {"flair": "t2", "t2star": "t2", "adc": "dwi", "hbv": "dwi", "cbf": "pwi", "cbv": "pwi", "mtt": "pwi"}
_SUFFIX = re.compile(r"(\.seg)?\.(nii(\.gz)?|nrrd|nhdr|mha|mhd|dcm)$", re.IGNORECASE)
_NUMBER = re.compile(r"_(\d{4})$")  # of a channel in nnU-Net's names of files


class Matches(NamedTuple):
    """Which image is which channel.

    :ivar chosen: for each channel the index of its image; ``None`` if none fits, or several do.
    :ivar ambiguous: for each channel the indices of the images that fit equally, if there are several; otherwise empty.
    """

    chosen: tuple[int | None, ...]
    ambiguous: tuple[tuple[int, ...], ...]


class _Name(NamedTuple):
    kinds: frozenset[str]  # of `_WORDS`
    words: tuple[str, ...]  # all words, lower case
    rest: tuple[str, ...]  # those that say nothing of the kind, such as the patient's
    number: int | None  # of the channel, in nnU-Net's names of files


def match_channels(
    channels: Sequence[str], candidates: Sequence[str], given: Mapping[int, int] | None = None
) -> Matches:
    """Find the image of each channel by its name. No image is taken twice.

    Of several images that fit a channel, the one is taken that is named like those of the other channels in all but
    the channel: "sub-01_T1w" beside "sub-01_FLAIR". Where the names of channels say nothing, such as "noNorm", images
    that end in ``_0000``, ``_0001`` and so on are taken in this order, as nnU-Net names them.

    :param channels: the model's names of its channels, in their order.
    :param candidates: names of images or of files.
    :param given: channels whose image is known, such as the one that the user has chosen: index to index.

    >>> match_channels(["T1", "FLAIR"], ["sub-01_FLAIR", "sub-01_T1w", "sub-01_ce-gadolinium_T1w"]).chosen
    (1, 0)
    >>> match_channels(["T1", "T1ce"], ["T1 a", "T1 b", "t1gd"])
    Matches(chosen=(None, 2), ambiguous=((0, 1), ()))
    """
    wanted, found = [_parsed(name) for name in channels], [_parsed(name) for name in candidates]
    chosen = {channel: image for channel, image in (given or {}).items() if channel < len(channels)}
    fitting = {index: _fitting(name, found) for index, name in enumerate(wanted) if index not in chosen}
    if not any(fitting.values()):
        fitting = {index: [i for i, name in enumerate(found) if name.number == index] for index in fitting}
    changed = True
    while changed:
        changed = False
        for channel, images in fitting.items():
            left = [image for image in images if image not in chosen.values()]
            rests = {found[image].rest for image in chosen.values() if image < len(found)}
            if len(left) > 1 and len(rests) == 1:
                left = [image for image in left if found[image].rest in rests] or left
            others = [other for other in fitting if other != channel and other not in chosen]
            if channel not in chosen and len(left) == 1 and not any(left[0] in fitting[other] for other in others):
                chosen[channel], changed = left[0], True
    free = [image for image in range(len(found)) if image not in chosen.values()]
    ambiguous = [
        () if channel in chosen else tuple(image for image in fitting[channel] if image in free)
        for channel in range(len(wanted))
    ]
    return Matches(tuple(chosen.get(channel) for channel in range(len(wanted))), tuple(ambiguous))


def _fitting(channel: _Name, images: Sequence[_Name]) -> list[int]:
    """Return the indices of the images that are of the channel's kind, or, if that is not known, have its words."""
    if channel.kinds:
        exact = [index for index, image in enumerate(images) if image.kinds == channel.kinds]
        return exact or [index for index, image in enumerate(images) if image.kinds > channel.kinds]
    length = len(channel.words)
    return [
        index
        for index, image in enumerate(images)
        if length and any(image.words[i : i + length] == channel.words for i in range(len(image.words)))
    ]


def _parsed(name: str) -> _Name:
    name = _SUFFIX.sub("", name.strip())
    number = _NUMBER.search(name)
    name = re.sub(r"(?i)\bt1w?\s*\+\s*c\b", "t1c", name.replace("T2*", "t2star").replace("t2*", "t2star"))
    # "SagT1w" is "Sag" and "T1w"; "T2FLAIR" stays one word
    words = tuple(re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z][A-Z0-9])", " ", name).lower()))
    joined = list(words)
    kinds, rest, contrast = set(), [], False
    while joined:
        word = joined.pop(0)
        if joined and (pair := _PAIRS.get((word, joined[0]))):
            kinds.add(pair)
            joined.pop(0)
        elif kind := _KIND_OF.get(word):
            kinds.add(kind)
        elif word in _CONTRAST or word in _NATIVE:
            contrast = contrast or word in _CONTRAST
        else:
            rest.append(word)
    if "t1" in kinds and contrast and not _NATIVE.intersection(words):
        kinds.add("t1c")
    if "t1c" in kinds:
        kinds.discard("t1")
    for derived, origin in _DERIVED.items():
        if derived in kinds:
            kinds.discard(origin)
    return _Name(frozenset(kinds), words, tuple(rest), int(number[1]) if number else None)
