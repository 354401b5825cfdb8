"""The panel in German: the catalogue, the library's sentences, lengths. Slicer's own `tr` is imitated, Qt is real."""

import re
import shutil
import sys
import time
from xml.etree import ElementTree

import pytest
import sentences
import slicer_application
import translations
from slicer_application import ROOT, application, load_sample, module, qt, slicer, wait_until
from standins.application import ModulePanel
from test_module_keyboard import assert_no_collision, open_all
from test_module_queue import add, broken, segmentations, small, states

from ClassScaleSegPanel import translation  # isort: skip

GERMAN = translations.FOLDER / "ClassScaleSeg_de.ts"


def forget():
    """Forget what was translated before, in another language."""
    translation._translated.cache_clear()
    translation._divide.cache_clear()


@pytest.fixture
def german(monkeypatch):
    """Slicer in German, as language packs call it; each test begins without translations that were found before."""
    monkeypatch.setattr(application, "applicationLocaleName", "de-DE")
    before = set(application.children())
    translation.load_translations()
    forget()
    yield
    forget()
    for translator in set(application.children()) - before:
        qt.QCoreApplication.removeTranslator(translator)
        translator.deleteLater()


def shown_texts(panel):
    """Everything that the panel says: texts, tips, hints, titles of columns."""
    found = {}
    for widget in panel.widget.findChildren(qt.QWidget):
        for name in ("text", "toolTip", "placeholderText", "specialValueText", "accessibleName", "title"):
            value = widget.property(name)
            if isinstance(value, str) and value:
                found[value] = f"{widget.objectName}.{name}"
    for table in (panel.class_list.table, panel.results.table, panel.queue.table, panel.comparing.table):
        for column in range(table.model.columnCount()):
            found[table.model.headerData(column, qt.Qt.Horizontal)] = "column"
    return found


def english_words(text):
    """The words that are English and not German."""
    return re.findall(r"\b(the|of|and|is|to|with|not|volume|voxels|select|tick|press|image|classes|found)\b", text)


# --- the catalogue


def test_all_texts_are_translated_with_their_values_and_the_files_are_current():
    faults = [fault for file in translations.files() for fault in translations.faults(file)]
    assert faults == [], "call: python Testing/Tools/translations.py update, and fill in the .ts file"
    assert translations.LIST.read_text(encoding="utf-8") == translations.list_of_sentences()


def test_what_slicer_reads_is_what_the_translator_wrote(german):
    catalogue = translations.read(GERMAN)
    assert len(catalogue) > 700
    for (context, text), (wanted, finished) in catalogue.items():
        if finished:
            assert slicer.app.translate(context, text) == wanted


def test_texts_are_found_as_qt_finds_them_with_the_steps_of_slicers_script(tmp_path):
    """Slicer's `update_translations.py` makes translate() of _(), in the context of the file, and calls lupdate."""
    import subprocess

    import PySide6

    shutil.copytree(ROOT / "ClassScaleSeg", tmp_path / "module", ignore=shutil.ignore_patterns("ClassScaleSegLib"))
    files = [*(tmp_path / "module").rglob("*.py"), *(tmp_path / "module").rglob("*.ui")]
    for file in files:
        if file.suffix == ".py":
            package = f"{file.parent.name}." if (file.parent / "__init__.py").is_file() else ""
            code = file.read_text(encoding="utf-8")
            for quote in ('"', "'"):
                code = re.sub(
                    rf"([^_])_\((\s*?{quote}.+?{quote}\s*?)\)",
                    rf'\1translate("{package}{file.stem}", \2)',
                    code,
                    flags=re.DOTALL,
                )
            file.write_text(code, encoding="utf-8")
    found = tmp_path / "found.ts"
    (program,) = (path for path in map(type(tmp_path), PySide6.__path__) for path in path.rglob("lupdate*"))
    subprocess.run([program, "-silent", *files, "-ts", found], check=True)
    qt_found = {
        (context.findtext("name"), message.findtext("source"))
        for context in ElementTree.parse(found).getroot().iter("context")
        for message in context.iter("message")
    }
    assert set(translations.sources()) - qt_found == set()
    assert {key for key in qt_found - set(translations.sources()) if key[0] != "qSlicerAbstractCoreModule"} == set()


