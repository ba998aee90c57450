# What this build found on the machine, and the one block that says so at the end of configuring.
#
# Required: fmt, Highway, hwloc, OpenSSL, GoogleTest for the tests; a missing one ends the configuration
# with the Debian package's name. CUDA (COMM_CUDA), verbs and pugixml are optional: the summary reports them,
# and a part of the library that uses one checks COMM_HAVE_CUDA, COMM_HAVE_VERBS or COMM_HAVE_PUGIXML in its
# own CMakeLists.txt to select files.
include(CheckIncludeFileCXX)

# comm_require(VARIABLE WHAT PACKAGE): ends the configuration unless VARIABLE is true.
function(comm_require variable what package)
  if(NOT ${variable})
    message(FATAL_ERROR "${what} is missing: apt-get install ${package} (./dev build installs all that is needed)")
  endif()
endfunction()

find_package(fmt QUIET)
comm_require(fmt_FOUND "fmt" libfmt-dev)
find_package(OpenSSL QUIET)
comm_require(OPENSSL_FOUND "OpenSSL" libssl-dev)
find_package(PkgConfig QUIET)
comm_require(PKG_CONFIG_FOUND "pkg-config" pkg-config)
pkg_check_modules(hwloc QUIET IMPORTED_TARGET hwloc)
comm_require(hwloc_FOUND "hwloc" libhwloc-dev)
pkg_check_modules(hwy QUIET IMPORTED_TARGET libhwy)
comm_require(hwy_FOUND "Highway" libhwy-dev)
if(COMM_BUILD_TESTS)
  find_package(GTest QUIET)
  comm_require(GTest_FOUND "GoogleTest" "libgtest-dev libgmock-dev")
endif()

# PMIx is opened at run time; its header only makes the launcher code compile against true types.
check_include_file_cxx(pmix.h COMM_HAVE_PMIX_H)
if(NOT COMM_HAVE_PMIX_H)
  pkg_check_modules(pmix QUIET pmix)
endif()
if(COMM_HAVE_PMIX_H OR pmix_FOUND)
  set(COMM_PMIX "headers found, libpmix.so.2 opened at run time")
else()
  set(COMM_PMIX "no headers, libpmix.so.2 opened at run time")
endif()

# CUDA: nvcc from PATH, CUDACXX or the usual folder (check_language misses one outside PATH). Only nvcc is
# needed, no header or library of CUDA: see comm_kernel_image.
set(COMM_CUDA AUTO CACHE STRING "Kernels for GPUs: ON, OFF, or AUTO: where nvcc is found")
set_property(CACHE COMM_CUDA PROPERTY STRINGS AUTO ON OFF)
set(COMM_CUDA_ARCHITECTURES "75;80;90;100;120" CACHE STRING
  "Compute capabilities with machine code of their own, the lowest first; later ones compile that one's PTX")
set(COMM_HAVE_CUDA OFF)
set(COMM_CUDA_VERSION "")
if(COMM_CUDA)
  find_program(COMM_NVCC nvcc HINTS $ENV{CUDACXX} $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin
                                    /usr/local/cuda/bin DOC "CUDA compiler")
  if(COMM_NVCC)
    execute_process(COMMAND ${COMM_NVCC} --version OUTPUT_VARIABLE nvcc_text ERROR_QUIET
                    RESULT_VARIABLE nvcc_result)
    if(nvcc_result EQUAL 0 AND nvcc_text MATCHES "release ([0-9.]+)")
      set(COMM_HAVE_CUDA ON)
      set(COMM_CUDA_VERSION ${CMAKE_MATCH_1})
    endif()
  endif()
  if(NOT COMM_HAVE_CUDA AND NOT COMM_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "COMM_CUDA=${COMM_CUDA}, but no nvcc that works is in PATH, $CUDACXX, $CUDA_HOME/bin, "
                        "$CUDA_PATH/bin or /usr/local/cuda/bin: install the CUDA toolkit, or name it by -DCOMM_NVCC=")
  endif()
