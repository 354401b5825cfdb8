"""Find the texts of the panel and of the library that can be translated, in their sources.

The library is not written for translation: its errors and notices are f-strings. Each becomes a template here, in which
the values are placeholders. ``ClassScaleSegPanel/translation.py`` finds the template of a sentence again.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "ClassScaleSeg"
LIBRARY = "ClassScaleSegPanel.library_sentences"
# Nobody who uses the panel meets the texts of these: the command line, cohorts and the server; and what is written into
# files is not translated.
_LEFT_OUT = (
    "cohort/",
    "commands/",
    "images/dicom/export.py",
    "images/dicom/object.py",
    "process/terminal.py",
    "report/",
    "resources.py",
    "server/",
)
# whose errors the child process of the panel can send
_ALSO = (
    "commands/case_runner.py",
    "commands/results.py",
    "commands/watch_record.py",
    "commands/watch_work.py",
    "report/case_files.py",
    "report/report.py",
    # what a server answers
    "server/guard.py",
    "server/image_header.py",
    "server/jobs.py",
    "server/problems.py",
    "server/uploads.py",
    "server/wishes.py",
    "server/workers.py",
)
_MOST_VARIANTS = 8


@functools.cache
def library_sentences(module: Path = MODULE) -> tuple[str, ...]:
    """Return the templates of all sentences of the library that the panel can show, sorted.

    A value is a placeholder such as ``{name}``; a brace that is no placeholder is doubled.
    """
    found: set[str] = set()
    library = module / "ClassScaleSegLib"
    for file in sorted(library.rglob("*.py")):
        path = file.relative_to(library).as_posix()
        if path in _ALSO or not path.startswith(_LEFT_OUT):
            found.update(_templates(ast.parse(file.read_text(encoding="utf-8"))))
    return tuple(sorted(found, key=lambda text: (text.casefold(), text)))


def panel_texts(module: Path = MODULE) -> list[tuple[str, str]]:
    """Return the texts of the panel with their contexts, as Slicer's ``update_translations.py`` finds them.

    A context is the name of the last folder and that of the file. Neither Slicer nor its script looks further up, so it
    cannot begin with the name of the extension. Of Slicer's own contexts, none has the name of one of these.
    """
    found: dict[tuple[str, str], None] = {}
    for file in sorted(module.rglob("*.ui")):
        root = ElementTree.parse(file).getroot()
        context = root.findtext("class") or ""
        hidden = {text for texts in root.iter("stringlist") if texts.get("notr") == "true" for text in texts}
        for text in root.iter("string"):
            if text.text and text.get("notr") != "true" and text not in hidden:
                found[context, text.text] = None
    for file in (module / "ClassScaleSeg.py", *sorted((module / "ClassScaleSegPanel").rglob("*.py"))):
        package = f"{file.parent.name}." if (file.parent / "__init__.py").is_file() else ""
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "_":
                (argument,) = call.args
                if not isinstance(argument, ast.Constant):
                    raise SystemExit(f"{file}, line {call.lineno}: _() takes a plain text, without values.")
                found[package + file.stem, argument.value] = None
    return list(found)


def placeholders(text: str) -> set[str]:
    """Return the placeholders of a text as Slicer finds them; a translation must have the same."""
    return set(re.findall(r"(?<!\{)\{([^\{\}]+)\}(?!\})", text))


def _templates(tree: ast.Module) -> Iterator[str]:
    skipped = set(_not_shown(tree))
    for node in ast.walk(tree):
        if id(node) in skipped or not isinstance(node, ast.JoinedStr | ast.Constant):
            continue
        for parts in itertools.islice(_variants(node), _MOST_VARIANTS):
            template = _template(parts)
            if _is_shown(template):
                yield template


def _not_shown(tree: ast.Module) -> Iterator[int]:
    """Return the ids of nodes whose texts are no sentences by themselves: documentation, pieces of f-strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__repr__":  # for programmers
            yield from (id(child) for child in ast.walk(node))
        elif isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and isinstance(
            node.body[0], ast.Expr
        ):
            yield id(node.body[0].value)
        elif isinstance(node, ast.JoinedStr):
            for value in node.values:
                yield id(value)
                if isinstance(value, ast.FormattedValue) and value.format_spec is not None:
                    yield id(value.format_spec)
        elif isinstance(node, ast.arguments | ast.Compare | ast.Subscript) or (
            isinstance(node, ast.Call) and (_names(node.func, "_option") or _names(node.func, "log"))
        ):  # defaults, what is compared, keys, the help of the command, logs
            yield from (id(child) for child in ast.walk(node))


def _names(function: ast.expr, name: str) -> bool:
    """Tell whether what is called is a name, or a method of it."""
    named = function.value if isinstance(function, ast.Attribute) else function
    return isinstance(named, ast.Name) and named.id == name


