#include "transports/shm/shared_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>

namespace libcomm::shm {
namespace {

constexpr const char* kFallbackFolder = "/dev/shm";

// vm.overcommit_memory = 2: pages of a sparse file are refused when touched, not when mapped.
bool strict_overcommit() {
  UniqueFd fd(::open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC));
  char mode = '0';
  return fd && ::read(fd.get(), &mode, 1) == 1 && mode == '2';
}

// ftruncate beyond RLIMIT_FSIZE would raise SIGXFSZ, so it is looked at before.
Status check_file_limit(size_t bytes) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
      limit.rlim_cur >= bytes)
    return {};
  return error(Code::kSystem,
               "shared memory needs a sparse file of {} bytes, but the limit on file sizes is {}: "
               "raise it (ulimit -f unlimited)",
               bytes, static_cast<size_t>(limit.rlim_cur));
}

bool is_memfd(int fd) {
  // Only memfds (and hugetlbfs files) answer with seals other than F_SEAL_SEAL alone.
  const int seals = ::fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
}

}  // namespace

Result<SharedFile> SharedFile::create(const char* name, size_t bytes, bool allow_memfd) {
  COMM_TRY(check_file_limit(bytes));
  SharedFile file;
  int refused = ENOSYS;
  if (allow_memfd) {
    file.fd_ = UniqueFd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    refused = errno;
  }
  if (!file.fd_) {
    file.memfd_ = false;
    file.fd_ = UniqueFd(::open(kFallbackFolder, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600));
    if (!file.fd_)
      return system_error(errno, fmt::format("no shared memory: memfd_create failed (errno {}) and "
                                             "a file in {} cannot be made; mount a tmpfs there",
                                             refused, kFallbackFolder));
  }
  if (::ftruncate(file.fd_.get(), static_cast<off_t>(bytes)) != 0)
    return system_error(errno, fmt::format("shared memory of {} bytes cannot be made", bytes));
  if (file.memfd_ &&
      ::fcntl(file.fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return system_error(errno, "sealing shared memory");
  file.must_reserve_ = !file.memfd_ || strict_overcommit();
  return file;
}

Result<SharedFile> SharedFile::adopt(UniqueFd fd, size_t bytes) {
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return system_error(errno, "a peer's shared memory");
  if (!S_ISREG(info.st_mode) || info.st_size < 0 || static_cast<size_t>(info.st_size) < bytes)
    return error(Code::kSystem, "a peer's shared memory is {} bytes long where {} were announced",
                 static_cast<int64_t>(info.st_size), bytes);
  SharedFile file;
  file.fd_ = std::move(fd);
  file.memfd_ = is_memfd(file.fd_.get());
  file.must_reserve_ = !file.memfd_ || strict_overcommit();
  return file;
}

Status SharedFile::reserve(size_t offset, size_t bytes) const {
  const int err =
      ::posix_fallocate(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(bytes));
  if (err == 0) return {};
  if (memfd_)
    return system_error(err, fmt::format("{} bytes of shared memory are refused: raise the memory "
                                         "limit or set COMM_SHM_DISABLE=1",
                                         bytes));
  struct statvfs space {};
  (void)::statvfs(kFallbackFolder, &space);
  return system_error(
      err, fmt::format("{} bytes of shared memory do not fit in {} ({} of {} bytes free): enlarge "
                       "it (docker run --shm-size=1g) or set COMM_SHM_DISABLE=1",
                       bytes, kFallbackFolder, space.f_bavail * space.f_frsize,
                       space.f_blocks * space.f_frsize));
}

Result<std::byte*> SharedFile::map(size_t offset, size_t bytes) const {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                        fd_.get(), static_cast<off_t>(offset));
  if (memory == MAP_FAILED)
    return system_error(errno,
                        fmt::format("mapping {} bytes of shared memory (ulimit -v?)", bytes));
  return static_cast<std::byte*>(memory);
}

}  // namespace libcomm::shm
