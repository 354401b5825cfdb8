# Slicer writes <Extension>Config.cmake here, which other extensions link to. A scripted module has no target to export.
