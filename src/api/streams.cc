#include "src/api/streams.h"

#include <mutex>
#include <unordered_map>

#include "src/api/errors.h"

namespace libcomm {
namespace {

// Live streams by handle. Never destroyed, so that calls at process exit find it.
struct StreamTable {
  std::mutex mutex;
  std::unordered_map<cudaStream_t, std::shared_ptr<HostStream>> streams;
};

StreamTable& table() {
  static StreamTable* instance = new StreamTable;
  return *instance;
}

}  // namespace

Result<std::shared_ptr<HostStream>> find_stream(cudaStream_t stream) {
  if (stream == nullptr) return std::shared_ptr<HostStream>();
  StreamTable& t = table();
  std::lock_guard lock(t.mutex);
  const auto it = t.streams.find(stream);
  if (it == t.streams.end())
    return error(
        Code::kInvalidArgument,
        "stream {} is neither NULL nor a live stream from commHostStreamCreate; this library "
        "works on host memory only",
        static_cast<const void*>(stream));
  return it->second;
}

namespace {

// The stream must be there: NULL is no stream to wait for.
Result<std::shared_ptr<HostStream>> need_stream(cudaStream_t stream) {
  if (stream == nullptr) return Status(Code::kInvalidArgument, "the stream is NULL");
  return find_stream(stream);
}

}  // namespace
}  // namespace libcomm

using namespace libcomm;  // NOLINT: the C API's definitions live in the global namespace

extern "C" {

commResult_t commHostStreamCreate(cudaStream_t* stream) {
  return guarded(nullptr, [&]() -> Status {
    if (stream == nullptr) return Status(Code::kInvalidArgument, "stream is NULL");
    auto made = std::make_shared<HostStream>();
    *stream = reinterpret_cast<cudaStream_t>(made.get());
    StreamTable& t = table();
    std::lock_guard lock(t.mutex);
    t.streams[*stream] = std::move(made);
    return Status::ok();
  });
}

commResult_t commHostStreamQuery(cudaStream_t stream) {
  return guarded(nullptr, [&]() -> Status {
    COMM_ASSIGN(const auto found, need_stream(stream));
    return found->query();
  });
}

commResult_t commHostStreamSynchronize(cudaStream_t stream) {
  return guarded(nullptr, [&]() -> Status {
    COMM_ASSIGN(const auto found, need_stream(stream));
    return found->synchronize();
  });
}

commResult_t commHostStreamDestroy(cudaStream_t stream) {
  return guarded(nullptr, [&]() -> Status {
    COMM_ASSIGN(const auto found, need_stream(stream));
    Status status = found->synchronize();
    StreamTable& t = table();
    std::lock_guard lock(t.mutex);
    t.streams.erase(stream);
    return status;
  });
}

}  // extern "C"
