// What only the double of the CUDA driver can do; found with dlsym.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Device memory of GPU `ordinal`: the pointer may not be touched by a processor. NULL: no memory.
void* cuda_double_alloc(size_t bytes, int ordinal);
void cuda_double_free(void* pointer);
// As a kernel would see it: without the copying calls.
void cuda_double_write(void* pointer, const void* from, size_t bytes);
void cuda_double_read(void* to, const void* pointer, size_t bytes);
// A descriptor of the memory behind [pointer, ...), whose file offset says where it begins; -1: it
// is no device memory. For other doubles.
int cuda_double_export(const void* pointer, size_t bytes);
// "dmabuf": 1 as at first, 0: cuMemGetHandleForAddressRange is not supported.
// "ordering": CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING, 0 at first.
// "initialised": 1 as at first, 0: as before cuInit.
void cuda_double_set(const char* what, int value);
// What the kernel of that name does, for every module: `run` gets the launch's one argument struct
// and the numbers of blocks and of threads in each.
void cuda_double_register_kernel(const char* name, size_t argument_bytes,
                                 void (*run)(const void* arguments, unsigned grid, unsigned block));
// Where a kernel, which is host code here, reaches that memory. Ends the process for memory that it
// may not touch.
void* cuda_double_resolve(void* device_pointer, size_t bytes);
// How often cuMemcpy was called.
uint64_t cuda_double_copies(void);

#ifdef __cplusplus
}
#endif
