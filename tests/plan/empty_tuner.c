/* A tuner plug-in without its functions. */
#include <comm/tuner.h>

const commTuner_v1_t commTunerPlugin_v1 = {"empty", NULL, NULL, NULL};
