#include "src/api/check.h"

#include <cstdint>
#include <cstring>

#include "src/device/memory.h"

namespace libcomm {

Result<DataType> check_type(commDataType_t type) {
  const int value = static_cast<int>(type);
  if (value < 0 || value >= kNumDataTypes)
    return error(Code::kInvalidArgument, "datatype {} is not a commDataType_t (0 to {})", value,
                 kNumDataTypes - 1);
  return static_cast<DataType>(value);
}

Status check_op(commRedOp_t op, const Communicator& communicator, Operation* operation) {
  const int value = static_cast<int>(op);
  switch (value) {
    case commSum:
      operation->op = ReduceOp::kSum;
      break;
    case commProd:
      operation->op = ReduceOp::kProd;
      break;
    case commMax:
      operation->op = ReduceOp::kMax;
      break;
    case commMin:
      operation->op = ReduceOp::kMin;
      break;
    case commAvg:
      operation->op = ReduceOp::kSum;
      operation->average = true;
      break;
    case commBand:
      operation->op = ReduceOp::kBand;
      break;
    case commBor:
      operation->op = ReduceOp::kBor;
      break;
    case commBxor:
      operation->op = ReduceOp::kBxor;
      break;
    default: {
      const PreMulOp* made = communicator.find_op(value - static_cast<int>(commNumOps));
      if (made == nullptr)
        return error(Code::kInvalidArgument,
                     "op {} is neither a commRedOp_t nor an operator made by "
                     "commRedOpCreatePreMulSum on this communicator",
                     value);
      if (made->type != operation->type)
        return error(Code::kInvalidArgument, "op {} was made for {}, but the call is for {}", value,
                     name_of(made->type), name_of(operation->type));
      operation->op = ReduceOp::kSum;
      operation->premultiply = true;
      operation->scalar = made->scalar;
      if (made->deferred == nullptr) break;
      if (is_known_to_cuda(made->deferred))
        operation->gpu_scalar = made->deferred;
      else
        std::memcpy(operation->scalar.data(), made->deferred, size_of(made->type));
    }
  }
  if (!is_defined(operation->op, operation->type))
    return error(Code::kInvalidArgument, "op {} works on integers only, but the type is {}",
                 name_of(operation->op), name_of(operation->type));
  return Status::ok();
}

bool is_known_to_cuda(const void* address) {
  const cuda::Driver* driver = cuda::Driver::find();
  return driver != nullptr && cuda::place_of(*driver, address).known;
}

Status check_root(int root, const Communicator& communicator, const char* name) {
  if (root < 0 || root >= communicator.nranks())
    return error(Code::kInvalidArgument, "{} {} is not a rank of this communicator (0 to {})", name,
                 root, communicator.nranks() - 1);
  return Status::ok();
}

Status check_count(size_t count, size_t blocks, DataType type, const char* name) {
  size_t bytes = 0;  // a division would cost more than the rest of a small call's checks
  if (__builtin_mul_overflow(count, size_of(type) * (blocks == 0 ? 1 : blocks), &bytes) ||
      bytes > static_cast<size_t>(PTRDIFF_MAX))
    return error(Code::kInvalidArgument, "{} {} of {} in {} blocks is more than can be addressed",
                 name, count, name_of(type), blocks);
  return Status::ok();
}

Status check_pointer(const void* pointer, const char* name) {
  if (pointer == nullptr)
    return error(Code::kInvalidArgument, "{} is NULL, but the count is not 0", name);
  return Status::ok();
}

Status check_disjoint(const void* a, size_t a_bytes, const void* b, size_t b_bytes,
                      const char* remedy) {
  const auto a_begin = reinterpret_cast<uintptr_t>(a);
  const auto b_begin = reinterpret_cast<uintptr_t>(b);
  if (a_bytes == 0 || b_bytes == 0 || a_begin + a_bytes <= b_begin || b_begin + b_bytes <= a_begin)
    return Status::ok();
  return error(Code::kInvalidUsage,
               "sendbuff [{}, +{} bytes) and recvbuff [{}, +{} bytes) overlap; {}", a, a_bytes, b,
               b_bytes, remedy);
}

}  // namespace libcomm
