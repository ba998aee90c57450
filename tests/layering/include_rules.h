// The rules about who may include whom (docs/architecture.md, "Layers"), as a function over a
// source tree.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace libcomm::test {

// One line "file:line includes X: why not" for each #include under `root` that breaks a rule, in
// order of file names. Reads src/, algorithms/, transports/, tools/, benchmarks/ and bindings/;
// tests may include what they like.
std::vector<std::string> include_violations(const std::filesystem::path& root);

}  // namespace libcomm::test
