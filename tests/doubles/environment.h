// The environment of the double for one test: RDMA_DOUBLE_ variables are unset before and after,
// and the fabric is the test's own.
#pragma once

#include <string>

namespace libcomm::test {

class DoubleEnvironment {
 public:
  DoubleEnvironment();
  ~DoubleEnvironment();
  DoubleEnvironment(const DoubleEnvironment&) = delete;
  DoubleEnvironment& operator=(const DoubleEnvironment&) = delete;

  // set("MTU", "1024") sets RDMA_DOUBLE_MTU.
  void set(const std::string& name, const std::string& value);
};

}  // namespace libcomm::test
