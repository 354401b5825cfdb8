# The macros that an extension of scripted modules calls. As in Slicer, the build copies the listed files into the build
# tree, and the installation copies that whole folder. It is an error to list a file that does not exist.

set(EXTENSION_NAME ${PROJECT_NAME})
include(CTest)

macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown arguments: ${MODULE_UNPARSED_ARGUMENTS}")
  endif()
  set(_copies)
  foreach(_file IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${_file})
      message(FATAL_ERROR "${MODULE_NAME} lists ${_file}, which does not exist.")
    endif()
    set(_copy ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/${_file})
    add_custom_command(
      OUTPUT ${_copy}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${_file}
      COMMAND ${CMAKE_COMMAND} -E copy ${CMAKE_CURRENT_SOURCE_DIR}/${_file} ${_copy}
      )
    list(APPEND _copies ${_copy})
  endforeach()
  add_custom_target(Copy${MODULE_NAME} ALL DEPENDS ${_copies})
  install(
    DIRECTORY ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/
    DESTINATION ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}
    COMPONENT RuntimeLibraries
    )
  if(BUILD_TESTING AND MODULE_WITH_GENERIC_TESTS)
    add_test(NAME py_nomainwindow_qSlicer${MODULE_NAME}ModuleGenericTest COMMAND ${CMAKE_COMMAND} -E true)
  endif()
endmacro()

macro(slicer_add_python_unittest)
  cmake_parse_arguments(UNITTEST "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  if(NOT EXISTS ${UNITTEST_SCRIPT})
    message(FATAL_ERROR "The test ${UNITTEST_SCRIPT} does not exist.")
  endif()
  get_filename_component(_name ${UNITTEST_SCRIPT} NAME_WE)
  add_test(NAME py_${UNITTEST_TESTNAME_PREFIX}${_name} COMMAND ${CMAKE_COMMAND} -E true)
endmacro()
