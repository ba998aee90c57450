// Gpu: what an application does with the CUDA driver, for tests: memory, streams, graphs. Works
// with NVIDIA's driver and with the double of it (tests/doubles/cuda); nothing of the library is
// used.
#pragma once

#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>

namespace gpu {

using Stream = void*;
inline Stream const kDefaultStream = nullptr;
inline Stream const kPerThreadStream = reinterpret_cast<Stream>(2);

struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// How many GPUs this process can use; 0 without a driver. Loads the driver and initialises it.
int count();
// Whether the driver is the double.
bool is_double();

// Whether collectives are done by kernels that wait for each other, as COMM_GPU_EXECUTOR=ALWAYS
// says.
bool executor_is_forced();

// Makes the primary context of GPU `ordinal` current in this thread. Everything below is done in
// the current context, and throws Failed.
void use(int ordinal);

void* allocate(size_t bytes);
void free(void* device);
void* allocate_pinned(size_t bytes);
void free_pinned(void* host);
void* allocate_managed(size_t bytes);
Stream create_stream();  // one that does not wait for the default stream
void destroy(Stream stream);
void copy(void* to, const void* from, size_t bytes, Stream stream);
void fill(void* device, unsigned char value, size_t bytes, Stream stream);
void synchronise(Stream stream);
bool is_idle(Stream stream);
// What is put on `later` from now on comes after what is on `earlier`.
void follow(Stream later, Stream earlier);

// A graph of what `body` puts on the stream, ready to be launched.
class Graph {
 public:
  Graph(Stream stream, const std::function<void()>& body);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(Stream stream) const;

 private:
  void* ready_ = nullptr;
};

// A symbol of the driver's library; throws when it has none. For the double's controls.
void* symbol(const char* name);
template <typename Function>
Function* control(const char* name) {
  return reinterpret_cast<Function*>(symbol(name));
}

}  // namespace gpu
