#include "src/api/errors.h"

#include "src/api/handle.h"
#include "src/base/log.h"

namespace libcomm {
namespace {

thread_local std::string t_last_error;
thread_local std::string t_returned;

}  // namespace

const char* last_error_of_thread() { return t_last_error.c_str(); }

const char* keep_for_thread(std::string text) {
  t_returned = std::move(text);
  return t_returned.c_str();
}

commResult_t report(const Status& status, comm* handle) {
  if (status.is_ok()) return commSuccess;
  if (status.code() == Code::kInProgress) return commInProgress;
  try {
    t_last_error = status.to_string();
    if (handle != nullptr && !handle->name.empty())
      t_last_error.insert(0, fmt::format("communicator {}: ", handle->name));
    if (handle != nullptr) handle->set_last_error(t_last_error);
    log_warn("{}", t_last_error);
  } catch (const std::exception&) {  // out of memory: the code has to do
    t_last_error.clear();
  }
  return static_cast<commResult_t>(status.code());
}

commResult_t report_exception(comm* handle) {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    try {
      return report(Status(Code::kSystem, "out of memory"), handle);
    } catch (const std::exception&) {
      return commSystemError;
    }
  } catch (const std::exception& e) {
    try {
      return report(error(Code::kInternal, "unexpected failure: {}; please report it", e.what()),
                    handle);
    } catch (const std::exception&) {
      return commInternalError;
    }
  }
}

}  // namespace libcomm
