// watchdog.hpp - a repetition that may never end, in a child that is ended then
#pragma once

#include <cstdio>
#include <type_traits>

#include <poll.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.hpp"

namespace bench {

inline constexpr int longest_repetition = 20000;  // milliseconds

// False: it did not end, or not well. No other thread may live. What a thread waits for that nobody will
// wake cannot be taken back, so only the end of a process helps.
template <class Repeat>
bool in_watched_child(const Repeat& repeat, sample& found) {
  static_assert(std::is_trivially_copyable_v<sample>, "a sample goes through a pipe");
  int ends[2];
  must(::pipe(ends) == 0, "a pipe");
  std::fflush(nullptr);
  const pid_t child = ::fork();
  must(child >= 0, "a child");
  if (child == 0) {
    const sample mine = repeat();
    const bool told = ::write(ends[1], &mine, sizeof mine) == static_cast<ssize_t>(sizeof mine);
    ::_exit(told ? 0 : 1);
  }
  ::close(ends[1]);
  pollfd answer{ends[0], POLLIN, 0};
  const bool ended = ::poll(&answer, 1, longest_repetition) == 1;
  const bool heard =
      ended && ::read(ends[0], &found, sizeof found) == static_cast<ssize_t>(sizeof found);
  if (!heard) ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ends[0]);
  return heard;
}

}  // namespace bench
