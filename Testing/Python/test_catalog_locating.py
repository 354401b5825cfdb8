"""A model that was trained on boxes is located with the coarse model that the catalogue names, or not at all."""

# ruff: noqa: F811  (fixtures are imported, and then named as arguments)

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from ClassScaleSegLib.catalog.catalog import Catalog
from ClassScaleSegLib.catalog.chosen import chosen_models
from ClassScaleSegLib.catalog.defaults import completed
from ClassScaleSegLib.catalog.entries import Entry, LocateWith, Part
from ClassScaleSegLib.commands.job_models import completed_job, find_models
from ClassScaleSegLib.commands.main import main
from ClassScaleSegLib.errors import CatalogError, ClassScaleError, ModelError
from ClassScaleSegLib.options import Options
from ClassScaleSegLib.process.job import Job, read_job
from ClassScaleSegLib.resources import resource
from conftest import MODEL, TOY

CELLS = tuple(f"cell {number}" for number in range(1, 121))
NEED = LocateWith("coarse", ("cell 1", "cell 7"), 7.0)
EMBEDDED = (Part(file="toy-120.zip"),)
COARSE = Entry("coarse", "Coarse", classes=120, parts=EMBEDDED, structures=CELLS)
FINE = Entry("fine", "Fine", classes=120, parts=EMBEDDED, locate_with=NEED)
SAMPLE = str(resource("SampleData", "toy-120.nrrd"))


@pytest.fixture
def known(monkeypatch, tmp_path):
    """Sets the entries of the catalogue."""
    monkeypatch.setenv("CLASSSCALESEG_MODELS", str(tmp_path / "models"))

    def of(*entries):
        monkeypatch.setattr(Catalog, "_known", entries)

    of(COARSE, FINE)
    return of


