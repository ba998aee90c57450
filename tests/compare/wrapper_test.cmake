# An MPI compiler wrapper that cannot compile, as Debian's mpich brings one without libmpich-dev, leaves
# out its own driver and lets everything else be configured. -DSOURCE= -DFOLDER= -DGENERATOR=
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${FOLDER} -G ${GENERATOR} -DCOMM_MPICH_CXX=/bin/false
          -DCOMM_CUDA=OFF -DCOMM_BUILD_TESTS=OFF
  RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
file(REMOVE_RECURSE ${FOLDER})
if(failed)
  message(FATAL_ERROR "configuring ended with ${failed}: ${said}")
endif()
if(NOT said MATCHES "no mpich_driver: /bin/false cannot compile an MPI program")
  message(FATAL_ERROR "the wrapper was taken: ${said}")
endif()
