/* A tuner plug-in whose name has several lines, and more characters than anybody prints. */
#define TESTS_TUNER_NAME                                                    \
  "two\nlines\tand a name that goes on and on and on and on and on and on " \
  "and on and on and on"
#include "odd_tuner.c"
