"""Stands in for the Slicer application where a test needs one: Qt as PythonQt shows it, on PySide6, and real MRML.

    import standins
    application = standins.start()                     # slicer.app, slicer.mrmlScene, `import qt`, `import ctk` ...
    module = application.load_module("ClassScaleSeg/ClassScaleSeg.py")
    widget = application.make_widget(module)

MRML, segmentations, terminology and storage are slicer-core, Slicer's own code. Only what the wheel lacks is imitated:
Qt wrappers, ctk and qMRML widgets, and the base classes of scripted modules. The environment variable
SLICER_BASE_PYTHON may name ``Base/Python`` of a Slicer checkout; its own base classes are used then.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # before Qt is loaded, by whichever import
_started = None


def start():
    """The one stand-in application of this process."""
    global _started
    if _started is None:
        import slicer

        from . import ctk, qt

        sys.modules["qt"], sys.modules["ctk"] = qt, ctk
        if base := os.environ.get("SLICER_BASE_PYTHON"):
            slicer.__path__.append(os.path.join(base, "slicer"))
        from . import application, mrml_widgets, scripted

        _started = application.Application()
        mrml_widgets.install(slicer)
        scripted.install(slicer, own="SLICER_BASE_PYTHON" not in os.environ)
    return _started
