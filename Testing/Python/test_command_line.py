"""A wrong command line of a newcomer: one line says what is wrong, another what to type instead."""

from __future__ import annotations

import argparse
import shlex

import pytest
from ClassScaleSegLib.commands.main import ExitCode, _parser, main
from ClassScaleSegLib.options import FIELDS
from ClassScaleSegLib.version import VERSION

SEGMENT = """For example: classscaleseg segment ct.nii.gz -m toy-120 -o ct.seg.nrrd
classscaleseg models list shows the models."""


def parsers(parser=None):
    """Yield the parser of each command."""
    parser = parser or _parser()
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


def test_every_choice_of_a_segmentation_is_an_option_of_the_command():
    (segment,) = (parser for parser in parsers() if parser.prog == "classscaleseg segment")
    assert FIELDS.keys() - {action.dest for action in segment._actions} == set()


@pytest.mark.parametrize("parser", list(parsers()), ids=lambda parser: parser.prog)
def test_the_example_of_each_command_is_complete_and_in_its_help(parser):
    program, *words = shlex.split(parser.example)
    found = _parser().parse_args(words)
    assert program == "classscaleseg" and callable(found.run)
    shown = "".join(parser.format_help().split())  # lines are broken
    assert parser.prog == "classscaleseg" or parser.example.replace(" ", "") in shown


@pytest.mark.parametrize(
    ("given", "wrong", "advice"),
    [
        ("segment image.nii.gz", "the following arguments are required: -o/--output, -m/--model", SEGMENT),
        ("segment image.nii.gz toy-120 -o out", "arguments are required: -m/--model", SEGMENT),
        ("segment a -m toy-120 -o b --gpu", "classscaleseg segment: error: unrecognized arguments: --gpu", SEGMENT),
        ("serve toy-120", "invalid choice: 'toy-120'", "Do you mean classscaleseg serve --models toy-120?"),
        (
            "serve --gpu 0",
            "classscaleseg serve: error: unrecognized arguments: --gpu\n",
            "For example: classscaleseg serve",
        ),
        ("serve --port=1 toy-120", "invalid choice: 'toy-120'", "Do you mean classscaleseg serve --models toy-120?"),
        ("serve tokens anna", "invalid choice: 'tokens'", "Do you mean classscaleseg serve token?"),
        ("compare A", "required: OTHER", "For example: classscaleseg compare reference.seg.nrrd ct.seg.nrrd"),
        ("models toy-120", "'toy-120'", "Do you mean classscaleseg models info toy-120, or classscaleseg models list"),
        ("models list liver", "arguments: liver", "For example: classscaleseg models list --search left kidney"),
        ("servers http://lab", "'http://lab'", "Do you mean classscaleseg servers add NAME http://lab, or classscale"),
        ("servers add lab", "required: URL", "For example: classscaleseg servers add lab https://lab-gpu:8471"),
        ("dicom SEND", "invalid choice: 'SEND'", "Do you mean classscaleseg dicom send?"),
        ("dicom 'a b.dcm'", "'a b.dcm'", "Do you mean classscaleseg dicom send 'a b.dcm' --to URL?"),
        ("cohort out", "invalid choice: 'out'", "Do you mean classscaleseg cohort status out?"),
        ("inspect", "required: MODEL\n", "For example: classscaleseg inspect toy-120 ct.nii.gz"),
        ("image.nii.gz", "'image.nii.gz'", "Do you mean classscaleseg segment image.nii.gz -m MODEL -o OUT?"),
        ("segmnt a", "invalid choice: 'segmnt'", "Do you mean classscaleseg segment?"),
        ("run ct.nii.gz", "invalid choice: 'run' (choose from ", "For example: classscaleseg demo"),
        ("help", "invalid choice: 'help'", "For example: classscaleseg demo"),
        ("", "required: COMMAND", "For example: classscaleseg demo"),
    ],
)
def test_a_wrong_command_line_says_what_to_type(given, wrong, advice, capsys):
    with pytest.raises(SystemExit) as left:
        main(shlex.split(given))
    said = capsys.readouterr().err
    assert left.value.code == ExitCode.USAGE
    assert wrong in said and f"\n{advice}" in said and said.endswith(" --help lists all options.\n")
    assert said.count("\n") <= 4


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert not left.value.code and capsys.readouterr().out == f"ClassScaleSeg {VERSION}\n"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["segment", "gone.nii.gz", "-o", "x.nii.gz"], ExitCode.IMAGE, "gone.nii.gz does not exist."),
        (["segment", "empty.nii.gz", "-o", "x.nii.gz"], ExitCode.IMAGE, "empty.nii.gz is empty (0 bytes)."),
        (["segment", "one.nii.gz", "-o", "x.nii.gz", "--classes", "liver"], ExitCode.LABELS, "No label is called"),
        (["segment", "one.nii.gz", "-o", "x", "--format", "nii.gz"], ExitCode.OUTPUT, "write x/ for a new folder"),
        (["inspect", "gone.nii.gz"], ExitCode.IMAGE, "gone.nii.gz does not exist."),
    ],
)
def test_what_can_be_told_at_once_is_told_before_a_model_is_opened(
    words, code, sentence, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "one.nii.gz").write_text("not read")
    for place in ("job_models", "main"):
        monkeypatch.setattr(f"ClassScaleSegLib.commands.{place}.open_model", lambda *_: pytest.fail("it was opened"))
    command, *rest = words
    model = ["-m", "toy-120"] if command == "segment" else ["toy-120"]
    assert main([command, *model, *rest]) == code
    assert sentence in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 2


def test_a_format_is_known_without_its_dot():
    words = "segment a -m toy-120 -o b/ --format nii.gz --format .SEG.dcm --statistics-format xlsx".split()
    options = _parser().parse_args(words)
    assert (options.format, options.statistics_format) == ([".nii.gz", ".seg.dcm"], [".xlsx"])


def test_inspect_tells_facts_before_classes_and_counts_them_as_the_list_of_models(capsys):
    assert main(["inspect", "toy-120"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    (count,) = (line for line in lines if "number of classes  " in line)
    assert count.split() == ["number", "of", "classes", "120"]
    assert lines.index(count) < lines.index(next(line for line in lines if line.endswith("  cell 1")))
    ends = {len(line) - len(line.lstrip()) + len(line.strip().split("  ")[0]) for line in lines}
    assert ends == {len("mirrored with sides exchanged")}
