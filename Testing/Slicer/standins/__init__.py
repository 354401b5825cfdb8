"""Replace the Slicer application in tests: Qt on PySide6, with the interface that PythonQt gives it, and real MRML.

    import standins
    application = standins.start()                     # slicer.app, slicer.mrmlScene, `import qt`, `import ctk` ...
    module = application.load_module("ClassScaleSeg/ClassScaleSeg.py")
    widget = application.make_widget(module)

MRML, segmentations, terminology and storage are Slicer's own code, from slicer-core. Only what that wheel lacks is
imitated: Qt wrappers, ctk and qMRML widgets, the base classes of scripted modules, and what other modules see of the
Segment Editor. To use Slicer's own base classes, set the environment variable SLICER_BASE_PYTHON to ``Base/Python`` of
a Slicer checkout.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .application import Application

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # before any import loads Qt
_started: Application | None = None


def start() -> Application:
    """Return the stand-in application of this process, and start it at the first call."""
    global _started
    if _started is None:
        import slicer

        from . import ctk, qt

        sys.modules["qt"], sys.modules["ctk"] = qt, ctk
        if base := os.environ.get("SLICER_BASE_PYTHON"):
            slicer.__path__.append(os.path.join(base, "slicer"))
        from . import application, mrml_widgets, scripted, segment_editor

        _started = application.Application()
        mrml_widgets.install(slicer)
        scripted.install(slicer, own="SLICER_BASE_PYTHON" not in os.environ)
        segment_editor.install(_started)
    return _started
