"""Find the volume of each channel of a model by its name: "sub-01_T1w" is the channel "T1", "sub-01_FLAIR" is "FLAIR".

A name is read as words. Some of them say what kind of image it is, as BraTS (t1n, t1ce, t2f), BIDS (T1w, FLAIR,
space-T2w), ISLES (adc, dwi, CT_CBF), the Medical Segmentation Decathlon (t1gd) and scanners (t2_tirm_dark-fluid,
MPRAGE) name them. Nothing is guessed: where two volumes fit, or none, the user has to choose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_CONTRAST = {"ce", "gd", "gad", "gado", "gadolinium", "gadovist", "dotarem", "km", "post", "postcontrast", "postgd"}
_CONTRAST |= {"contrast", "enhanced"}
_NATIVE = {"pre", "precontrast", "pregd", "nativ", "native", "unenhanced", "noncontrast"}
# Such images are made from others, so they are no input.
_DERIVED = {"mask", "brainmask", "seg", "dseg", "segmentation", "segmentations", "label", "labels", "lesion", "lesions"}
_DERIVED |= {"probseg", "confidence", "subtraction", "subtracted", "difference"}
# These words do not tell one channel from another.
_IDLE = {"mr", "mri", "image", "images", "channel", "volume", "no", "norm", "nonorm", "z", "score", "zscore", "rescale"}
_IDLE |= {"modality", "sequence", "input", "weighted", "w", "scan", "hu", "rescaled", "to", "and", "map"}
_SAME = {"ax": "axial", "tra": "axial", "transverse": "axial", "sag": "sagittal", "cor": "coronal", "in": "inphase"}
_SAME |= {"ip": "inphase", "out": "outphase", "opp": "outphase", "opposed": "outphase", "oop": "outphase"}
_T1 = re.compile(
    r"(?P<before>ce|gd|km)?(?:t1|unit1)(?:wi|w|n)?(?P<native>pre|nativ)?(?P<after>ce|c|gd|gad|gado|post|km)?w?"
    r"(?:mprage|mpr|flair|spgr|tse|se|fs|vibe)?"
)
# the first that fits a word
_KINDS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("T2*", "t2star|t2starw|t2s|t2sw"),
        ("T1 map", "t1map|t1rho"),
        ("T2 map", "t2map"),
        ("FLAIR", r"(?:3d|2d)?flair|darkfluid|t2f|t2w?flair"),
        ("T1", f"{_T1.pattern}|mprage|mp2rage|fspgr|spgr|bravo"),
        ("STIR", "stir|tirm"),
        ("T2", "(?:hr)?t2(?:wi|w)?(?:tse|fse|fs|haste|space)?"),
        ("PD", "pdw?|dp|protondensity"),
        ("SWI", "swi|swan"),
        ("ADC", "d?adc(?:map)?"),
        ("DWI", r"e?dwi|diffusion|tracew?|hbv|b\d{1,4}"),
        ("CBF", "r?cbf"),
        ("CBV", "r?cbv"),
        ("MTT", "mtt"),
        ("Tmax", "tmax"),
        ("TTP", "ttp"),
        ("angiography", "mra|tof"),
        ("BOLD", "bold|fmri"),
        ("ASL", "asl|pcasl|pasl"),
        ("CTA", "cta"),
        ("CT perfusion", "ctp|4dpwi|pwi"),
        ("PET", "pet|pt|suv"),
        ("CT", "ct|ncct|cect|ldct|cct|ctac|ctres"),
    )
)
# What an image is if its name has words of two kinds: "CT_CBF" is CBF, "T2 FLAIR" is FLAIR, "T1 FLAIR" is T1.
_STRONGER = {
    "CBF": {"CT", "CT perfusion"},
    "CBV": {"CT", "CT perfusion"},
    "MTT": {"CT", "CT perfusion"},
    "Tmax": {"CT", "CT perfusion"},
    "TTP": {"CT", "CT perfusion"},
    "CT perfusion": {"CT"},
    "CTA": {"CT"},
    "ADC": {"DWI", "PET"},
    "DWI": {"T2", "PET"},
    "SWI": {"T2*", "T2"},
    "FLAIR": {"T2", "STIR", "PET"},
    "T1": {"FLAIR", "PET"},
    "STIR": {"T2", "PET"},
    "T2": {"PET"},
    "T2*": {"T2", "PET"},
    "T1 map": {"T1"},
    "T2 map": {"T2"},
}
_HIGH_B = 200  # s/mm2; below, an image is hardly weighted by diffusion


@dataclass(frozen=True)
class ChannelMatch:
    """Which volume a channel is.

    :ivar channel: the model's name of the channel.
    :ivar index: of the volume among the candidates; ``None`` if it is not certain.
    :ivar possible: where it is not certain, the volumes that it could be.
    :ivar known: whether a name can say what the channel is; it cannot for "noNorm" or "channel 1".
    """

    channel: str
    index: int | None
    possible: tuple[int, ...] = ()
    known: bool = True


@dataclass(frozen=True)
class _Name:
    """A name that was read.

    :ivar kind: of image; empty if the name does not say it.
    :ivar contrast: whether a T1-weighted image was taken after contrast agent.
    :ivar b: the b-value of a diffusion-weighted image, s/mm2.
    :ivar rest: the other words.
    :ivar before: the words before the first one that says the kind, in their order.
    :ivar derived: it was made from an image, such as a mask.
    """

    kind: str
    contrast: bool
    b: int | None
    rest: frozenset[str]
    before: tuple[str, ...]
    derived: bool


def match_channels(
    channels: Sequence[str], candidates: Sequence[str], chosen: Mapping[int, int] | None = None
) -> tuple[ChannelMatch, ...]:
    """Return which candidate each channel is. A candidate is used for one channel only.

    :param channels: the names of the model's channels.
    :param candidates: the names of the volumes.
    :param chosen: candidates that are chosen already, by number of the channel. Of several that fit another channel,
        the one is taken whose name has the same other words, such as "sub-01"; one of another patient is not taken.

    >>> [match.index for match in match_channels(("T1", "T1c", "FLAIR"), ("a_flair", "a_t1ce", "a_t1"))]
    [2, 1, 0]
    >>> match_channels(("T1", "FLAIR"), ("T1w", "T1 MPRAGE", "T2"))
    (ChannelMatch(channel='T1', index=None, possible=(0, 1), known=True), \
ChannelMatch(channel='FLAIR', index=None, possible=(), known=True))
    """
    chosen = dict(chosen or {})
    wanted, given = [_read(name) for name in channels], [_read(name) for name in candidates]
    known = [bool(name.kind or name.rest) and wanted.count(name) == 1 for name in wanted]
    found: dict[int, int] = dict(chosen) or _numbered(len(channels), candidates)
    possible: dict[int, list[int]] = {}
    while True:
        free = [index for index in range(len(given)) if index not in found.values()]
        fits = {
            number: _fitting(wanted, number, given, free)
            for number in range(len(wanted))
            if number not in found and known[number]
        }
        if chosen:
            alike = [given[index] for index in chosen.values()]
            possible = {number: fit for number, fit in fits.items()}
            fits = {number: _of_the_same(alike, given, fit) for number, fit in fits.items()}
        single = {number: fit[0] for number, fit in fits.items() if len(fit) == 1}
        new = {number: index for number, index in single.items() if list(single.values()).count(index) == 1}
        if not new:
            break
        found |= new
    possible = {number: fit or possible.get(number, []) for number, fit in fits.items()}
    return tuple(
        ChannelMatch(name, found.get(number), tuple(possible.get(number, ())), known[number])
        for number, name in enumerate(channels)
    )


def looks_like(channels: Sequence[str], name: str) -> int | None:
    """Return the number of the only channel that a volume of this name can be; ``None`` if the name does not say it.

    >>> looks_like(("T1", "FLAIR"), "sub-01_FLAIR"), looks_like(("T1", "FLAIR"), "Anna")
    (1, None)
    """
    wanted, given = [_read(channel) for channel in channels], [_read(name)]
    fits = [number for number in range(len(wanted)) if _fitting(wanted, number, given, [0])]
    return fits[0] if len(fits) == 1 else None


def _fitting(wanted: Sequence[_Name], number: int, given: Sequence[_Name], free: Sequence[int]) -> list[int]:
    """Return which of the free candidates a channel could be."""
    want = wanted[number]
    if not want.kind:
        return [index for index in free if want.rest and want.rest <= given[index].rest and not given[index].derived]
    fits = [index for index in free if given[index].kind == want.kind and not given[index].derived]
    if want.kind == "T1":
        fits = [index for index in fits if given[index].contrast == want.contrast]
    if want.kind == "DWI":
        low = want.b is not None and want.b < _HIGH_B
        fits = [index for index in fits if ((given[index].b or (0 if given[index].b == 0 else 1000)) < _HIGH_B) == low]
        exact = [index for index in fits if given[index].b == want.b]
        fits = [index for index in fits if given[index].b is None] if want.b is not None and not exact else fits
        fits = exact if want.b is not None and exact else fits
    alike = [other for n, other in enumerate(wanted) if n != number and (other.kind, other.contrast, other.b) ==
             (want.kind, want.contrast, want.b)]  # fmt: skip
    exact = [index for index in fits if want.rest <= given[index].rest]
    if want.rest and (exact or alike):
        return exact
    others = [other.rest for other in alike if other.rest]  # "T2" beside "T2 axial"
    return [index for index in fits if not any(rest <= given[index].rest for rest in others)]


def _of_the_same(alike: Sequence[_Name], given: Sequence[_Name], fit: list[int]) -> list[int]:
    """Return the candidates that are of the same patient as those that are chosen, as far as the names tell."""
    fit = [index for index in fit if not any(_differ(given[index], other) for other in alike)]
    same = [index for index in fit if any(given[index].before and given[index].before == one.before for one in alike)]
    return same if len(same) == 1 else fit


def _differ(first: _Name, second: _Name) -> bool:
    """Return whether names are of two patients: "sub-01_T1w" and "sub-02_FLAIR", but not "5: T1" and "7: FLAIR"."""
    a, b = first.before, second.before
    if len(a) != len(b) or a[:1] != b[:1]:
        return False
    pairs = [(one, other) for one, other in zip(a, b, strict=True) if one != other]
    return bool(pairs) and all(re.search(r"\d", one) and re.search(r"\d", other) for one, other in pairs)


def _numbered(count: int, candidates: Sequence[str]) -> dict[int, int]:
    """Return the candidates by number if they are numbered as nnU-Net does: case_0000, case_0001 and so on."""
    if count < 2 or len(candidates) != count:
        return {}
    ends = [re.fullmatch(r"(.*)_(\d{4})", name.strip(), re.DOTALL) for name in candidates]
    numbers = {int(end[2]): index for index, end in enumerate(ends) if end}
    stems = {end[1] for end in ends if end}
    return numbers if len(stems) == 1 and sorted(numbers) == list(range(count)) else {}


def _read(name: str) -> _Name:
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name[:300]).casefold()
    for pattern, word in (
        (r"\.(nii|nrrd|mha|mhd|seg|gz)\b", " "),
        (r"(?<![a-z0-9])(space|desc|res|ce-none)-[a-z0-9]+", " "),
        (r"ce-none", " native "),
        (r"t2\s*\*", " t2star "),
        (r"\+\s*c(?![a-z])", " contrast "),
        (r"\b(without|no|non|w/o|ohne)[\s_-]*(contrast|gd|gado|gadolinium|km)(?![a-z])", " native "),
        (r"post[\s_-]*(op|surgery|operative|operativ|treatment|rx|rt)(?![a-z])", " "),
        (r"dark[\s_-]*fluid", " darkfluid "),
        (r"(t[12])w?[\s_-]*map(?![a-z])", r" \1map "),
        (r"proton[\s_-]*density", " pd "),
        (r"(in|out|opposed|opp)[\s_-]*phase", r" \1 "),
        (r"(?<![a-z0-9])b[\s_=-]*(\d{1,4})(?![0-9a-z])", r" b\1 "),
    ):
        text = re.sub(pattern, word, text)
    words = [_SAME.get(word, word) for word in re.split(r"[\W_]+", text) if word]
    kinds = [next((kind for kind, pattern in _KINDS if pattern.fullmatch(word)), "") for word in words]
    for joint in ("to", "on", "onto"):  # "T1 to FLAIR" is a T1, on the grid of the FLAIR
        if joint in words and any(kinds[: words.index(joint)]):
            words, kinds = words[: words.index(joint)], kinds[: words.index(joint)]
    kind, contrast = _strongest(set(filter(None, kinds))), _has_contrast(words)
    if not any(kinds) and {"gd", "gado", "gadolinium"} & set(words):
        kind = "T1"
    b = next((int(word[1:]) for word in words if re.fullmatch(r"b\d{1,4}", word)), None)
    used = {word for word, its in zip(words, kinds, strict=True) if its}
    used |= (_CONTRAST | _NATIVE) if kind == "T1" else set()
    first = next((place for place, its in enumerate(kinds) if its), 0)
    rest = frozenset(word for word in words if word not in used | _IDLE and not (word.isdigit() or len(word) < 2))
    return _Name(kind, contrast, b, rest, tuple(words[:first]), bool(_DERIVED & set(words)))


def _strongest(kinds: set[str]) -> str:
    """Return the kind of an image whose name has words of these kinds; empty if they contradict each other."""
    left = [kind for kind in kinds if not any(kind in _STRONGER.get(other, ()) for other in kinds)]
    return left[0] if len(left) == 1 else ""


def _has_contrast(words: Sequence[str]) -> bool:
    glued = [match for word in words if (match := _T1.fullmatch(word))]
    if _NATIVE & set(words) or any(match["native"] for match in glued):
        return False
    return bool(_CONTRAST & set(words)) or any(match["before"] or match["after"] for match in glued)
