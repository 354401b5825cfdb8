"""Write the page of a report: HTML, style, script, facts and pictures in one file, case by case.

Everything from files (names, messages, codes) is untrusted. In HTML it is escaped; as JSON in a script it has no ``<``;
and the script of the page, the only one that its policy allows to run, puts it into text nodes alone.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import html
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from ..labels.label import CODE_FIELDS, Code
from ..resources import resource
from ..version import VERSION as OURS
from .case_files import ReportedCase
from .cohort import FEWEST, ClassOfCohort, Finding
from .facts import CaseFacts, Run, Structure
from .pictures import Picture

GENERATOR = "ClassScaleSeg"  # by which a page is known as ours, before it is replaced
_FEW_CUT = 3  # more cut-offs than this are one line, which names so many
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # whatever the language of the system


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
    few = 0 < max((one.looked_for for one in classes), default=0) < FEWEST
    models: dict[str, None] = {}  # of the cases until now
    texts = {
        "generator": f"{GENERATOR} {OURS}",
        "title": html.escape(title),
        "summary": html.escape(summary),
        "about": html.escape(f"{_counted(len(classes), 'structure')} · {_now()} · ClassScaleSeg {OURS}"),
        "few": f'<p class="summary">Fewer than {FEWEST} cases: volumes are not compared.</p>' if few else "",
        "footer": html.escape(f"Made by ClassScaleSeg {OURS}."),
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
    }
    for index, part in enumerate(re.split("@@([a-z_]+)@@", template)):
        if index % 2 == 0:
            yield part
        elif part == "cases":
            for case, findings, elsewhere in cases:
                models |= dict.fromkeys(_names_of_models(case.facts.run))
                yield _card(case, findings, elsewhere, order)
        elif part == "shared":
            entries = [_class(one) for one in classes]
            yield script_json({"title": title, "cases": count, "models": [*models], "classes": entries})
        else:
            yield texts[part]


def script_json(value: Any) -> str:
    r"""Return JSON that can stand inside of a script element: nothing in it ends the element.

    >>> script_json("</script>")
    '"\\u003c/script>"'
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _counted(number: int, noun: str) -> str:
    """Return a number and a noun.

    >>> _counted(1, "structure"), _counted(2, "structure")
    ('1 structure', '2 structures')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _now() -> str:
    now = datetime.now(timezone.utc)
    return f"{now.day} {_MONTHS[now.month - 1]} {now:%Y %H:%M} UTC"


def _names_of_models(run: Run | None) -> list[str]:
    """Return the names of the models that found the structures, without their number, which the page says."""
    if run is None:
        return []
    models = run.models[:-1] if _locates(run) else run.models
    return [re.sub(r", [0-9]+ (classes|structures)$", "", model.name) for model in models]


def _locates(run: Run) -> bool:
    """Tell whether the last model only located structures for the others."""
    return len(run.models) > 1 and "--locate-with" in as_flags(run.options).split()


def as_flags(options: str) -> str:
    """Return options as the command has them, from those that a run notes; unchanged if they are of another form.

    >>> as_flags("classes=('left kidney', 'liver'), mirroring=False, remove_islands=50.0")
    "--classes 'left kidney' liver --no-mirroring --remove-islands 50"
    """
    try:
        call = ast.parse(f"f({options})", mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
            return options
        given = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError):
        return options
    return options if None in given else " ".join(_flag(str(name), value) for name, value in given.items())


def _flag(name: str, value: Any) -> str:
    name = name.removesuffix("_gib").replace("_", "-")
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    values = value if isinstance(value, tuple) else (value,)
    texts = ("..." if one is ... else shlex.quote(f"{one:g}" if isinstance(one, float) else str(one)) for one in values)
    return " ".join([f"--{name}", *texts])


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _class(one: ClassOfCohort) -> dict[str, Any]:
    meaning, code = _code_texts(one.facts.codes)
    same = _words(meaning) == _words(one.facts.name)
    return {
        "name": one.facts.name,
        "color": one.facts.color,
        "meaning": "" if same else meaning,
        "code": code,
        "looked": one.looked_for,
        "found": one.found,
        "cut": one.cut,
        "median": one.median_ml,
        "smallest": one.smallest_ml,
        "largest": one.largest_ml,
    }


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


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
    lines = _lines(findings)
    score = 10**6 if facts.error is not None else len(lines) + len(facts.warnings)
    sheets = [_image(picture) for picture in case.pictures if picture.kind == "sheet"]
    shown = () if elsewhere else tuple(picture for picture in case.pictures if picture.kind != "sheet")
    data = _data(facts, lines, shown, elsewhere, order)
    return (
        f'<li class="card" data-name="{html.escape(facts.name)}" data-score="{score}">'
        f'<a href="#case={html.escape(_quoted(facts.name))}">{"".join(sheets)}'
        f'<span class="name">{html.escape(facts.name)}</span></a>{_flags(facts, lines)}'
        f'<script type="application/json">{script_json(data)}</script></li>\n'
    )


def _lines(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the findings as the page lists them: many structures that are cut off are one line."""
    cut = [one.structure for one in findings if one.kind == "edge"]
    merged = len(cut) > _FEW_CUT
    lines: list[dict[str, Any]] = [
        {"kind": one.kind, "structures": [one.structure], "text": one.text}
        for one in findings
        if not (merged and one.kind == "edge")
    ]
    if merged:
        names = f"{', '.join(cut[:_FEW_CUT])} and {len(cut) - _FEW_CUT} more"
        text = f"{len(cut)} structures are cut by the edge of the image that are whole in other cases: {names}."
        lines.append({"kind": "edge", "structures": cut, "text": text})
    return lines


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="", errors="replace")