@pytest.fixture
def copies(tmp_path):
    """Two models that are the same but for their paths."""
    paths = [tmp_path / name / "toy-120.zip" for name in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(TOY, path)
    return paths


def test_the_entry_says_with_what_where_and_how_far(known):
    options = Options(step=0.75)
    found = completed(["fine"], options)
    assert found == replace(options, locate_with="coarse", locate_classes=NEED.classes, locate_margin=7.0)
    assert completed(["Fine"], found) == found and completed(["coarse"], options) == options
    assert completed([TOY], options) == options  # a file is not looked up
    assert (
        completed(["fine"], Options(locate_with="none")) == Options() == completed([TOY], Options(locate_with="none"))
    )


def test_a_user_who_names_a_coarse_model_gets_the_classes_if_it_has_them(known, write_model):
    for coarse in ("coarse", str(TOY)):
        found = completed(["fine"], Options(locate_with=coarse))
        assert found == Options(locate_with=coarse, locate_classes=NEED.classes)
    other = str(write_model())
    assert completed(["fine"], Options(locate_with=other)) == Options(locate_with=other)
    own = Options(locate_with="coarse", locate_classes="cell 9", locate_margin=3)
    assert completed(["fine"], own) == own


def test_a_class_that_the_model_spells_otherwise_is_found_by_its_value(known):
    spelled = replace(COARSE, structures=("cella_prima", *CELLS[1:]))
    fine = replace(FINE, locate_with=replace(NEED, classes=("cella_prima", "cell 7")))
    known(spelled, fine)
    assert completed(["fine"], Options()).locate_classes == (1, "cell 7")
    known(replace(COARSE, structures=()), fine)
    with pytest.raises(CatalogError, match="Coarse does not have the classes cella_prima, cell 7, which tell Fine"):
        completed(["fine"], Options())


def test_models_that_are_located_alike_are_located_together(known):
    second = replace(FINE, id="second", name="Second", locate_with=LocateWith("coarse", ("cell 7", "cell 8"), 5.0))
    elsewhere = replace(FINE, id="third", name="Third", locate_with=LocateWith("fine", ("cell 1",), 5.0))
    known(COARSE, FINE, second, elsewhere)
    found = completed(["fine", "second"], Options())
    assert (found.locate_with, found.locate_margin) == ("coarse", 7.0)
    assert found.locate_classes == ("cell 1", "cell 7", "cell 8")
    for other in ("third", "coarse", str(TOY)):
        for options in (Options(), Options(locate_with="none"), Options(locate_with="coarse")):
            assert completed(["fine", other], options) == options  # each model by itself, below


def test_each_of_several_models_looks_where_the_catalogue_says(known, copies):
    second = replace(FINE, id="second", name="Second", parts=(Part(file=str(copies[0])),))
    second = replace(second, locate_with=LocateWith("coarse", ("cell 7", "cell 8"), 5.0))
    free = replace(FINE, id="free", name="Free", parts=(Part(file=str(copies[1])),), locate_with=None)
    known(COARSE, FINE, second, free)
    fine, free, second = chosen_models(["fine", "free", "second"], completed(["fine", "free", "second"], Options()))
    assert fine.looks == second.looks  # which runs once for both
    assert (fine.looks.locate_with, fine.looks.locate_margin) == (str(TOY), 7.0)
    assert fine.looks.locate_classes == ("cell 1", "cell 7", "cell 8") and free.looks is None
    for options in (Options(locate_with="none"), Options(locate_with="coarse")):
        assert [model.looks for model in chosen_models(["fine", "free"], options)] == [None, None]
    job = Job((SAMPLE,), ("fine", "free"), "o.nrrd")
    found = find_models(completed_job(job))
    assert [source.looks is not None for source in found.sources] == [True, False] and len(found.locating) == 1
    assert [source.model for source in found.sources] == ["Fine", "Free"] and len(found.checksums) == 3
    whole = replace(job, options=Options(locate_with="none"))
    assert not find_models(completed_job(whole)).locating and find_models(completed_job(whole)).options == Options()


def test_a_model_that_is_given_twice_is_told(known):
    known(COARSE, FINE)
    with pytest.raises(ModelError, match=r"The model Fine \(fine\) is given twice. Leave it out once."):
        chosen_models(["fine", "fine"])


def test_models_of_one_name_are_told_apart_by_a_number(known, copies):
    known(COARSE, FINE)
    assert [model.name for model in chosen_models(list(copies))] == [
        "Toy atlas, 120 classes",
        "Toy atlas, 120 classes 2",
    ]


def test_a_coarse_model_that_is_missing_is_told_with_two_ways_out(known, tmp_path, capsys):
    known(replace(COARSE, parts=(Part("https://a/b.zip"),)), FINE)
    output = tmp_path / "out.seg.nrrd"
    assert main(["segment", SAMPLE, "-m", "fine", "-o", str(output)]) == 3
    told = capsys.readouterr().err
    assert "Fine was trained on boxes around cell 1, cell 7. They are found by Coarse, which is not downloaded." in told
    assert "`classscaleseg models download coarse`" in told and "--locate-with none" in told and not output.exists()
    assert main(["models", "download", "fine"]) == 0
    told = capsys.readouterr().out
    assert "looks only where another model finds structures: coarse: cell 1, cell 7, with a margin of 7 mm." in told
    assert "That one is not downloaded yet: classscaleseg models download coarse" in told
    known(COARSE, replace(FINE, parts=(Part("https://a/b.zip"),)))
    assert main(["segment", SAMPLE, "-m", "fine", "-o", str(output)]) == 3
    assert "Fine is not downloaded." in capsys.readouterr().err  # of the two, the model itself is told first


def test_the_configuration_of_the_entry_chooses_among_several_models_of_a_zip(known):
    chosen = (Part(file="toy-120.zip", configuration="3d_fullres"),)
    known(replace(COARSE, parts=chosen * 2), FINE)
    assert completed(["coarse"], Options()).configuration == "3d_fullres"
    assert completed(["coarse"], Options(configuration="2d")).configuration == "2d"
    for others in (["coarse", TOY], ["coarse", "fine"]):
        assert completed(others, Options(locate_with="none")).configuration is None


def test_one_of_two_models_of_a_zip_runs_as_the_entry_says(known, write_model, tmp_path, capsys):
    pytest.importorskip("nnunetv2")
    sitk = pytest.importorskip("SimpleITK")
    folder = write_model()
    shutil.copytree(folder, folder.with_name(f"{MODEL}_other"))
    two = Entry("two", "Two", classes=20, parts=(Part("https://a/two.zip", configuration=MODEL),))
    known(two)
    (catalog := Catalog()).place(two, two.parts[0]).parent.mkdir(parents=True)
    archive = catalog.folder / "two" / "two"
    shutil.make_archive(str(archive), "zip", folder.parent.parent, folder.parent.name)
    assert main(["inspect", "two", "--json"]) == 0 and '"number of classes": 20' in capsys.readouterr().out
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((16, 16, 16), np.float32)), str(tmp_path / "image.nrrd"))
    command = ["segment", str(tmp_path / "image.nrrd"), "-o", str(tmp_path / "out.seg.nrrd"), "--device", "cpu"]
    assert main([*command, "-m", f"{archive}.zip"]) == 3 and "contains several models" in capsys.readouterr().err
    assert main([*command, "-m", "two"]) == 0 and (tmp_path / "out.seg.nrrd").exists()


