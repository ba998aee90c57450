// Errors at the API's edge: a Status becomes a result code, a log line, and the text that
// commGetLastError returns.
#pragma once

#include "comm.h"
#include "src/base/status.h"

namespace libcomm {

// Remembers the text for the calling thread (and the communicator, if given) and logs it once.
// Throws nothing.
commResult_t report(const Status& status, struct comm* handle = nullptr);
// As report() of what was thrown; to be called in a catch clause.
commResult_t report_exception(struct comm* handle = nullptr);

// The calling thread's last error, or "".
const char* last_error_of_thread();
// Makes `text` the calling thread's, so that the pointer stays good until its next call.
const char* keep_for_thread(std::string text);

// Runs the body of an API call: no exception leaves the library.
template <typename Body>
commResult_t guarded(struct comm* handle, Body&& body) {
  try {
    const Status status = body();
    return status.is_ok() ? commSuccess : report(status, handle);
  } catch (const std::exception&) {
    return report_exception(handle);
  }
}

}  // namespace libcomm
