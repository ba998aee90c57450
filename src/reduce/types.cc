#include "src/reduce/types.h"

namespace libcomm {

namespace {

struct TypeRow {
  const char* name;
  bool integer;
};

// In the order of DataType's values.
constexpr TypeRow kTypes[kNumDataTypes] = {
    {"int8", true},     {"uint8", true},     {"int32", true},       {"uint32", true},
    {"int64", true},    {"uint64", true},    {"float16", false},    {"float32", false},
    {"float64", false}, {"bfloat16", false}, {"float8e4m3", false}, {"float8e5m2", false},
};

constexpr const char* kOps[kNumReduceOps] = {"sum", "prod", "max", "min", "band", "bor", "bxor"};

constexpr const TypeRow& row(DataType type) { return kTypes[static_cast<size_t>(type)]; }

}  // namespace

const char* name_of(DataType type) { return row(type).name; }
const char* name_of(ReduceOp op) { return kOps[static_cast<size_t>(op)]; }
bool is_integer(DataType type) { return row(type).integer; }
bool is_defined(ReduceOp op, DataType type) { return op < ReduceOp::kBand || is_integer(type); }

}  // namespace libcomm
