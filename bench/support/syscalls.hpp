// syscalls.hpp - how many system calls an operation makes, counted in a repetition that is not timed
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>

#include "measure.hpp"
#include "options.hpp"

#if defined(__linux__) && defined(__GLIBC__)
#include <linux/perf_event.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

// Where the kernel shows its tracepoints and lets us count one: an ordinary repetition at full speed,
// with raw_syscalls:sys_enter of all its threads counted by perf_event_open(2).
class tracepoint_counter {
 public:
  static bool here() {
    static const bool answer = tracepoint_counter().fd_ >= 0;
    return answer;
  }

  template <class Repeat>
  static double count(const Repeat& repeat) {
    tracepoint_counter counter;
    current_ = &counter;
    on_mark = [](mark what, std::size_t operations) { current_->heed(what, operations); };
    repeat();
    on_mark = nullptr;
    std::uint64_t calls = 0;
    const bool read =
        ::read(counter.fd_, &calls, sizeof calls) == static_cast<ssize_t>(sizeof calls);
    return read ? static_cast<double>(calls) / static_cast<double>(counter.operations_) : none;
  }

  ~tracepoint_counter() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  tracepoint_counter() {
    for (const char* root : {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}) {
      std::ifstream number(std::string(root) + "/events/raw_syscalls/sys_enter/id");
      perf_event_attr what{};
      if (fd_ >= 0 || !(number >> what.config)) continue;
      what.type = PERF_TYPE_TRACEPOINT;
      what.size = sizeof what;
      what.disabled = 1;
      what.inherit = 1;
      fd_ =
          static_cast<int>(::syscall(SYS_perf_event_open, &what, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
    }
  }
  void heed(mark what, std::size_t operations) {
    ::ioctl(fd_, what == mark::begin ? PERF_EVENT_IOC_ENABLE : PERF_EVENT_IOC_DISABLE, 0);
    if (what == mark::end) operations_ = operations;
  }

  static inline tracepoint_counter* current_ = nullptr;
  int fd_ = -1;
  std::size_t operations_ = 0;
};

// Elsewhere a child runs a small repetition, and its parent stops it at each system call of each
// thread, as strace(1) does. That needs no rights, but system calls become some tenfold slower: what
// would have been found spinning parks, and a stream batches more. The count tells how, not how often.
class tracing_counter {
 public:
  template <class Repeat>
  static double count(const Repeat& repeat) {
    const pid_t child = ::fork();
    if (child < 0) return none;
    if (child == 0) run_traced(repeat);
    tracing_counter counter;
    counter.follow(child);
    if (counter.operations_ == 0) return none;
    return static_cast<double>(counter.calls_) / static_cast<double>(counter.operations_);
  }

 private:
  static constexpr unsigned longest = 10;  // seconds; then the child is ended, and nothing is known
  static constexpr double share = 0.01;
  static constexpr int nobodys_prctl = 0x62656e63;  // says to the tracer where the timed part is

  template <class Repeat>
  [[noreturn]] static void run_traced(const Repeat& repeat) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(1);
    ::raise(SIGSTOP);
    ::alarm(longest);
    on_mark = [](mark what, std::size_t operations) {
      ::prctl(nobodys_prctl, static_cast<unsigned long>(what), operations, 0ul, 0ul);
    };
    scale *= share;
    repeat();
    ::_exit(0);
  }

  void follow(pid_t child) {
    constexpr unsigned long how = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    constexpr int at_syscall = SIGTRAP | 0x80;
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
      if (signal == at_syscall) see(who);
      go_on(who, signal == at_syscall || signal == SIGTRAP || signal == SIGSTOP ? 0 : signal);
    }
  }

  static void go_on(pid_t who, int signal) {
    ::ptrace(PTRACE_SYSCALL, who, nullptr, static_cast<unsigned long>(signal));
  }

  void see(pid_t who) {
    __ptrace_syscall_info call{};
    ::ptrace(PTRACE_GET_SYSCALL_INFO, who, sizeof call, &call);
    if (call.op != PTRACE_SYSCALL_INFO_ENTRY) return;
    if (call.entry.nr == SYS_prctl && call.entry.args[0] == nobodys_prctl) {
      inside_ = call.entry.args[1] == static_cast<std::uint64_t>(mark::begin);
      if (!inside_) operations_ = static_cast<std::size_t>(call.entry.args[2]);
    } else if (inside_) {
      ++calls_;
    }
  }

  bool inside_ = false;
  std::uint64_t calls_ = 0;
  std::size_t operations_ = 0;
};

inline const char* syscalls_counted_by() {
  return tracepoint_counter::here() ? "tracepoint" : "ptrace, a separate slower run";
}

// Of one repetition, per operation; `none` where both ways are closed. No other thread may live.
template <class Repeat>
double count_syscalls(const Repeat& repeat) {
  return tracepoint_counter::here() ? tracepoint_counter::count(repeat)
                                    : tracing_counter::count(repeat);
}

}  // namespace bench
#else
namespace bench {
inline const char* syscalls_counted_by() { return "nobody"; }
template <class Repeat>
double count_syscalls(const Repeat&) {
  return none;
}
}  // namespace bench
#endif
