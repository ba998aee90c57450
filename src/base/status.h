// Status and Result: how every function inside the library says that it failed.
//
// An OK status is a null pointer, so returning one costs nothing. A failure carries the C API's
// result code, one line of text that names the value and the remedy, and, where it matters, which
// rank noticed, which peer is to blame and which operation of the communicator it was.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace libcomm {

// Values equal commResult_t's.
enum class Code : int {
  kOk = 0,
  kUnhandledCuda = 1,
  kSystem = 2,
  kInternal = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemote = 6,
  kInProgress = 7,
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message);

  static Status ok() { return {}; }

  bool is_ok() const { return detail_ == nullptr; }
  explicit operator bool() const { return is_ok(); }
  Code code() const { return detail_ ? detail_->code : Code::kOk; }
  // The bare text; empty when OK.
  const std::string& message() const;
  int rank() const { return detail_ ? detail_->rank : -1; }
  int peer() const { return detail_ ? detail_->peer : -1; }
  uint64_t op() const { return detail_ ? detail_->op : 0; }

  // Attribution; a value set earlier (closer to the cause) stays. No effect on an OK status.
  Status&& at_rank(int rank) &&;
  Status&& with_peer(int peer) &&;
  Status&& in_op(uint64_t op) &&;
  // Puts "what: " in front of the text.
  Status&& context(std::string_view what) &&;

  // "rank 3: operation 17: peer 5: text", with the parts that are known.
  std::string to_string() const;

 private:
  struct Detail {
    Code code = Code::kInternal;
    std::string message;
    int rank = -1;
    int peer = -1;
    uint64_t op = 0;
  };
  template <typename Change>
  void change(Change&& apply);
  std::shared_ptr<const Detail> detail_;  // shared by copies, which other threads may hold
};

template <typename... Args>
Status error(Code code, fmt::format_string<Args...> format, Args&&... args) {
  return Status(code, fmt::format(format, std::forward<Args>(args)...));
}

// kSystem with ": strerror(err)" after the text.
Status system_error(int err, std::string what);

// A value or the reason why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit on purpose
  // Of a failure; an OK status is a mistake of the caller's and becomes kInternal.
  Result(Status status) : status_(std::move(status)) {  // NOLINT: implicit on purpose
    if (status_) status_ = Status(Code::kInternal, "a result without a value");
  }
  bool is_ok() const { return value_.has_value(); }
  explicit operator bool() const { return is_ok(); }
  const Status& status() const& { return status_; }
  Status status() && { return std::move(status_); }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return *std::move(value_); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace libcomm

// Returns the status from the enclosing function when it is a failure.
#define COMM_TRY(expression)                                                  \
  do {                                                                        \
    if (::libcomm::Status comm_try_status_ = (expression); !comm_try_status_) \
      return comm_try_status_;                                                \
  } while (false)

#define COMM_CONCAT_INNER_(a, b) a##b
#define COMM_CONCAT_(a, b) COMM_CONCAT_INNER_(a, b)
// COMM_ASSIGN(auto x, f()): x is f()'s value, or its failure is returned.
#define COMM_ASSIGN(target, expression)                              \
  auto COMM_CONCAT_(comm_result_, __LINE__) = (expression);          \
  if (!COMM_CONCAT_(comm_result_, __LINE__))                         \
    return std::move(COMM_CONCAT_(comm_result_, __LINE__)).status(); \
  target = *std::move(COMM_CONCAT_(comm_result_, __LINE__))