def test_a_changed_text_keeps_its_translation_as_a_proposal_that_is_not_used(monkeypatch):
    old = translations.read(GERMAN)
    changed = [
        ("ClassScaleSeg", "The volume to segment now.") if key == ("ClassScaleSeg", "The volume to segment.") else key
        for key in translations.sources()
    ]
    monkeypatch.setattr(translations, "sources", lambda: changed)
    new = translations.updated(old)
    text, finished = new["ClassScaleSeg", "The volume to segment now."]
    assert text == old["ClassScaleSeg", "The volume to segment."].text and not finished
    assert sum(not entry.finished for entry in new.values()) == 1


def test_a_language_is_added_by_one_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(translations, "FOLDER", tmp_path)
    monkeypatch.setattr(translations, "LIST", tmp_path / "library_sentences.py")
    assert translations.main(["add", "fr"]) == 1
    assert "ClassScaleSeg_fr.ts: not translated: ClassScaleSeg: '&Apply'" in capsys.readouterr().out
    assert (tmp_path / "ClassScaleSeg_fr.qm").is_file()
    assert translations.main([]) == 1 and translations.main(["nonsense"]) == 2


@pytest.mark.parametrize("locale", ["de", "de-DE", "de_DE", "de_AT"])
def test_the_file_is_found_whatever_slicer_calls_the_language(locale, monkeypatch):
    loaded = []
    monkeypatch.setattr(application, "applicationLocaleName", locale)
    monkeypatch.setattr(type(application), "installTranslator", lambda self, translator: loaded.append(translator))
    translation.load_translations()
    assert len(loaded) == 1 and loaded[0].translate("ClassScaleSeg", "&Apply") == "An&wenden"
    monkeypatch.setattr(application, "applicationLocaleName", "en_US")
    translation.load_translations()
    assert len(loaded) == 1


# --- the library's sentences


def test_a_sentence_of_the_library_is_translated_with_its_values(german):
    need = "about 3.2 GB of GPU memory and 4.0 GB of RAM (without a GPU 9.1 GB of RAM)"
    for english, wanted in {
        "CT has no voxels. Load the image again, or select another volume.": (
            "CT hat keine Voxel. Laden Sie das Bild noch einmal, oder wählen Sie ein anderes."
        ),
        "plans.json has no object 'configurations': these are not plans of nnU-Net v2.": (
            "plans.json hat kein Objekt 'configurations': Das sind keine Pläne von nnU-Net v2."
        ),
        "toy.zip: dataset.json: label values must lie between 0 and 65535.": (
            "toy.zip: dataset.json: Labelwerte müssen zwischen 0 und 65535 liegen."
        ),
        "There is no device cuda:9 here. This torch (2.1) offers cpu, cuda:0 to cuda:3.": (
            "Ein Gerät cuda:9 gibt es hier nicht. Dieses torch (2.1) bietet cpu, cuda:0 bis cuda:3."
        ),
        f"{need}; this grows with the number of classes": (
            "etwa 3.2 GB GPU-Speicher und 4.0 GB RAM (ohne GPU 9.1 GB RAM); das wächst mit der Zahl der Klassen"
        ),
        "Cleaned up liver: from 9 to 6 voxels (3 lost, 0 gained), 1 island removed.": (
            "Nachbearbeitet: liver: von 9 auf 6 Voxel (3 verloren, 0 gewonnen), 1 Insel entfernt."
        ),
        "Fertig: 5 Strukturen gefunden. Cleaning up changed nothing.": "Fertig: 5 Strukturen gefunden. Die "
        "Nachbearbeitung hat nichts verändert.",
    }.items():
        assert translation.translated(english) == wanted


def test_errors_that_the_library_really_raises_are_recognised(german, tmp_path):
    from ClassScaleSegLib import Options, open_model
    from ClassScaleSegLib.catalog.catalog import resolve_model
    from ClassScaleSegLib.errors import ClassScaleError
    from ClassScaleSegLib.images.reading import read_image
    from ClassScaleSegLib.labels.table import LabelTable

    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    (tmp_path / "bad.csv").write_text("a,b\n")
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    for call in (
        lambda: Options(step=1.5),
        lambda: Options(folds=()),
        lambda: open_model(tmp_path / "folder"),
        lambda: open_model(tmp_path / "bad.zip"),
        lambda: open_model(tmp_path / "nowhere"),
        lambda: resolve_model("totalsegmentator-3mm"),
        lambda: resolve_model("toy-12"),
        lambda: LabelTable.from_csv(tmp_path / "bad.csv"),
        lambda: read_image(tmp_path / "empty.nii.gz", 1),
        lambda: read_image(tmp_path / "folder", 1),
    ):
        with pytest.raises(ClassScaleError) as error:
            call()
        german_text = translation.translated(str(error.value)).replace(str(tmp_path), "")
        assert english_words(german_text) == [], german_text


