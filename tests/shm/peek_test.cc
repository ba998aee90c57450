// Reading another process's memory: what can be read, and what the error says of the rest.
#include "transports/shm/peek.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

namespace libcomm::shm {
namespace {

// Where a mapping of this name begins in this process; 0: there is none.
uint64_t mapping(const char* name) {
  std::ifstream maps("/proc/self/maps");
  uint64_t begin = 0;
  for (std::string line; std::getline(maps, line);)
    if (line.ends_with(name) && std::sscanf(line.c_str(), "%" SCNx64, &begin) == 1) return begin;
  return 0;
}

TEST(Peek, ReadsPlainMemory) {
  const char source[] = "what is here";
  char copy[sizeof source] = "";
  ASSERT_TRUE(
      read_process(::getpid(), copy, reinterpret_cast<uint64_t>(source), sizeof source).is_ok());
  EXPECT_STREQ(copy, source);
}

// The kernel's clock pages are mapped as a device's memory is (VM_IO, VM_PFNMAP).
TEST(Peek, OfADevicesMemoryNamesTheRemedy) {
  const uint64_t address = mapping("[vvar]");
  if (address == 0) GTEST_SKIP() << "this kernel maps no [vvar]";
  char byte = 0;
  const Status status = read_process(::getpid(), &byte, address, 1);
  EXPECT_EQ(status.code(), Code::kSystem);
  EXPECT_NE(status.message().find("COMM_CMA_DISABLE=1 on all ranks"), std::string::npos)
      << status.message();
  EXPECT_NE(status.message().find("Bad address"), std::string::npos) << status.message();
}

TEST(Peek, OfAProcessThatIsGoneSaysSo) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  char byte = 0;
  const Status status = read_process(child, &byte, reinterpret_cast<uint64_t>(&byte), 1);
  EXPECT_EQ(status.code(), Code::kRemote);
  EXPECT_NE(status.message().find("is gone"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace libcomm::shm
