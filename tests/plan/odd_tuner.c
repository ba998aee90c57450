/* A tuner plug-in that misbehaves as TESTS_ODD_TUNER says. */
#include <comm/tuner.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int is(const char* what) {
  const char* wanted = getenv("TESTS_ODD_TUNER");
  return wanted != NULL && strcmp(wanted, what) == 0;
}

static commResult_t init(void** context, const commTunerGroup_t* group, commTunerLog_t log) {
  (void)group;
  *context = NULL;
  if (is("init")) {
    log(commTunerLogWarn, "no licence for today");
    return commInternalError;
  }
  return commSuccess;
}

static commResult_t get_coll_info(void* context, commTunerCollInfo_t* info) {
  int i;
  (void)context;
  /* Broadcasts are answered well. */
  if (info->collective == commTunerBroadcast) info->cost[commTunerTree] = 0;
  if (info->collective != commTunerAllReduce) return commSuccess;
  info->cost[commTunerRing] = 0;
  if (info->bytes < 100) return commSuccess;
  if (is("error")) return commSystemError;
  if (is("nan")) info->cost[commTunerHd] = (float)NAN;
  if (is("lanes")) info->lanes = 1000;
  if (is("window")) info->window = 1;
  if (is("through")) info->through = info->bytes - 1;
  if (is("endless")) info->through = info->bytes;
  if (is("none"))
    for (i = 0; i < commTunerNumAlgorithms; ++i) info->cost[i] = -1;
  return commSuccess;
}

static commResult_t destroy(void* context) {
  (void)context;
  return is("destroy") ? commInternalError : commSuccess;
}

#ifndef TESTS_TUNER_NAME
#define TESTS_TUNER_NAME "odd"
#endif
const commTuner_v1_t commTunerPlugin_v1 = {TESTS_TUNER_NAME, init, get_coll_info, destroy};