@pytest.mark.parametrize("name", ["{file}", "{0}", "{name.__class__}", "{{", "%1", "&amp;", "\\1", "It is missing."])
def test_a_name_is_copied_and_never_read_as_a_template(name, german):
    shown = translation.translated(f"{name} has no voxels. Load the image again, or select another volume.")
    assert shown == f"{name} hat keine Voxel. Laden Sie das Bild noch einmal, oder wählen Sie ein anderes." or (
        name == "It is missing." and shown.endswith("oder wählen Sie ein anderes.")
    )


@pytest.mark.parametrize("text", ["a (" * 1300, ". It has. is missing: x. " * 150, " has no voxels" * 280, "{" * 3999])
def test_a_text_that_was_made_to_take_long_does_not(text, german):
    begin = time.perf_counter()
    translation.translated(text)
    assert time.perf_counter() - begin < 1


def test_a_wrong_translation_is_not_used(german, monkeypatch):
    monkeypatch.setattr(translation, "translate", lambda context, text: text.replace("{name}", "{nmae}"))
    forget()
    english = "CT has no voxels. Load the image again, or select another volume."
    assert translation.translated(english) == english
    forget()


def test_in_english_nothing_is_looked_for(monkeypatch):
    monkeypatch.delitem(sys.modules, "ClassScaleSegPanel.library_sentences", raising=False)
    translation._index.cache_clear()
    assert translation.translated("It is missing.") == "It is missing."
    assert "ClassScaleSegPanel.library_sentences" not in sys.modules


def test_every_template_is_found_again_in_a_sentence_made_from_it(monkeypatch):
    monkeypatch.setattr(application, "applicationLocaleName", "de-DE")
    monkeypatch.setattr(translation, "translate", lambda context, text: f"<{text}>")
    forget()
    lost = []
    for template in sentences.library_sentences():
        text = re.sub(r"\{(\w+)\}", lambda match: f"X{match[1]}X", template.replace("{{", "(").replace("}}", ")"))
        letters = sum(letter.isalpha() for letter in re.sub(r"\{\w+\}", "", template))
        if letters >= 6 and "<" not in translation._divide(text, 0)[1]:
            lost.append(template)
    forget()
    assert lost == []


# --- the panel


@pytest.fixture
def german_panel(german, panel):
    """The panel in German. ``german`` comes first, so that the panel is made in that language."""
    yield panel


def test_the_panel_says_nothing_in_english(german_panel, answers):
    panel = german_panel
    english = {text for _context, text in translations.sources() if _context != sentences.LIBRARY}
    same = {text for (_c, text), entry in translations.read(GERMAN).items() if entry.text == text}

    def check(state):
        for text, where in shown_texts(panel).items():
            assert text not in english - same, f"{state}: {where}: {text}"
            if "Label" in where and "Facts" not in where:
                assert english_words(text) == [], f"{state}: {where}: {text}"

    check("empty")
    assert panel.ui.needLabel.text.startswith("Kein Bild ist ausgewählt")
    load_sample("CT")
    open_all(panel)
    check("with a volume")
    assert "wächst nicht mit der Zahl der Klassen" in panel.ui.needLabel.text
    panel.class_list.none_button.click()
    check("no class")
    panel.class_list.all_button.click()
    panel.store(locateWith="toy-1000")
    check("a model that locates")
    panel.store(locateWith="")
    panel.ui.smoothSpinBox.value = 1.0
    panel.ui.applyButton.click()
    check("running")
    wait_until(lambda: panel.state.run is None)
    assert panel.ui.statusLabel.text.startswith("Fertig: ")
    check("finished")
    panel.store(segmentation=None, device="cpu")
    panel.ui.memoryLimitSpinBox.value = 0.1
    panel.ui.applyButton.click()
    wait_until(lambda: panel.state.run is None)
    assert answers and "Erhöhen Sie die Grenze" in answers[-1], "an error of the child process"
    assert "Raise the limit" in panel.state.log, "the log stays English, for bug reports"
    check("failed")
    panel.ui.modelSearchBox.text = "qqqq"
    assert "In keinem kommt das Wort qqqq vor" in panel.ui.modelFactsLabel.text


