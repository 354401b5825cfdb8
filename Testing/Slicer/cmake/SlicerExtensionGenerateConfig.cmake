# Slicer writes <Extension>Config.cmake here, for other extensions to link to; a scripted module exports no target.
