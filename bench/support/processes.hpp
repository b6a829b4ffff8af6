// processes.hpp - rivals that are programs of their own, because their language is another
#pragma once

#include <cstdio>
#include <string>

#include <unistd.h>

#include "bench.hpp"
#include "options.hpp"

namespace processes {

inline std::string program() { return bench::folder + "rust-rivals"; }

// One repetition; the program ends itself if that takes too long. It says how long an operation took, and
// a second figure. What it costs beside that is not known here.
inline bench::sample repetition(const std::string& words) {
  bench::sample s;
  std::FILE* const answer = ::popen(("'" + program() + "' " + words).c_str(), "r");
  bench::must(answer != nullptr, "another process");
  const bool heard = std::fscanf(answer, "%lf %lf", &s.figure, &s.aside) == 2;
  bench::must(::pclose(answer) == 0 && heard, "the other process ended well");
  return s;
}

inline void add(bench::family& table, const std::string& name, const std::string& words) {
  if (::access(program().c_str(), X_OK) != 0) return table.skip(name);
  table.add_watched(bench::kind::rival, name + ", another process",
                    [words] { return repetition(words); });
}

// Semaphores of Rust; shape(who) is what the program is asked for.
template <class Shape>
void add_semaphores(bench::family& table, const Shape& shape) {
  add(table, "tokio::sync::Semaphore", shape("tokio"));
  add(table, "async_lock::Semaphore", shape("async-lock"));
}

}  // namespace processes