def _variants(node: ast.expr) -> Iterator[list[str | ast.expr]]:
    """Return the pieces that a text can consist of; a choice between two texts inside gives two variants."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield [node.value]
    elif isinstance(node, ast.JoinedStr):
        for pieces in itertools.product(*(list(_variants(value)) for value in node.values)):
            yield [part for piece in pieces for part in piece]
    elif isinstance(node, ast.FormattedValue):
        yield from _variants(node.value)
    elif isinstance(node, ast.IfExp) and _is_text(node.body) and _is_text(node.orelse):
        yield from _variants(node.body)
        yield from _variants(node.orelse)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and _is_text(node.left):  # "s" * (count != 1)
        yield [""]
        yield from _variants(node.left)
    else:
        yield [node]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _template(parts: Iterable[str | ast.expr]) -> str:
    text, names = "", []
    for part in parts:
        if isinstance(part, str):
            text += part.replace("{", "{{").replace("}", "}}")
        else:
            name = _name(part)
            names.append(name)
            count = names.count(name)
            text += f"{{{name}{count if count > 1 else ''}}}"
    # `errors.named` replaces "It" by the name of the file
    return (
        re.sub(r"^It (?=[a-z])(?!is not known)", "{file} ", text)
        if "{file}" not in text
        else re.sub(r"^It ", "{it} ", text)
    )


def _name(value: ast.expr) -> str:
    """Return a name for a value that tells a translator what it is."""
    names = [_word(node).strip("_").lower() for node in _from_outside(value)]
    return next((name for name in names if name.isidentifier() and name not in _SAY_NOTHING), "value")


def _word(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id.rstrip("0123456789")
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


_SAY_NOTHING = {
    *("self", "join", "path", "len", "str", "short", "reason", "list", "map", "reversed", "min", "max"),
    *("getname", "getsize", "getdimension", "getdimensions"),
}


def _from_outside(value: ast.expr) -> Iterator[ast.expr]:
    if isinstance(value, ast.Call):
        for argument in value.args:
            yield from _from_outside(argument)
        yield value.func
    elif isinstance(value, ast.Attribute):
        yield value
        yield from _from_outside(value.value)
    elif isinstance(value, ast.Subscript):
        yield from _from_outside(value.slice)
        yield from _from_outside(value.value)
    elif isinstance(value, ast.BinOp):
        yield from _from_outside(value.left)
        yield from _from_outside(value.right)
    elif isinstance(value, ast.BoolOp):
        yield from _from_outside(value.values[0])
    elif isinstance(value, ast.GeneratorExp):
        yield from _from_outside(value.elt)
        yield from _from_outside(value.generators[0].iter)
    else:
        yield value


def _is_shown(template: str) -> bool:
    """Return whether a text is one that people read: a sentence, or words of a sentence."""
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\{\w+\}", "", template))
    if " " not in template.strip() or len(words) < 2 or "\\" in template or ":=" in template or "\n" in template:
        return False
    return template not in NOT_TRANSLATED


# Names in file formats, in Slicer and in other programs; and titles of tables, which become part of the scene.
NOT_TRANSLATED = {
    "(Tensor x) -> Tensor",
    "[Uu]nsupported operand",
    "Anatomic codes - DICOM master list",
    "Anatomical Structure",
    "Anatomical structure",
    "Apple GPU",
    "Application Support",
    "Artificial Intelligence",
    "Binary labelmap",
    "CT perfusion",
    "Centroid A (mm)",
    "Centroid R (mm)",
    "Centroid S (mm)",
    "ClassScaleSeg: waited for",
    "Closed surface",
    "Difference (mL)",
    "Double Float Half BFloat16 Long Int Short Char Byte Bool",
    "In both",
    "Label value",
    "One of {count} cases, with which it was compared.",
    "Only in {name}",
    "Other label value",
    "Other volume (mL)",
    "Python {python_version} on {platform}",
    "Segmentation category and type - 3D Slicer General Anatomy list",
    "Source image for image processing operation",
    "Standard Deviation",
    "Standard deviation",
    "Surface area",
    "Surface area (mm2)",
    "The segmentation failed.",
    "Touches edge",
    "Volume (mL)",
    "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 longdouble float128 "
    "complex64 complex128 str_ bytes_",
    "bool bytes dict float frozenset int list object range slice str tuple",
    "can't allocate memory",
    "encoding: gzip",
    "endian: little",
    "kinds: domain domain domain",
    "kinds: list domain domain domain",
    "nable to find a valid cuDNN algorithm",
    "nable to find an engine to execute",
    "nnU-Net v2",
    "not enough memory",
    "out of memory",
    "part {part} of {parts}: {stage}",
    "segment {images} with {models} into {output} ({options})",
    "series {description}{series} ({modality}, {slices} images)",
    "space directions: none {axis}",
    "space directions: {axis}",
    "space origin: {origin}",
    "space: left-posterior-superior",
    "type: uint16",
    "type: uint8",
    "{done} segmented{failed}. {classes} in at least one case.",
    "{found} of {classes} structures were found",
    "{found} structures found by {maker}",
    "{structures} structures found by {maker} {version}",
}