def test_a_queue_and_a_comparison_say_nothing_in_english_either(german_panel):
    panel = german_panel
    broken("Kaputt")
    first, second = small("Erstes"), small("Zweites")
    panel.choose_models(("toy-120", "toy-1000"))
    assert panel.ui.overlapComboBox.currentText == "Das spätere Modell gilt"
    add(panel, "Alle Bilddatensätze der Szene")
    assert panel.ui.needLabel.text.startswith("3 Bilddatensätze werden nacheinander segmentiert")
    panel.ui.applyButton.click()
    wait_until(lambda: panel.state.run is None, 120)
    assert panel.ui.statusLabel.text.startswith("Fertig: 2 von 3 Bilddatensätzen segmentiert. Kaputt hat 8,000 Voxel")
    said = states(panel)
    assert said["Kaputt"].startswith("fehlgeschlagen: Kaputt hat 8,000 Voxel, die NaN"), "not the temporary file"
    assert panel.ui.needLabel.text.startswith("Kaputt wird segmentiert, "), "the only one that is ticked still"
    assert "Strukturen" in said[second.GetName()]
    panel.comparing._choose(segmentations()[f"{first.GetName()} segmentation"])
    panel.ui.compareButton.click()
    (summary,) = (label.text for label in panel.comparing.table.widget.findChildren(qt.QLabel) if label.text)
    for text in (panel.ui.statusLabel.text, panel.ui.needLabel.text, summary, *said.values()):
        assert english_words(text) == [], text


def test_letters_do_not_collide_in_german_either(german_panel):
    assert_no_collision(german_panel)


@pytest.mark.parametrize("locale", ["en_US", "de_DE"])
def test_neither_language_makes_the_panel_wide(locale, monkeypatch, request):
    if locale == "de_DE":
        request.getfixturevalue("german")
    panel = request.getfixturevalue("panel")
    load_sample("CT")
    open_all(panel)
    window = ModulePanel(application.widget.parent)
    window.show()
    widths = {}
    download = "totalsegmentator-3mm"
    for models in (("toy-1000",), ("toy-120", "toy-1000"), (download,), (download, "toy-1000")):
        panel.choose_models(models)
        application.processEvents()
        widths[models] = window.minimumSizeHint().width()
    assert max(widths.values()) <= 350, f"{widths}: Slicer's panel is 371 pixels wide at first"
    window.release()


assert module is not None and slicer_application


def test_the_panel_leaves_out_what_only_a_terminal_needs(german):
    from ClassScaleSegLib.addresses import refuse_unencrypted
    from ClassScaleSegLib.errors import ServerError
    from ClassScaleSegLib.remote.credentials import TOKEN_HINT
    from ClassScaleSegPanel.servers.texts import panel_words

    with pytest.raises(ServerError) as caught:
        refuse_unencrypted("http://lab-gpu:8471", "the token", False, ServerError)
    assert panel_words(str(caught.value)) == (
        "Die Verbindung zu http://lab-gpu:8471 ist nicht verschlüsselt; andere im Netzwerk könnten das Token lesen. "
        "Es wurde nichts gesendet."
    )
    asks = panel_words(f"http://lab-gpu:8471 asks for a token. {TOKEN_HINT}")
    assert "(„Server...“)" in asks and "CLASSSCALESEG_TOKEN" not in asks


def test_what_has_become_of_a_watched_series_is_said_in_german(german, tmp_path):
    from ClassScaleSegLib.commands.watch_record import Records
    from ClassScaleSegLib.errors import OutputError
    from ClassScaleSegPanel.archives.words import panel_words

    records = Records(tmp_path / "lost")
    with pytest.raises(OutputError) as caught:
        records.refuse_lost()
    assert panel_words(str(caught.value)).startswith(f"{tmp_path / 'lost'} ist nicht mehr da, vielleicht weil ein ")
    records.folder.mkdir(parents=True)
    (records.folder / "1.2.json").write_text("{}")
    (fault,) = records.read_all()[1]
    assert panel_words(fault).endswith("Löschen Sie die Datei, und die Serie wird noch einmal segmentiert.")
