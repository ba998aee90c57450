#include "tests/doubles/ibverbs/rules.h"

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "tests/doubles/ibverbs/config.h"

namespace rdma_double {
namespace {

std::string formatted(const char* format, va_list arguments) {
  char line[512];
  std::vsnprintf(line, sizeof(line), format, arguments);
  return line;
}

[[noreturn]] void end(const std::string& what) {
  std::fprintf(stderr, "rdma double: %s\n", what.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace

std::string text(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::string line = formatted(format, arguments);
  va_end(arguments);
  return line;
}

void fatal(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  end(formatted(format, arguments));
}

int violation(int code, const char* format, ...) {
  if (config().strict) {
    va_list arguments;
    va_start(arguments, format);
    end(formatted(format, arguments));
  }
  return refuse(code);
}

int refuse(int code) {
  errno = code;
  return code;
}

}  // namespace rdma_double
