// Groups: what a thread has gathered between commGroupStart and commGroupEnd.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "comm.h"
#include "src/api/creations.h"
#include "src/api/errors.h"
#include "src/api/handle.h"
#include "src/api/placement.h"

namespace libcomm {

// How many commGroupStart of this thread are open. Every call asks: hence no function behind it,
// and the fast access that a few bytes of a library may have even when it is opened at run time.
extern thread_local constinit int t_group_depth __attribute__((tls_model("initial-exec")));
inline bool in_group() { return t_group_depth > 0; }
// The first failure of a call inside the group, which commGroupEnd returns.
void note_group_failure(const Status& status);
// Whether the open group keeps this communicator in use: it has an operation of it.
bool group_uses(const comm* handle);
// Adds an operation of a checked communicator.
// The failure of its use when another thread is ending it.
Status add_to_group(comm* handle, Operation&& operation, Placement&& placement);
// Adds a message to a group that has nothing but such messages of this communicator: they are
// carried out by the thread that ends it, without an Operation each. The caller fills it in at
// once. Null: it must be added as any other call. `type` is the caller's.
MessageCall* add_quick_message(comm* handle, const void* buffer, size_t count, int type, int peer);
// Adds the creation of a communicator, or another set-up call; it is skipped instead of run when
// the group has failed.
void add_creation(Creation creation);

// Runs the body of a call that groups gather: when it fails inside one, the group's end tells.
template <typename Body>
commResult_t gathered(Body&& body) {
  const commResult_t result = body();
  if (in_group() && result != commSuccess && result != commInProgress)
    note_group_failure(Status(static_cast<Code>(result), last_error_of_thread()));
  return result;
}

// Has the end of this thread's group call `end` for this handle, after the group's work and also
// when that failed.
void end_with_group(comm_t handle, Status (*end)(comm_t));

// Drops what this thread's group holds of a communicator that is being aborted.
void forget_in_group(comm* handle);

Status group_start();
Status group_end();
// Forgets the group's work and adds up its estimated microseconds.
Status group_simulate_end(double* microseconds);

}  // namespace libcomm
