/* libcomm: the tuner plug-in ABI, version 1. C11 and C++11.
 *
 * A tuner plug-in decides which algorithm a collective uses. It is a shared library that exports
 *
 *   const commTuner_v1_t commTunerPlugin_v1 = {"my tuner", my_init, my_get_coll_info, my_destroy};
 *
 * and is named by COMM_TUNER_PLUGIN: a path with a slash, or NAME for libcomm-tuner-NAME.so.
 *
 * Who asks, and when.  All ranks of a communicator must decide alike, so only rank 0 loads the
 *   plug-in, once for every communicator that it makes. In that call (commInitRank, commSplit,
 *   commShrink and their relatives) it calls init; then getCollInfo for every collective, from 0
 *   bytes upwards; then destroy; and unloads the library. The answers become a tuning table, which
 *   rank 0 gives to the other ranks. No operation ever runs code of the plug-in, and the plug-in
 *   need not be installed where only other ranks run.
 * Threads.  All calls for one communicator come from one thread, one after the other. Several
 *   communicators may be made by several threads at once: static data needs a lock.
 * Lifetime.  A pointer that the library passes is good until the called function returns, the log
 *   function until destroy returns. Strings are copied.
 * Errors.  A library that cannot be loaded, lacks the symbol or an entry, or whose init fails makes
 *   the communicator's creation fail on all ranks, with a text that says which. A getCollInfo that
 *   fails or answers nonsense is one warning; that collective is left to COMM_TUNER_FILE and the
 * cost model. What destroy returns is ignored but for a warning. What is stronger.  COMM_ALGO,
 * COMM_LL_THRESHOLD and SINGLE_RING_THRESHOLD where the user sets them; then the plug-in; then
 * COMM_TUNER_FILE; then the cost model.
 *
 * Choosing another algorithm for a reduction may change the order of additions and so the last bits
 * of a result. They stay equal on all ranks, and from run to run as long as the answers do.
 */
#ifndef COMM_TUNER_H_
#define COMM_TUNER_H_

#include <comm.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  commTunerAllReduce = 0,
  commTunerReduceScatter = 1,
  commTunerAllGather = 2,
  commTunerBroadcast = 3,
  commTunerReduce = 4,
  commTunerAlltoAll = 5,
  commTunerGather = 6,
  commTunerScatter = 7,
  commTunerAllGatherv = 8,
  commTunerReduceScatterv = 9,
  commTunerAlltoAllv = 10,
  commTunerBarrier = 11,
  commTunerNumCollectives = 12
} commTunerCollective_t;

/* The algorithms of COMM_ALGO, and windows: through shared memory, piece by piece (of all-reduces
 * that is twoshot). */
typedef enum {
  commTunerOneshot = 0,
  commTunerTwoshot = 1,
  commTunerWindows = 2,
  commTunerRing = 3,
  commTunerHd = 4,
  commTunerRd = 5,
  commTunerTree = 6,
  commTunerStar = 7,
  commTunerPairwise = 8,
  commTunerBruck = 9,
  commTunerBinomial = 10,
  commTunerHierarchical = 11,
  commTunerNumAlgorithms = 12
} commTunerAlgorithm_t;

/* What carries the bytes. */
typedef enum {
  commTunerMemory = 0,  /* all ranks share memory */
  commTunerSockets = 1, /* one host, but sockets between some of the ranks */
  commTunerNetwork = 2  /* several hosts */
} commTunerPath_t;

/* The cost of an algorithm that cannot do the call. */
#define COMM_TUNER_IMPOSSIBLE -1.0f

/* One line of text for the log, without a line end: a warning, or a line that COMM_DEBUG=INFO shows
 * for the subsystem TUNING. Longer texts are cut at 1000 bytes. */
typedef enum { commTunerLogWarn = 0, commTunerLogInfo = 1 } commTunerLogLevel_t;
typedef void (*commTunerLog_t)(commTunerLogLevel_t level, const char* text);

/* The communicator that is made. Later versions of the library may append fields. */
typedef struct {
  size_t size;           /* of this struct in the library that calls */
  int nranks;            /* at least 2: a communicator of one rank asks nobody */
  int nhosts;            /* hosts that they are on */
  int maxRanksPerHost;   /* of the host that has most */
  commTunerPath_t path;  /* the slowest that is needed */
  float maxRanksPerCore; /* of the host where they are most crowded; 1 where each has its own */
  int maxLanes;          /* most that commTunerCollInfo_t.lanes may be; at least 1 */
} commTunerGroup_t;

/* One question and its answer. The library fills in every field; the plug-in changes what it wants
 * changed and leaves the rest. Nothing changed: no opinion, COMM_TUNER_FILE or the model decides.
 */
typedef struct {
  size_t size;                      /* of this struct in the library that calls */
  commTunerCollective_t collective; /* not to be changed */
  /* Bytes of one block: the call's count times the size of its type; in v-variants of the largest
   * block, in a barrier 1. Not to be changed. */
  size_t bytes;
  /* The answer holds for blocks from `bytes` to this many. In: up to the next power of two, and no
   * further than the same algorithms are possible. The plug-in may lower it, to `bytes` at least.
   */
  size_t through;
  /* Microseconds by the cost model at `bytes`, by commTunerAlgorithm_t; COMM_TUNER_IMPOSSIBLE where
   * an algorithm cannot do it, whatever is written there. The library uses the cheapest: to choose
   * an algorithm, make it 0. A value may be any number but NaN; below 0 means "not this one". */
  float cost[commTunerNumAlgorithms];
  int lanes;     /* in: 0, the library decides. Out: 1 to maxLanes, for algorithms over channels */
  size_t window; /* in: 0, the library decides. Out: bytes per window of twoshot and windows in
                    shared memory, 4 KiB to 64 MiB */
} commTunerCollInfo_t;

typedef struct {
  /* For messages; not NULL, not empty. */
  const char* name;
  /* Begins for one communicator. *context, NULL at first, is handed to the other two. `group` and
   * `log` are not NULL. A result other than commSuccess ends the creation of the communicator;
   * destroy is then not called. */
  commResult_t (*init)(void** context, const commTunerGroup_t* group, commTunerLog_t log);
  /* Answers one question; see commTunerCollInfo_t. At most 512 are asked per collective. */
  commResult_t (*getCollInfo)(void* context, commTunerCollInfo_t* info);
  /* Ends what init began. Threads of the plug-in must have ended when it returns. */
  commResult_t (*destroy)(void* context);
} commTuner_v1_t;

/* What a plug-in defines. */
extern COMM_API const commTuner_v1_t commTunerPlugin_v1;
#define COMM_TUNER_PLUGIN_SYMBOL "commTunerPlugin_v1"

#ifdef __cplusplus
}
#endif

#endif /* COMM_TUNER_H_ */
