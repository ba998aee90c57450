# What `cmake --install` puts where: the header, libcomm.so.1, the tools and benchmarks, man pages, the
# CMake package (find_package(comm), comm::comm) and comm.pc. The result may be moved as a whole: the
# package, the .pc file and the tools' run path are relative. Users need none of our dependencies'
# headers: libcomm's own static layers and libraries are linked privately.
include(CMakePackageConfigHelpers)

# Exports the C API alone, whatever templates the library instantiates.
target_link_options(comm PRIVATE -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/comm.map)
set_property(TARGET comm APPEND PROPERTY LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/comm.map)

install(TARGETS comm EXPORT commTargets
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
get_property(comm_programs GLOBAL PROPERTY COMM_PROGRAMS)
if(comm_programs)
  install(TARGETS ${comm_programs} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h")
foreach(section 1 7)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section}
          FILES_MATCHING PATTERN "*.${section}")
endforeach()

# The CMake package.
set(comm_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/comm)
install(EXPORT commTargets NAMESPACE comm:: DESTINATION ${comm_package_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/commConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/commConfig.cmake
                              INSTALL_DESTINATION ${comm_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/commConfigVersion.cmake
                                 COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/commConfig.cmake ${PROJECT_BINARY_DIR}/commConfigVersion.cmake
        DESTINATION ${comm_package_dir})

# comm.pc finds the prefix from its own place, ${pcfiledir}, so that a moved tree still works.
set(comm_pc_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH comm_pc_to_prefix /prefix/${comm_pc_dir} /prefix)
string(REGEX REPLACE "/$" "" comm_pc_to_prefix "${comm_pc_to_prefix}")
configure_file(${PROJECT_SOURCE_DIR}/cmake/comm.pc.in ${PROJECT_BINARY_DIR}/comm.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/comm.pc DESTINATION ${comm_pc_dir})
