# comm_layer(name SOURCES... [LINK ...]): one layer of the library as a static archive comm_<name>.
# comm_test(name SOURCES... [LINK ...] [LABELS ...] [PROCESSORS n] [TIMEOUT s]): a GoogleTest program,
#   registered with ctest as one test.
# comm_program(name SOURCES... [LINK ...]): an installed program in build/bin.
find_package(Threads REQUIRED)

set(COMM_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Werror)

function(comm_common target)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
  target_compile_options(${target} PRIVATE ${COMM_WARNINGS})
  if(COMM_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${COMM_SANITIZE} -fno-omit-frame-pointer
                                             -fno-sanitize-recover=all)
    target_link_options(${target} PRIVATE -fsanitize=${COMM_SANITIZE})
  endif()
endfunction()

function(comm_layer name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_library(comm_${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  comm_common(comm_${name})
  target_link_libraries(comm_${name} PUBLIC ${ARG_LINK} Threads::Threads)
endfunction()

function(comm_program name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  comm_common(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} Threads::Threads)
endfunction()

function(comm_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;PROCESSORS" "LINK;LABELS" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  comm_common(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gtest_main Threads::Threads)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
  if(ARG_PROCESSORS)
    set_tests_properties(${name} PROPERTIES PROCESSORS ${ARG_PROCESSORS})
  endif()
endfunction()
