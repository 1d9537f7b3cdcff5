# The library, the headers users include, and the package that find_package(monoid CONFIG) reads.
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/monoid)
install(TARGETS monoid EXPORT monoid-targets)
install(EXPORT monoid-targets NAMESPACE monoid:: DESTINATION ${package_dir})

# Contracts of kernels are public, their CPU and CUDA sides are not; *_format.h are internal too.
install(DIRECTORY core kernels ops layers models DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/monoid
        FILES_MATCHING PATTERN "*.h" PATTERN "*_format.h" EXCLUDE PATTERN "cpu" EXCLUDE PATTERN "cuda" EXCLUDE)

configure_package_config_file(cmake/monoid-config.cmake.in monoid-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(monoid-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/monoid-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/monoid-config-version.cmake
        DESTINATION ${package_dir})
