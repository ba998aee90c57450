// Machines of which NVML tells (the double in tests/doubles/nvml) beside what hwloc reads.
#pragma once

#include <dlfcn.h>
#include <gmock/gmock.h>

#include "src/base/log.h"
#include "tests/base/temp_folder.h"
#include "tests/topology/machines.h"

namespace libcomm {

// flat_vm.xml, taken for this machine, with four GPUs.
class WithNvml : public testing::Test {
 protected:
  static constexpr char kA[] = "gpu 0000:00:05.0", kB[] = "gpu 0000:00:06.0",
                        kC[] = "gpu 0000:01:01.0", kD[] = "gpu 0000:01:02.0";

  void SetUp() override {
    setenv("HWLOC_XMLFILE", COMM_TEST_DATA "/flat_vm.xml", 1);
    setenv("HWLOC_THISSYSTEM", "1", 1);
    // Another machine than that of the test before, which is remembered.
    static int number = 0;
    setenv("HWLOC_OF_A_TEST", std::to_string(++number).c_str(), 1);
    configure_log(LogLevel::kInfo, static_cast<unsigned>(Subsys::kGraph), folder_ / "log");
  }
  void TearDown() override {
    configure_log(LogLevel::kWarn, 0, "");
    for (const char* name : {"HWLOC_XMLFILE", "HWLOC_THISSYSTEM", "HWLOC_OF_A_TEST",
                             "NVML_DOUBLE_GPUS", "NVML_DOUBLE_SM", "NVML_DOUBLE_FAIL"})
      unsetenv(name);
    unload();
  }

  // Whoever opens NVML from now on gets this double, because it is there under the same name.
  void load(const char* library = NVML_DOUBLE) {
    library_ = dlopen(library, RTLD_NOW);
    ASSERT_NE(library_, nullptr) << dlerror();
  }
  void unload() {
    if (library_ != nullptr) dlclose(library_);
    library_ = nullptr;
  }
  int inits() const {
    const auto count = reinterpret_cast<int (*)()>(dlsym(library_, "nvml_double_inits"));
    return count != nullptr ? count() : -1;
  }

  // What is read when NVML says this of the GPUs.
  Topology linked(const std::string& gpus, const TopologyFile& file = {}) {
    setenv("NVML_DOUBLE_GPUS", gpus.c_str(), 1);
    return read(file);
  }
  static Topology read(const TopologyFile& file = {}) {
    auto topology = Topology::detect_with_nvlinks(file);
    EXPECT_TRUE(topology) << topology.status().to_string();
    return topology ? *topology : Topology();
  }
  std::string log() const { return test::read_file(folder_ / "log"); }

  static int gpu(const Topology& t, const char* name) {
    return t.find_device(DeviceKind::kGpu, name);
  }
  // Of the path by NVLink; 0: it is none of NVLink.
  static double gbs(const Topology& t, const char* a, const char* b) {
    const Path path = t.path(gpu(t, a), gpu(t, b));
    return path.path == PathClass::kNvlink ? path.gbytes_per_second : 0;
  }
  // How many NVLinks the path has, of GPUs whose compute capability is not known.
  static double links(const Topology& t, const char* a, const char* b) { return gbs(t, a, b) / 25; }
  static std::string known(const Topology& t) {
    std::string which;
    for (const char* name : {kA, kB, kC, kD}) which += t.knows_nvlinks(gpu(t, name)) ? "1" : "0";
    return which;
  }

 private:
  const test::TempFolder folder_;
  void* library_ = nullptr;
};

}  // namespace libcomm
