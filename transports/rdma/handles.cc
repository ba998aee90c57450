#include "transports/rdma/handles.h"

#include <fcntl.h>

#include <cerrno>

namespace libcomm::rdma {

Status set_nonblocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
    return system_error(errno, "making a descriptor of libibverbs non-blocking");
  return Status::ok();
}

Result<Context> Context::open(std::shared_ptr<const Verbs> verbs, ibv_device* device) {
  errno = 0;
  ibv_context* context = verbs->open_device(device);
  if (context == nullptr) {
    const int err = errno;
    const char* hint =
        err == EACCES || err == EPERM
            ? " (no permission on /dev/infiniband: add the user to the device's group)"
            : "";
    return descriptor_error(
        err == 0 ? ENODEV : err,
        fmt::format("ibv_open_device({}){}", verbs->get_device_name(device), hint));
  }
  Context opened(Pointer(context, {std::move(verbs)}));
  COMM_TRY(set_nonblocking(context->async_fd));
  return opened;
}

Result<CompletionChannel> CompletionChannel::create(std::shared_ptr<const Verbs> verbs,
                                                    ibv_context* context) {
  errno = 0;
  ibv_comp_channel* channel = verbs->create_comp_channel(context);
  if (channel == nullptr) {
    return descriptor_error(errno == 0 ? ENOMEM : errno, "ibv_create_comp_channel");
  }
  CompletionChannel made(Pointer(channel, {std::move(verbs)}));
  COMM_TRY(set_nonblocking(channel->fd));
  return made;
}

}  // namespace libcomm::rdma
