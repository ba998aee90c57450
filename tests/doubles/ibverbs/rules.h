// How the double speaks about broken rules: programming errors end the process with a sentence that
// names the object and the rule. RDMA_DOUBLE_STRICT=0 turns those that the real library answers
// with an error code into that code.
#pragma once

#include <string>

namespace rdma_double {

[[gnu::format(printf, 1, 2)]] std::string text(const char* format, ...);

// Prints "rdma double: ..." to stderr and aborts.
[[noreturn, gnu::format(printf, 1, 2)]] void fatal(const char* format, ...);

// A programming error that the real library answers with `code`: fatal when strict. Otherwise sets
// errno and returns the code.
[[gnu::format(printf, 2, 3)]] int violation(int code, const char* format, ...);

// An error that is no mistake of the program (a limit, a missing feature): sets errno, returns it.
int refuse(int code);

}  // namespace rdma_double
