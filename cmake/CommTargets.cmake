# comm_layer(name SOURCES... [LINK ...]): one layer of the library as a static archive comm_<name>.
# comm_test(name SOURCES... [LINK ...] [LABELS ...] [PROCESSORS n] [TIMEOUT s]): a GoogleTest program,
#   registered with ctest as one test. The label no-sanitizer keeps it out of sanitizer builds.
# comm_program(name SOURCES... [LINK ...]): a program in build/bin, installed if its name is comm-* or *_perf.
# comm_test_program(name SOURCES... [LINK ...]): a program in build/tests that tests start.
# comm_kernel_image(FATBIN SOURCE): what nvcc makes of a .cu file for COMM_CUDA_CHOSEN, as one file that the
#   driver loads. No CUDA language of CMake, no runtime library. The parts stay in the folder FATBIN.parts.
find_package(Threads REQUIRED)

set(COMM_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Werror)

function(comm_common target)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
  target_compile_options(${target} PRIVATE ${COMM_WARNINGS})
  if(COMM_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${COMM_SANITIZE} -fno-omit-frame-pointer
                                             -fno-sanitize-recover=all)
    # gcc 12 sees std::regex's own state as maybe uninitialized once it is instrumented.
    target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized)
    if(COMM_SANITIZE MATCHES undefined)
      # enum: C callers may pass any number as an enum, and checks.cc refuses those it does not know.
      # vptr: libcomm.so hides its type information, so objects that cross its edge look foreign.
      target_compile_options(${target} PRIVATE -fno-sanitize=enum,vptr)
    endif()
    if(COMM_SANITIZE MATCHES thread)
      # A fence is not modelled by TSan; where we use one, no data depends on it alone.
      target_compile_options(${target} PRIVATE -Wno-tsan)
    endif()
    target_link_options(${target} PRIVATE -fsanitize=${COMM_SANITIZE})
  endif()
endfunction()

function(comm_layer name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  foreach(source ${ARG_UNPARSED_ARGUMENTS})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${source} AND NOT IS_ABSOLUTE ${source})
      message(FATAL_ERROR "comm_${name}: no source ${source} in ${CMAKE_CURRENT_SOURCE_DIR}")
    endif()
  endforeach()
  add_library(comm_${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  comm_common(comm_${name})
  target_link_libraries(comm_${name} PUBLIC ${ARG_LINK} Threads::Threads)
endfunction()

function(comm_kernel_image fatbin source)
  list(GET COMM_CUDA_CHOSEN 0 lowest)
  set(code -gencode arch=compute_${lowest},code=compute_${lowest})
  foreach(architecture ${COMM_CUDA_CHOSEN})
    list(APPEND code -gencode arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  # The same arithmetic as on the host: no fused multiply-add, true divisions, subnormals.
  set(exact -fmad=false -prec-div=true -prec-sqrt=true -ftz=false)
  set(compress "")
  if(COMM_CUDA_VERSION VERSION_GREATER_EQUAL 12.8)
    set(compress --compress-mode=size)
  endif()
  add_custom_command(OUTPUT ${fatbin}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${fatbin}.parts
    COMMAND ${COMM_NVCC} -fatbin -std=c++20 -O3 ${exact} ${code} ${compress} --threads 2
            --keep --keep-dir ${fatbin}.parts -MD -MF ${fatbin}.d -I${PROJECT_SOURCE_DIR}
            -o ${fatbin} ${CMAKE_CURRENT_SOURCE_DIR}/${source}
    DEPENDS ${source}
    DEPFILE ${fatbin}.d
    COMMENT "nvcc ${source} for ${COMM_CUDA_CHOSEN_TEXT}"
    VERBATIM)
endfunction()

function(comm_program name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  foreach(source ${ARG_UNPARSED_ARGUMENTS})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${source} AND NOT IS_ABSOLUTE ${source})
      message(FATAL_ERROR "${name}: no source ${source} in ${CMAKE_CURRENT_SOURCE_DIR}")
    endif()
  endforeach()
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  comm_common(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} Threads::Threads)
  if(name MATCHES "^comm-|_perf$")
    set_property(GLOBAL APPEND PROPERTY COMM_PROGRAMS ${name})
  endif()
endfunction()

function(comm_test_program name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  foreach(source ${ARG_UNPARSED_ARGUMENTS})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${source} AND NOT IS_ABSOLUTE ${source})
      message(FATAL_ERROR "${name}: no source ${source} in ${CMAKE_CURRENT_SOURCE_DIR}")
    endif()
  endforeach()
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  comm_common(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} Threads::Threads)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endfunction()

function(comm_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;PROCESSORS" "LINK;LABELS" ${ARGN})
  if(COMM_SANITIZE AND "no-sanitizer" IN_LIST ARG_LABELS)
    return()
  endif()
  foreach(source ${ARG_UNPARSED_ARGUMENTS})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${source} AND NOT IS_ABSOLUTE ${source})
      message(FATAL_ERROR "${name}: no source ${source} in ${CMAKE_CURRENT_SOURCE_DIR}")
    endif()
  endforeach()
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  comm_common(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gtest_main Threads::Threads)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_TIMEOUT)  # only a test that hangs comes near, on any machine
    set(ARG_TIMEOUT 900)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
  if(ARG_PROCESSORS)
    set_tests_properties(${name} PROPERTIES PROCESSORS ${ARG_PROCESSORS})
  endif()
endfunction()