endif()
if(COMM_HAVE_CUDA)
  # Those that this nvcc knows.
  execute_process(COMMAND ${COMM_NVCC} --list-gpu-arch OUTPUT_VARIABLE nvcc_text ERROR_QUIET)
  set(COMM_CUDA_CHOSEN "")
  foreach(architecture ${COMM_CUDA_ARCHITECTURES})
    if(nvcc_text MATCHES "compute_${architecture}\n")
      list(APPEND COMM_CUDA_CHOSEN ${architecture})
    endif()
  endforeach()
  if(NOT COMM_CUDA_CHOSEN)
    message(FATAL_ERROR "${COMM_NVCC} knows none of COMM_CUDA_ARCHITECTURES=${COMM_CUDA_ARCHITECTURES}")
  endif()
  string(REPLACE ";" " " COMM_CUDA_CHOSEN_TEXT "${COMM_CUDA_CHOSEN}")
endif()

# RDMA verbs.
pkg_check_modules(verbs QUIET libibverbs)
set(COMM_HAVE_VERBS OFF)
if(verbs_FOUND)
  set(COMM_HAVE_VERBS ON)
endif()

# pugixml, for topology files in NCCL's format.
find_package(pugixml 1.11 QUIET)
set(COMM_HAVE_PUGIXML ${pugixml_FOUND})

# What the summary says and comm-info repeats.
set(COMM_BUILD_SANITIZERS none)
if(COMM_SANITIZE)
  set(COMM_BUILD_SANITIZERS "${COMM_SANITIZE}")
endif()
set(COMM_BUILD_CUDA "without kernels for GPUs: no nvcc found")
if(NOT COMM_CUDA)
  set(COMM_BUILD_CUDA "without kernels for GPUs: COMM_CUDA=${COMM_CUDA}")
endif()
if(COMM_HAVE_CUDA)
  set(COMM_BUILD_CUDA "nvcc ${COMM_CUDA_VERSION}, kernels for GPUs of ${COMM_CUDA_CHOSEN_TEXT} and newer")
endif()
set(COMM_BUILD_VERBS "no headers (libibverbs-dev): without the RDMA transport")
if(COMM_HAVE_VERBS)
  set(COMM_BUILD_VERBS "${verbs_VERSION} headers found, libibverbs.so.1 opened at run time")
endif()
set(COMM_BUILD_PUGIXML "not found (libpugixml-dev): without topology files in NCCL's format")
if(COMM_HAVE_PUGIXML)
  set(COMM_BUILD_PUGIXML "${pugixml_VERSION}")
endif()
set(COMM_BUILD_COMPILER "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")

function(comm_summary_line name text)
  string(LENGTH "${name}" length)
  math(EXPR padding "14 - ${length}")
  string(REPEAT " " ${padding} spaces)
  message(STATUS "  ${name}${spaces}${text}")
endfunction()

# Printed last, by the top CMakeLists.txt.
function(comm_print_summary)
  message(STATUS "libcomm ${PROJECT_VERSION}")
  comm_summary_line("build type" "${CMAKE_BUILD_TYPE}")
  comm_summary_line("compiler" "${COMM_BUILD_COMPILER}")
  comm_summary_line("sanitizers" "${COMM_BUILD_SANITIZERS}")
  comm_summary_line("CUDA" "${COMM_BUILD_CUDA}")
  comm_summary_line("verbs" "${COMM_BUILD_VERBS}")
  comm_summary_line("hwloc" "${hwloc_VERSION}")
  comm_summary_line("Highway" "${hwy_VERSION}")
  comm_summary_line("pugixml" "${COMM_BUILD_PUGIXML}")
  comm_summary_line("PMIx" "${COMM_PMIX}")
  comm_summary_line("tests" "${COMM_BUILD_TESTS}")
  comm_summary_line("benchmarks" "${COMM_BUILD_BENCHMARKS}")
endfunction()
