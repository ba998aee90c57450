#include "src/api/streams.h"

#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "src/api/errors.h"
#include "src/base/fd.h"
#include "src/base/fork_mutex.h"

namespace libcomm {
namespace {

using Streams = std::unordered_map<cudaStream_t, std::shared_ptr<HostStream>>;

// Live streams by handle. Never destroyed, so that calls at process exit find it.
class StreamTable {
 public:
  // Made while the library is loaded: a fork must not find it half made.
  static StreamTable& instance() {
    static StreamTable* const table = new StreamTable;
    return *table;
  }

  ForkMutex mutex;
  // To be called with the mutex.
  Streams& streams() {
    if (generation_ != fork_generation()) {
      // A forked child: these are the parent's, their mutexes may be locked for ever.
      of_parents_.push_back(std::exchange(streams_, {}));
      generation_ = fork_generation();
    }
    return streams_;
  }

 private:
  Streams streams_;
  std::vector<Streams> of_parents_;  // kept, for want of a way to end them
  unsigned generation_ = fork_generation();
};

[[maybe_unused]] const StreamTable& g_made_early = StreamTable::instance();

}  // namespace

std::shared_ptr<HostStream> find_host_stream(cudaStream_t stream) {
  StreamTable& table = StreamTable::instance();
  std::lock_guard lock(table.mutex);
  const Streams& streams = table.streams();
  const auto it = streams.find(stream);
  return it == streams.end() ? nullptr : it->second;
}

Status unknown_stream(cudaStream_t stream) {
  return error(Code::kInvalidArgument,
               "stream {} is neither NULL nor a live stream from commHostStreamCreate, and this "
               "process uses no GPU: it has not loaded CUDA's driver (libcuda.so.1)",
               static_cast<const void*>(stream));
}

namespace {

// The stream must be there: NULL is no stream to wait for.
Result<std::shared_ptr<HostStream>> need_stream(cudaStream_t stream) {
  if (stream == nullptr) return Status(Code::kInvalidArgument, "the stream is NULL");
  auto found = find_host_stream(stream);
  if (!found)
    return error(Code::kInvalidArgument, "stream {} is no live stream from commHostStreamCreate",
                 static_cast<const void*>(stream));
  return found;
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
    StreamTable& table = StreamTable::instance();
    std::lock_guard lock(table.mutex);
    table.streams()[*stream] = std::move(made);
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
    StreamTable& table = StreamTable::instance();
    std::lock_guard lock(table.mutex);
    table.streams().erase(stream);
    return status;
  });
}

}  // extern "C"
