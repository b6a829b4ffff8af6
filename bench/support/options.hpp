// options.hpp - what a run was asked for, and how much of it a repetition does
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace bench {

enum class format { text, csv, json };

struct options {
  format as = format::text;
  int reps = 7;
  std::string program;  // its name, without folders
  std::string only;     // text of a family's title or of a row's name

  options(int argc, char** argv);

  bool wants(const std::string& title, const std::string& row) const {
    return title.find(only) != std::string::npos || row.find(only) != std::string::npos;
  }
};

// Every combination, where a table stands for many: --full.
inline bool full = false;

// Where the programs are; ends in a slash, or is empty.
inline std::string folder;

// Share of the usual operations that a repetition does: --scale, and less in a counted run.
inline double scale = 1;

inline std::size_t scaled(std::size_t operations) {
  const auto share = static_cast<std::size_t>(static_cast<double>(operations) * scale);
  return (std::max)(share, (std::min)(operations, std::size_t{64}));
}

inline options::options(int argc, char** argv) {
  program = argv[0];
  const std::size_t name = program.rfind('/') + 1;
  folder = program.substr(0, name);
  program.erase(0, name);
  const auto next = [&](int& i) { return i + 1 < argc ? argv[++i] : ""; };
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--csv") {
      as = format::csv;
    } else if (word == "--json") {
      as = format::json;
    } else if (word == "--full") {
      full = true;
    } else if (word == "--reps") {
      reps = std::atoi(next(i));
    } else if (word == "--only") {
      only = next(i);
    } else if (word == "--scale") {
      scale = std::atof(next(i));
    } else {
      std::fprintf(stderr,
                   "usage: [--csv | --json] [--reps N] [--only TEXT] [--scale SHARE] [--full]\n");
      std::exit(2);
    }
  }
  if (reps < 7) reps = 7;
  if (!(scale > 0)) scale = 1;
}

}  // namespace bench
