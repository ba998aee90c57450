#include "src/topology/topology_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "src/base/fd.h"
#include "src/base/log.h"

namespace libcomm {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";

Result<std::string> read_text(const std::string& path) {
  // Not blocking: a pipe that nobody writes to must not hold up the process.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return descriptor_error(errno, "it cannot be opened");
  struct stat about {};
  if (::fstat(fd.get(), &about) != 0) return system_error(errno, "fstat");
  if (!S_ISREG(about.st_mode))
    return error(Code::kInvalidArgument, "it is {}, not a file",
                 S_ISDIR(about.st_mode) ? "a directory" : "a pipe or a device");
  std::string text;
  char block[8192];
  while (true) {
    const ssize_t got = ::read(fd.get(), block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error(errno, "it cannot be read");
    if (got == 0) break;
    text.append(block, static_cast<size_t>(got));
    if (text.size() > kMostTopologyBytes)
      return error(Code::kInvalidArgument, "it has more than {} MiB, which no topology has",
                   kMostTopologyBytes >> 20);
  }
  return text;
}

// Without `begin` ... `end` where the text starts with it; false when the end is missing.
bool skip(std::string_view* text, std::string_view begin, std::string_view end) {
  if (!text->starts_with(begin)) return true;
  const size_t at = text->find(end, begin.size());
  if (at == text->npos) return false;
  text->remove_prefix(at + end.size());
  return true;
}

Result<TopologyDescription> parse(const std::string& text, const TopologyFile& file) {
  const std::string_view root = root_element(text);
  if (root.empty())
    return error(Code::kInvalidArgument,
                 "it is not XML: expected what `lstopo FILE.xml` writes, or a topology of NCCL's");
  if (root == "topology") return TopologyDescription(HwlocText{text});
  if (root != "system")
    return error(
        Code::kInvalidArgument,
        "its outermost element is <{}>: expected <topology> (hwloc's) or <system> (NCCL's)",
        root.substr(0, 64));
  if (text.size() > kMostNcclBytes)
    return error(Code::kInvalidArgument, "it has more than {} MiB, which no topology of NCCL's has",
                 kMostNcclBytes >> 20);
  COMM_ASSIGN(NcclFile nccl, parse_nccl_file(text, file.label));
  return TopologyDescription(std::move(nccl));
}

// The error as users see it; ok when the file is passed over instead.
Status refusal(Status status, const TopologyFile& file) {
  status = std::move(status).context(file.label);
  if (file.required || status.code() != Code::kSystem) return status;
  static std::atomic<bool> said{false};
  if (!said.exchange(true)) log_warn("{}; going on without it, as NCCL does", status.to_string());
  return Status::ok();
}

}  // namespace

std::string_view root_element(std::string_view text) {
  if (text.find('\0') != text.npos) return {};  // UTF-16, or no text at all
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
    const size_t before = text.size();
    if (!skip(&text, "<?", "?>") || !skip(&text, "<!--", "-->")) return {};
    if (text.starts_with("<!DOCTYPE")) {
      // The end of one with declarations of its own is after their bracket.
      const bool declares = text.substr(0, text.find('>')).find('[') != text.npos;
      if ((declares && !skip(&text, "<!DOCTYPE", "]")) || text.find('>') == text.npos) return {};
      text.remove_prefix(text.find('>') + 1);
    }
    if (text.size() == before) break;
  }
  if (!text.starts_with('<')) return {};
  text.remove_prefix(1);
  const std::string_view name = text.substr(0, text.find_first_of(" \t\r\n/>"));
  constexpr std::string_view kOfNames =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:";
  return name.find_first_not_of(kOfNames) == name.npos ? name : std::string_view();
}

TopologyFile TopologyFile::from(const Knobs& knobs) {
  TopologyFile file;
  file.path = knobs.get_string(Knob::kTopoFile);
  const std::string& origin = knobs.origin(Knob::kTopoFile);
  file.label = fmt::format("COMM_TOPO_FILE={}", file.path);
  file.required = origin == "environment";
  if (!file.required) file.label += fmt::format(" ({})", origin);
  return file;
}

Result<std::optional<std::string>> read_topology_file(const TopologyFile& file) {
  std::optional<std::string> text;
  if (file.path.empty()) return text;
  auto read = read_text(file.path);
  if (read)
    text = *std::move(read);
  else
    COMM_TRY(refusal(std::move(read).status(), file));
  return text;
}

Result<TopologyDescription> parse_topology_file(const std::optional<std::string>& text,
                                                const TopologyFile& file) {
  if (!text) return TopologyDescription();
  auto description = parse(*text, file);
  if (!description) COMM_TRY(refusal(std::move(description).status(), file));
  return description ? std::move(description) : TopologyDescription();
}

}  // namespace libcomm
