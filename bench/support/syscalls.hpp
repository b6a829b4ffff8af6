// syscalls.hpp - how many system calls an operation makes, counted in a run that is not timed
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.hpp"
#include "options.hpp"

// A child runs one small repetition, and its parent stops it at each system call of each thread, as
// strace(1) does. That needs no rights and no tracing file system, and it slows system calls down some
// tenfold: of round trips the count is exact, of a stream, which then batches more, it is a lower bound.
#if defined(__linux__) && defined(PTRACE_GET_SYSCALL_INFO)
namespace bench {

class syscall_count {
 public:
  // Per operation of repeat(); `none` where tracing is refused. No other thread may live.
  template <class Repeat>
  static double of(const Repeat& repeat) {
    const pid_t child = ::fork();
    if (child < 0) return none;
    if (child == 0) run_traced(repeat);
    syscall_count count;
    count.follow(child);
    return count.operations_ > 0 ? static_cast<double>(count.calls_) / static_cast<double>(count.operations_) : none;
  }

 private:
  static constexpr unsigned longest = 10;  // seconds; then the child is ended, and nothing is known
  static constexpr double share = 0.01;

  template <class Repeat>
  [[noreturn]] static void run_traced(const Repeat& repeat) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(1);
    ::raise(SIGSTOP);
    ::alarm(longest);
    traced = true;
    scale *= share;
    repeat();
    ::_exit(0);
  }

  void follow(pid_t child) {
    constexpr unsigned long how = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    int status = 0;
    if (::waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return;
    ::ptrace(PTRACE_SETOPTIONS, child, nullptr, how);
    go_on(child, 0);
    for (pid_t who = 0; (who = ::waitpid(-1, &status, __WALL)) > 0;) {
      if (who == child && !WIFSTOPPED(status)) {
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) operations_ = 0;
        return;
      }
      if (!WIFSTOPPED(status)) continue;
      const int signal = WSTOPSIG(status);
      if (signal == (SIGTRAP | 0x80)) see(who);
      const bool ours = signal == (SIGTRAP | 0x80) || signal == SIGTRAP || signal == SIGSTOP;
      go_on(who, ours ? 0 : signal);
    }
  }

  static void go_on(pid_t who, int signal) {
    ::ptrace(PTRACE_SYSCALL, who, nullptr, static_cast<unsigned long>(signal));
  }

  // Entries only; sums up the parts of an operation that is timed in several.
  void see(pid_t who) {
    __ptrace_syscall_info call{};
    ::ptrace(PTRACE_GET_SYSCALL_INFO, who, sizeof call, &call);
    if (call.op != PTRACE_SYSCALL_INFO_ENTRY) return;
    if (call.entry.nr == SYS_prctl && call.entry.args[0] == static_cast<std::uint64_t>(mark_number)) {
      counting_ = call.entry.args[1] == static_cast<std::uint64_t>(mark::begin);
      if (!counting_) operations_ = static_cast<std::size_t>(call.entry.args[2]);
    } else if (counting_) {
      ++calls_;
    }
  }

  bool counting_ = false;
  std::uint64_t calls_ = 0;
  std::size_t operations_ = 0;
};

}  // namespace bench
#else
namespace bench {
struct syscall_count {
  template <class Repeat>
  static double of(const Repeat&) {
    return none;
  }
};
}  // namespace bench
#endif
