// The measuring loop, the same source for every library: per collective and size warm-ups, a
// barrier, N calls back to back on a rotation of buffers, the longest time of any rank; then one
// more call whose every element is checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "benchmarks/peers/collectives.h"
#include "benchmarks/peers/settings.h"

namespace peers {

struct Call {
  Collective what;
  const void* send;  // a broadcast has none: it works in recv
  void* recv;
  size_t count;
  Type type;
};

// What a driver adapts. A call that fails ends the process with a line on stderr.
class Library {
 public:
  virtual ~Library() = default;

  virtual int rank() const = 0;
  virtual int nranks() const = 0;
  virtual std::string version() const = 0;
  // Empty, or why this collective cannot be run.
  virtual std::string refuses(Collective) const { return ""; }

  // Page-aligned; ordinary memory unless the library has better.
  virtual void* allocate(size_t bytes);
  virtual void release(void* memory);

  virtual void run(const Call& call) = 0;
  virtual void barrier() = 0;
  virtual double most(double value) = 0;  // over ranks
};

// Prints rank 0's lines; each starts with @ and its kind, whatever else a library may print:
//   @library VERSION
//   @row COLLECTIVE TYPE SIZE BYTES ITERATIONS MICROSECONDS WRONG
//   @skip COLLECTIVE REASON
//   @note TEXT
// SIZE is what was asked for, BYTES the larger buffer of the call, WRONG the number of wrong
// elements on the rank with most. Returns an exit status: 0 when every value was right.
int run_loop(Library& library, const Settings& settings);

}  // namespace peers
