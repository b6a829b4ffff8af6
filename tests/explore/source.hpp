// source.hpp - lines of source files, for the narration of a schedule
#pragma once

#include <fstream>
#include <string>

namespace explore {

// Without its indentation. Empty where there is no such line.
inline std::string line_of(const char* file, int number) {
  if (file == nullptr) return {};
  std::ifstream in(file);
  std::string line;
  for (int i = 0; i < number && std::getline(in, line); ++i) {
  }
  const std::size_t first = line.find_first_not_of(' ');
  return first == std::string::npos ? std::string() : line.substr(first);
}

}  // namespace explore
