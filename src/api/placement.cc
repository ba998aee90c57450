#include "src/api/placement.h"

#include <algorithm>
#include <cstring>

#include "src/api/streams.h"
#include "src/device/memory.h"
#include "src/device/scopes.h"
#include "src/execute/staging.h"

namespace libcomm {
namespace {

using cuda::Driver;
using cuda::MemoryPlace;

struct Buffer {
  const char* name;
  const void* address;
  size_t bytes;
  MemoryPlace place{};

  bool on_gpu() const { return bytes > 0 && place.kind != MemoryPlace::Kind::kHost; }
};

Status look(const Driver& driver, Buffer* buffer) {
  if (buffer->bytes == 0) return Status::ok();
  buffer->place = place_of(driver, buffer->address);
  if (buffer->place.known || cuda::can_read(buffer->address)) return Status::ok();
  return error(Code::kInvalidArgument,
               "{} {} is neither memory of this process nor of a GPU that CUDA knows; has it been "
               "freed?",
               buffer->name, buffer->address);
}

const char* kind_of(const Buffer& buffer) { return buffer.on_gpu() ? "GPU memory" : "host memory"; }

// The context in which the call runs: the stream's; for the default stream the current one, or that
// of the memory where this is another GPU's or none is current.
Result<GpuPlace> gpu_of(const Driver& driver, cuda::CUstream stream, const Buffer* memory) {
  GpuPlace gpu;
  if (stream != nullptr) {
    COMM_TRY(driver.check(driver.stream_context(stream, &gpu.context),
                          "looking for the GPU of the stream"));
  } else {
    const int wanted = memory != nullptr ? memory->place.ordinal : -1;
    gpu.context = cuda::current_context(driver);
    const bool has_current =
        gpu.context != nullptr && driver.context_device(&gpu.ordinal) == cuda::kSuccess;
    if (!has_current && memory == nullptr)
      return error(Code::kInvalidUsage,
                   "no GPU is current in this thread; call cudaSetDevice before the call");
    if (!has_current || (wanted >= 0 && wanted != gpu.ordinal))
      COMM_TRY(driver.check(cuda::find_context(driver, memory->address, &gpu.context),
                            "finding the GPU of a buffer"));
  }
  const cuda::ContextScope scope(driver, gpu.context);
  COMM_TRY(scope.status());
  COMM_TRY(driver.check(driver.context_device(&gpu.ordinal), "cuCtxGetDevice"));
  return gpu;
}

// Of a call that is in no stream's order.
void read_pinned_scalar(const Driver& driver, Operation* operation) {
  const void* scalar = operation->gpu_scalar;
  if (scalar == nullptr || place_of(driver, scalar).kind != MemoryPlace::Kind::kHost) return;
  std::memcpy(operation->scalar.data(), scalar, size_of(operation->type));
  operation->gpu_scalar = nullptr;
}

}  // namespace

Result<Placement> place(const Communicator& communicator, Operation* operation,
                        cudaStream_t stream) {
  Placement placement;
  const Driver* driver = Driver::find();
  if (stream != nullptr) placement.host_stream = find_host_stream(stream);
  if (driver == nullptr) {
    if (stream != nullptr && !placement.host_stream) return unknown_stream(stream);
    return placement;
  }
  const Reach reach = reach_of(*operation, communicator.rank(), communicator.nranks());
  // All ranks must think the same of an all-to-all-v, those too that have nothing to send.
  const bool look_anyway = operation->collective == Collective::kAllToAllV;
  const auto bytes = [&](const void* address, size_t reached) {
    return look_anyway && address != nullptr ? std::max<size_t>(reached, 1) : reached;
  };
  Buffer in{"sendbuff", operation->in, bytes(operation->in, reach.in)};
  Buffer out{"recvbuff", operation->out, bytes(operation->out, reach.out)};
  COMM_TRY(look(*driver, &in));
  COMM_TRY(look(*driver, &out));
  if (in.bytes > 0 && out.bytes > 0 && in.on_gpu() != out.on_gpu())
    return error(Code::kInvalidArgument,
                 "sendbuff {} is {}, recvbuff {} is {}; both must be of one kind", in.address,
                 kind_of(in), out.address, kind_of(out));
  operation->on_gpu = in.on_gpu() || out.on_gpu();
  const bool on_cuda_stream = stream != nullptr && !placement.host_stream;
  if (!operation->on_gpu && !on_cuda_stream) read_pinned_scalar(*driver, operation);
  placement.on_cuda = operation->on_gpu || operation->gpu_scalar != nullptr || on_cuda_stream;
  if (!placement.on_cuda) return placement;
  if (placement.host_stream)
    return error(Code::kInvalidArgument,
                 "stream {} is one of commHostStreamCreate, which is for host memory; GPU memory "
                 "needs a CUDA stream",
                 static_cast<const void*>(stream));
  placement.cuda_stream = stream;
  const Buffer* memory = in.on_gpu() ? &in : out.on_gpu() ? &out : nullptr;
  COMM_ASSIGN(placement.gpu, gpu_of(*driver, stream, memory));
  for (const Buffer* buffer : {&in, &out})
    if (buffer->on_gpu() && buffer->place.kind == MemoryPlace::Kind::kGpu &&
        buffer->place.ordinal != placement.gpu.ordinal)
      return error(Code::kInvalidArgument, "{} {} is memory of GPU {}, but the call runs on GPU {}",
                   buffer->name, buffer->address, buffer->place.ordinal, placement.gpu.ordinal);
  return placement;
}

}  // namespace libcomm