def test_none_is_no_model_for_a_job_and_has_no_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "coarse.zip").touch()
    for given, kept in (("none", "none"), ("coarse.zip", str(tmp_path / "coarse.zip"))):
        Job(("ct.nii.gz",), "fine", "out.nrrd", options=Options(locate_with=given)).write(tmp_path / "job.json")
        assert read_job(tmp_path / "job.json").options.locate_with == kept
    for more in ({"locate_classes": "liver"}, {"locate_margin": 5}):
        with pytest.raises(ClassScaleError, match="need a model that locates"):
            Options(locate_with="none", **more)


def test_the_command_looks_where_the_entry_says(known, tmp_path, capsys):
    pytest.importorskip("nnunetv2")
    common = ["--device", "cpu", "--no-mirroring", "--threads", "1", "--json-progress"]

    def run(name, *more):
        assert main(["segment", SAMPLE, "-o", str(tmp_path / name), *common, *more]) == 0
        messages = [json.loads(line).get("message") or "" for line in capsys.readouterr().out.splitlines()]
        return (tmp_path / name).read_bytes(), [text for text in messages if "Located by" in text]

    default, located = run("a.seg.nrrd", "-m", "fine")
    named, _ = run(
        *("b.seg.nrrd", "-m", str(TOY), "--locate-with", str(TOY), "--locate-margin", "7"),
        *("--locate-classes", "cell 1", "cell 7"),
    )
    assert default == named and len(located) == 1
    whole, located = run("c.seg.nrrd", "-m", "fine", "--locate-with", "none")
    assert whole != default and not located


def test_the_report_and_the_record_say_where_it_looked(known, tmp_path):
    pytest.importorskip("nnunetv2")
    images = tmp_path / "images"
    images.mkdir()
    (images / "one.nrrd").write_bytes(resource("SampleData", "toy-120.nrrd").read_bytes())
    common = ["--device", "cpu", "--no-mirroring", "--threads", "1", "--classes", "cell 1", "cell 7"]
    out, report = tmp_path / "out", tmp_path / "report"
    assert main(["segment", str(images), "-m", "fine", "-o", str(out), "--report", str(report), *common]) == 0
    text = next(report.glob("*.json")).read_text(encoding="utf-8")
    assert "locate_with='coarse'" in text or "--locate-with coarse" in text
    changed = (out / "one.seg.nrrd").stat().st_mtime_ns
    explicit = ["--locate-with", "coarse", "--locate-classes", "cell 1", "cell 7", "--locate-margin", "7"]
    assert main(["segment", str(images), "-m", "fine", "-o", str(out), *common, *explicit]) == 0
    assert (out / "one.seg.nrrd").stat().st_mtime_ns == changed  # the same, so it was not made again
    assert main(["segment", str(images), "-m", "fine", "-o", str(out), *common, "--locate-with", "none"]) == 0
    assert (out / "one.seg.nrrd").stat().st_mtime_ns > changed
