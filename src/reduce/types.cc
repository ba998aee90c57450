#include "src/reduce/types.h"

namespace libcomm {

namespace {

struct TypeRow {
  size_t size;
  const char* name;
  bool integer;
};

// In the order of DataType's values.
constexpr TypeRow kTypes[kNumDataTypes] = {
    {1, "int8", true},      {1, "uint8", true},       {4, "int32", true},
    {4, "uint32", true},    {8, "int64", true},       {8, "uint64", true},
    {2, "float16", false},  {4, "float32", false},    {8, "float64", false},
    {2, "bfloat16", false}, {1, "float8e4m3", false}, {1, "float8e5m2", false},
};

constexpr const char* kOps[kNumReduceOps] = {"sum", "prod", "max", "min", "band", "bor", "bxor"};

constexpr const TypeRow& row(DataType type) { return kTypes[static_cast<size_t>(type)]; }

}  // namespace

size_t size_of(DataType type) { return row(type).size; }
const char* name_of(DataType type) { return row(type).name; }
const char* name_of(ReduceOp op) { return kOps[static_cast<size_t>(op)]; }
bool is_integer(DataType type) { return row(type).integer; }
bool is_defined(ReduceOp op, DataType type) { return op < ReduceOp::kBand || is_integer(type); }

}  // namespace libcomm
