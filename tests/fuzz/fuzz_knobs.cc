// Configuration: ~/.comm.conf, and the agreed knobs as rank 0 sends them.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "src/base/knobs.h"
#include "tests/fuzz/fuzz.h"

namespace libcomm::fuzz {
namespace {

// A home of its own, and no word on stderr or into files that a mutated COMM_DEBUG_FILE names.
class Home {
 public:
  Home() {
    std::string path = (std::filesystem::temp_directory_path() / "comm_fuzz_XXXXXX").string();
    FUZZ_CHECK(mkdtemp(path.data()) != nullptr);
    path_ = path;
    setenv("HOME", path_.c_str(), 1);
    setenv("COMM_DEBUG", "NONE", 1);
    setenv("COMM_DEBUG_FILE", "/dev/null", 1);
  }
  ~Home() { std::filesystem::remove_all(path_); }
  Home(const Home&) = delete;
  Home& operator=(const Home&) = delete;

  void write(std::string_view text) const {
    std::ofstream(path_ + "/.comm.conf", std::ios::binary) << text;
  }

 private:
  std::string path_;
};

void check_values(const Knobs& knobs) {
  for (const KnobRow& row : knob_table()) {
    switch (row.type) {
      case KnobType::Bool:
        (void)knobs.get_bool(row.id);
        break;
      case KnobType::Choice:
        FUZZ_CHECK(knobs.get_choice(row.id) >= 0);
        break;
      case KnobType::Seconds:
        FUZZ_CHECK(knobs.get_seconds(row.id) >= 0);
        break;
      case KnobType::Size:
        FUZZ_CHECK(knobs.get_size(row.id) <= uint64_t{1} << 40);
        break;
      case KnobType::Int:
        FUZZ_CHECK(knobs.get_int(row.id) >= -1);
        break;
      case KnobType::String:
        break;
    }
  }
}

// Whoever takes over rank 0's text holds the same agreed values.
void check_agreement(const Knobs& mine, const Knobs& rank0) {
  std::string differing;
  const auto agreed = mine.with_agreed(rank0.agreed_text(), &differing);
  FUZZ_CHECK(agreed.is_ok());
  for (const KnobRow& row : knob_table())
    if (row.scope == KnobScope::kAgreed)
      FUZZ_CHECK((*agreed)->get_string(row.id) == rank0.get_string(row.id));
}

}  // namespace

std::vector<std::string> seeds() {
  std::string all = "# every knob at its default\n";
  for (const KnobRow& row : knob_table())
    all += std::string("COMM_") + row.name + " = " + row.fallback + "\n";
  return {all,
          "SHM_DISABLE=1\nBUFFSIZE=4M # blank before the mark\nALGO=allreduce:ring;allgather:hd\n",
          "COMM_SOCKET_IFNAME = ^lo,docker\nRINGS=0 1 2 3 | 0 2 1 3\nTIMEOUT=0.5\n",
          "WAIT=spin\nDEBUG_SUBSYS=^NET\nSECRET=a#b\nMAX_NRINGS=16\nLL_THRESHOLD=1M\n",
          "COMM_BUFSIZE=1M\n=\n==\nX\nCOMM_=1\n",
          "LL_THRESHOLD=9223372036854775807\nBOOTSTRAP_TIMEOUT=nan\nTIMEOUT=inf\nNTHREADS=-1\n"};
}

}  // namespace libcomm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace libcomm;
  using namespace libcomm::fuzz;
  static const Home home;
  static const auto defaults = [] {
    home.write("");
    auto knobs = Knobs::load();
    FUZZ_CHECK(knobs.is_ok());
    return *knobs;
  }();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  home.write(text);
  const auto loaded = Knobs::load();
  if (loaded) {
    check_values(**loaded);
    check_agreement(*defaults, **loaded);
    check_agreement(**loaded, *defaults);
  } else {
    FUZZ_CHECK(loaded.status().code() == Code::kInvalidArgument);
    FUZZ_CHECK(loaded.status().message().find("COMM_") != std::string::npos);
  }
  std::string differing;
  const auto agreed = defaults->with_agreed(text, &differing);
  if (agreed) check_values(**agreed);
  (void)nearest_knob(text.substr(0, 64));
  return 0;
}
