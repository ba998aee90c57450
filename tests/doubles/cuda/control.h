// What only the double of the CUDA driver can do; found with dlsym, or linked.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Device memory of GPU `ordinal`, of no context, as that of a pool: the pointer may not be touched
// by a processor. NULL: no memory.
void* cuda_double_alloc(size_t bytes, int ordinal);
void cuda_double_free(void* pointer);
// As a kernel would see it: without the copying calls.
void cuda_double_write(void* pointer, const void* from, size_t bytes);
void cuda_double_read(void* to, const void* pointer, size_t bytes);
// A descriptor of the memory behind [pointer, ...), whose file offset says where it begins; -1: it
// is no device memory. For other doubles.
int cuda_double_export(const void* pointer, size_t bytes);

// What the kernel of that name does, for every module: `run` gets the launch's one argument struct
// and the numbers of blocks and of threads in each. It runs on the thread of its stream.
void cuda_double_register_kernel(const char* name, size_t argument_bytes,
                                 void (*run)(const void* arguments, unsigned grid, unsigned block));
// Where a kernel, which is host code here, reaches that memory: device memory of its GPU, of peers
// whose access is enabled, or opened by IPC; pinned and managed memory. Ends the process for any
// other memory, and for a range that is not within one allocation. In a thread that the kernel has
// started, the memory of all GPUs is reached.
void* cuda_double_resolve(void* device_pointer, size_t bytes);
// How often kernels of that name have ended.
uint64_t cuda_double_launches(const char* kernel);

// Settings; a child process that is forked has its parent's.
// "fatal": 1 as at first: misuse that on a GPU is an illegal access, or undefined, ends the
// process;
//          0: it makes the error sticky, or returns it.
// "initialised": 1 as at first, 0: as before cuInit, which sets it.
// "version": of the driver, 13000 at first.
// "devices": how many GPUs, 3 at first, at most 8; 0: cuInit finds none.
// "multiprocessors": of each GPU, 4 at first.
// "memory_kib": how much device memory cuMemAlloc gives on each GPU, -1 at first: as it comes.
// "slow_us": how long each operation of a stream is delayed, 0 at first.
// "channels": how many hardware queues the streams made from now on share, so that an operation
//             that waits holds back those behind it in its queue; 0 at first: one for each stream.
// "dmabuf": 1 as at first, 0: cuMemGetHandleForAddressRange is not supported.
// "chunks": 1 as at first, 0: cuMemCreate and its descriptors are not supported.
// "descriptors": 1 as at first, 0: what cuMemCreate makes is exported and imported by none.
// "fabric": fabric handles of what cuMemCreate makes. 0 as at first, or what the environment's
//           CUDA_DOUBLE_FABRIC says: there are none. 1: there are. 2 and 3: the GPUs say so, but,
//           as without an IMEX channel, cuMemCreate (2) or the import (3) is not permitted.
// "ordering": CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING, 0 at first.
void cuda_double_set(const char* what, int value);
// Whether GPU `from` can reach the memory of GPU `to`: 1 for all at first.
void cuda_double_set_peer(int from, int to, int allowed);

// The nth call of that function from now on (1: the next) does nothing and returns `code`; nth 0
// takes this back.
void cuda_double_fail(const char* call, int nth, int code);
// The context of the GPU has failed: what is queued in it ends without having run, and all later
// calls return `code`. Code 0 takes this back when all that was queued has ended so.
void cuda_double_break(int ordinal, int code);
// A paused stream starts no operation. Handles of default streams are those of the current context.
void cuda_double_pause(void* stream);
void cuda_double_resume(void* stream);

// What was done and what is live in this process:
// "d2d", "d2h", "h2d", "h2h": copies that have been made, by where they lead (d: device or managed
// memory); those of them with pageable host memory also as "pageable"; each with "_bytes" appended:
// their bytes. "device_bytes", "chunk_bytes" (cuMemCreate's, also of other processes),
// "managed_bytes", "pinned_bytes" (registered memory included), "streams", "events", "modules",
// "graphs" (executable ones included), "user_objects", "ipc_open". "fabric_imports": those made so
// far.
uint64_t cuda_double_count(const char* what);
// How often that function was called, such as "cuMemcpy".
uint64_t cuda_double_calls(const char* call);
// The same of cuMemcpy.
uint64_t cuda_double_copies(void);

#ifdef __cplusplus
}
#endif
