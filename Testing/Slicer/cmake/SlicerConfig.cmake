# Replaces the SlicerConfig.cmake of a Slicer build tree, so that the extension can be configured, built and installed
# without one. It sets the same variables and folders as Slicer's. Used by Testing/Python/test_extension.py.

set(Slicer_VERSION 5.12)
set(Slicer_REVISION 99999)
set(Slicer_OS linux)
set(Slicer_ARCHITECTURE amd64)
set(Slicer_USE_PYTHONQT ON)

set(Slicer_SHARE_DIR share/Slicer-${Slicer_VERSION})
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-${Slicer_VERSION}/qt-scripted-modules)
set(Slicer_INSTALL_ROOT ./)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR ${Slicer_INSTALL_ROOT}${Slicer_QTSCRIPTEDMODULES_LIB_DIR})
set(Slicer_INSTALL_QTSCRIPTEDMODULES_SHARE_DIR ${Slicer_INSTALL_ROOT}${Slicer_SHARE_DIR}/qt-scripted-modules)

set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionGenerateConfig.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionCPack.cmake)
