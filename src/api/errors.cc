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
  t_last_error = status.to_string();
  if (handle != nullptr) handle->set_last_error(t_last_error);
  log_warn("{}", t_last_error);
  return static_cast<commResult_t>(status.code());
}

}  // namespace libcomm
