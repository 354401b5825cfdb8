# The last step of Slicer's build: write the description file. Fails if readme, licence or a field is missing.

foreach(_file README.md LICENSE)
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${_file})
    message(FATAL_ERROR "${_file} is missing: Slicer does not package the extension without it.")
  endif()
endforeach()
foreach(_field HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${_field}}" STREQUAL "")
    message(FATAL_ERROR "EXTENSION_${_field} is not set.")
  endif()
endforeach()

file(WRITE ${CMAKE_BINARY_DIR}/${EXTENSION_NAME}.s4ext "depends ${EXTENSION_DEPENDS}
homepage ${EXTENSION_HOMEPAGE}
contributors ${EXTENSION_CONTRIBUTORS}
category ${EXTENSION_CATEGORY}
iconurl ${EXTENSION_ICONURL}
description ${EXTENSION_DESCRIPTION}
screenshoturls ${EXTENSION_SCREENSHOTURLS}
")
install(
  FILES ${CMAKE_BINARY_DIR}/${EXTENSION_NAME}.s4ext
  DESTINATION ${Slicer_INSTALL_ROOT}${Slicer_SHARE_DIR}
  COMPONENT RuntimeLibraries
  )