def _image(picture: Picture) -> str:
    return (
        f'<img src="data:image/webp;base64,{picture.data}" alt="{html.escape(picture.text)}" '
        f'width="{picture.width}" height="{picture.height}" loading="lazy" decoding="async">'
    )


def _flags(facts: CaseFacts, findings: Sequence[dict[str, Any]]) -> str:
    """Return the lines below the name on a card."""
    if facts.error is not None:
        return (
            f'<p class="flags"><span class="flag bad">✕ failed</span></p><ul><li>{html.escape(facts.error)}</li></ul>'
        )
    cut = sum(structure.touches_edge for structure in facts.structures)
    parts = [f"{len(facts.structures)} of {_counted(len(facts.classes), 'structure')}"]
    parts += [f"{cut} at the edge"] if cut else []
    flags = [
        f'<span class="flag">▲ {len(findings)} unusual</span>' if findings else "",
        f'<span class="flag">! {_counted(len(facts.warnings), "warning")}</span>' if facts.warnings else "",
    ]
    lines = [html.escape(finding["text"]) for finding in findings[:2]]
    lines += [f"and {len(findings) - 2} more"] if len(findings) > 2 else []
    return (
        f"<p>{' · '.join(parts)}</p>"
        + (f'<p class="flags">{"".join(flags)}</p>' if any(flags) else "")
        + (f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>" if lines else "")
    )


def _data(
    facts: CaseFacts,
    findings: Sequence[dict[str, Any]],
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
        "run": None if facts.run is None else _run(facts.run),
        "findings": findings,
        "rows": [_row(one, order) for one in facts.structures],
        "missing": [order[one.name] for one in facts.not_found],
        "pictures": [asdict(picture) for picture in pictures],
        "page": elsewhere,
    }


def _run(run: Run) -> dict[str, Any]:
    models = [asdict(model) for model in run.models]
    if _locates(run):
        models[-1]["located"] = True
    return {**asdict(run), "options": as_flags(run.options), "models": models}


def _row(one: Structure, order: dict[str, int]) -> list[Any]:
    inside = one.intensities or {}
    numbers = (one.volume_ml, one.surface_mm2, inside.get("mean"), inside.get("standard_deviation"))
    return [order[one.name], *numbers, int(one.touches_edge), one.voxels, one.confidence]
