#include "tests/doubles/environment.h"

#include <unistd.h>

#include <cstdlib>
#include <vector>

namespace libcomm::test {
namespace {

void unset_all() {
  std::vector<std::string> names;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (text.starts_with("RDMA_DOUBLE_")) names.push_back(text.substr(0, text.find('=')));
  }
  for (const std::string& name : names) ::unsetenv(name.c_str());
}

}  // namespace

DoubleEnvironment::DoubleEnvironment() {
  unset_all();
  static int count = 0;
  set("FABRIC", "test" + std::to_string(::getpid()) + "-" + std::to_string(++count));
}

DoubleEnvironment::~DoubleEnvironment() { unset_all(); }

void DoubleEnvironment::set(const std::string& name, const std::string& value) {
  ::setenv(("RDMA_DOUBLE_" + name).c_str(), value.c_str(), 1);
}

}  // namespace libcomm::test
