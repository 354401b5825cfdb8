"""Write the page of a report: HTML, style, script, facts and pictures in one file, case by case.

Everything from files (names, messages, codes) is untrusted. In HTML it is escaped; as JSON in a script it has no ``<``;
and the script of the page, the only one that its policy allows to run, puts it into text nodes alone.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ..labels.label import CODE_FIELDS, Code
from ..resources import resource
from ..version import VERSION as OURS
from .case_files import ReportedCase
from .cohort import ClassOfCohort, Finding
from .facts import CaseFacts, Structure
from .pictures import Picture

GENERATOR = "ClassScaleSeg"  # by which a page is known as ours, before it is replaced


def page(
    title: str,
    summary: str,
    classes: Sequence[ClassOfCohort],
    cases: Iterable[tuple[ReportedCase, Sequence[Finding], str | None]],
    count: int,
) -> Iterator[str]:
    """Yield the page in parts.

    :param title: of the page.
    :param summary: a sentence below the title.
    :param classes: of all cases.
    :param cases: each with what is unusual, and a page with its pictures; ``None``: they are on this page.
    :param count: number of cases.
    """
    template, style, script = (
        resource("Report", name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    )
    order = {one.facts.name: index for index, one in enumerate(classes)}
    shared = {"title": title, "cases": count, "classes": [_class(one) for one in classes]}
    texts = {
        "generator": f"{GENERATOR} {OURS}",
        "title": html.escape(title),
        "summary": html.escape(summary),
        "footer": html.escape(f"Made by ClassScaleSeg {OURS}."),
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
        "shared": script_json(shared),
    }
    for index, part in enumerate(re.split("@@([a-z_]+)@@", template)):
        if index % 2 == 0:
            yield part
        elif part == "cases":
            for case, findings, elsewhere in cases:
                yield _card(case, findings, elsewhere, order)
        else:
            yield texts[part]


def script_json(value: Any) -> str:
    r"""Return JSON that can stand inside of a script element: nothing in it ends the element.

    >>> script_json("</script>")
    '"\\u003c/script>"'
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _class(one: ClassOfCohort) -> dict[str, Any]:
    meaning, code = _code_texts(one.facts.codes)
    return {
        "name": one.facts.name,
        "color": one.facts.color,
        "meaning": meaning,
        "code": code,
        "looked": one.looked_for,
        "found": one.found,
        "cut": one.cut,
        "median": one.median_ml,
        "smallest": one.smallest_ml,
        "largest": one.largest_ml,
    }


def _code_texts(codes: dict[str, Code]) -> tuple[str, str]:
    """Return meanings such as "Kidney, Left" and codes such as "SCT 64033007 + 7771000", without the category."""
    parts = [codes[part] for part in CODE_FIELDS if part in codes and part != "category"]
    texts, scheme = [], ""
    for code in parts:
        texts.append(code.value if code.scheme == scheme else f"{code.scheme} {code.value}")
        scheme = code.scheme
    return ", ".join(code.meaning for code in parts), " + ".join(texts)


def _card(case: ReportedCase, findings: Sequence[Finding], elsewhere: str | None, order: dict[str, int]) -> str:
    facts = case.facts
    score = 10**6 if facts.error is not None else len(findings) + len(facts.warnings)
    sheets = [_image(picture) for picture in case.pictures if picture.kind == "sheet"]
    shown = () if elsewhere else tuple(picture for picture in case.pictures if picture.kind != "sheet")
    data = _data(facts, findings, shown, elsewhere, order)
    return (
        f'<li class="card" data-name="{html.escape(facts.name)}" data-score="{score}">'
        f'<a href="#case={html.escape(_quoted(facts.name))}">{"".join(sheets)}'
        f'<span class="name">{html.escape(facts.name)}</span></a>{_flags(facts, findings)}'
        f'<script type="application/json">{script_json(data)}</script></li>\n'
    )


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="", errors="replace")


def _image(picture: Picture) -> str:
    return (
        f'<img src="data:image/webp;base64,{picture.data}" alt="{html.escape(picture.text)}" '
        f'width="{picture.width}" height="{picture.height}" loading="lazy" decoding="async">'
    )


def _flags(facts: CaseFacts, findings: Sequence[Finding]) -> str:
    """Return the lines below the name on a card."""
    if facts.error is not None:
        return (
            f'<p class="flags"><span class="flag bad">✕ failed</span></p><ul><li>{html.escape(facts.error)}</li></ul>'
        )
    cut = sum(structure.touches_edge for structure in facts.structures)
    parts = [f"{len(facts.structures)} of {len(facts.classes)} structures", *([f"{cut} at the edge"] if cut else [])]
    flags = [
        f'<span class="flag">▲ {len(findings)} unusual</span>' if findings else "",
        f'<span class="flag">! {len(facts.warnings)} warning{"s" * (len(facts.warnings) > 1)}</span>'
        if facts.warnings
        else "",
    ]
    lines = [html.escape(finding.text) for finding in findings[:2]]
    lines += [f"and {len(findings) - 2} more"] if len(findings) > 2 else []
    return (
        f"<p>{' · '.join(parts)}</p>"
        + (f'<p class="flags">{"".join(flags)}</p>' if any(flags) else "")
        + (f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>" if lines else "")
    )


def _data(
    facts: CaseFacts,
    findings: Sequence[Finding],
    pictures: Sequence[Picture],
    elsewhere: str | None,
    order: dict[str, int],
) -> dict[str, Any]:
    """Return what the script shows of a case."""
    return {
        "name": facts.name,
        "error": facts.error,
        "images": facts.images,
        "outputs": facts.outputs,
        "modality": facts.modality,
        "size": facts.size,
        "spacing": facts.spacing,
        "orientation": facts.orientation,
        "warnings": facts.warnings,
        "messages": facts.messages,
        "changes": [str(change) for change in facts.changes or ()],
        "run": None if facts.run is None else asdict(facts.run),
        "findings": [{"kind": one.kind, "structure": one.structure, "text": one.text} for one in findings],
        "rows": [_row(one, order) for one in facts.structures],
        "missing": [order[one.name] for one in facts.not_found],
        "pictures": [asdict(picture) for picture in pictures],
        "page": elsewhere,
    }


def _row(one: Structure, order: dict[str, int]) -> list[Any]:
    inside = one.intensities or {}
    numbers = (one.volume_ml, one.surface_mm2, inside.get("mean"), inside.get("standard_deviation"))
    return [order[one.name], *numbers, int(one.touches_edge), one.voxels]
