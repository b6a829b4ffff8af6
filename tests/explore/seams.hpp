// seams.hpp - what a loop of the explorer is made of: a futex, a poller, a clock and a kernel of the model
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <hybridloop.hpp>

#include "explore/atomic.hpp"

namespace explore {

// Wakes as a futex does: of those who wait on the word, the one who came first.
struct parker {
  static constexpr const char* name = "model";
  template <class Word>
  static void wait(const Word& word, std::uint32_t expected, nanos deadline) noexcept {
    engine& e = engine::the();
    e.system_call("futex", word.address());
    if (word.in_memory() == expected) e.wait(word.address(), deadline);
  }
  template <class Word>
  static void wake_one(const Word& word) noexcept {
    wake(word.address(), 1);
  }
  template <class Word>
  static void wake_all(const Word& word) noexcept {
    wake(word.address(), (std::numeric_limits<std::size_t>::max)());
  }

 private:
  static void wake(const void* word, std::size_t most) noexcept {
    engine& e = engine::the();
    e.system_call("wake", word);
    e.notify(word, most);
  }
};

// Stands still until somebody waits for a later time.
struct clock {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = std::chrono::nanoseconds;
  using time_point = std::chrono::time_point<clock>;
  static constexpr bool is_steady = true;
  static time_point now() noexcept { return time_point(duration(engine::the().now())); }
};

// For loops that look before they sleep: each reading takes as long as their look may last.
struct moving_clock : clock {
  using time_point = std::chrono::time_point<moving_clock>;
  static constexpr nanos reading = 500;
  static time_point now() noexcept {
    engine::the().pass(reading);
    return time_point(duration(engine::the().now()));
  }
};

// Descriptors and bells by number. No number is used twice in a scene.
class files {
 public:
  struct file {
    bool open = true;
    bool readable = false;
    bool rung = false;
  };
  static int open() {
    all().emplace_back();
    return first + static_cast<int>(all().size()) - 1;
  }
  static file& at(int fd) {
    const int i = fd - first;
    if (i < 0 || i >= static_cast<int>(all().size())) engine::the().fail("a descriptor that never was");
    return all()[static_cast<std::size_t>(i)];
  }
  static bool is_open(int fd) { return fd >= first && fd < first + static_cast<int>(all().size()) && at(fd).open; }
  static void begin_again() { all().clear(); }

  // A thread of the scene: there is something to read.
  static void write(int fd) {
    engine::the().system_call("write", nullptr);
    at(fd).readable = true;
    changed();
  }
  // A foreign loop: until the handle that a loop has shown it is readable. It leaves it so.
  static void await(int handle) {
    engine::the().system_call("await", nullptr);
    while (!at(handle).rung) engine::the().wait(object(), forever);
  }
  static void changed() { engine::the().notify(&all(), (std::numeric_limits<std::size_t>::max)()); }
  static const void* object() { return &all(); }

 private:
  static constexpr int first = 3;
  static std::vector<file>& all() {
    static std::vector<file> files;
    return files;
  }
};

// A level-triggered set of descriptors with a latched bell; see poller/contract.hpp.
class poller {
  using poll_event = hybridloop::detail::poll_event;
  using token_type = hybridloop::detail::poll_token;
  using interest = hybridloop::interest;

 public:
  static constexpr const char* name = "model";
  static constexpr bool edges = false;

  poller() noexcept = default;
  poller(const poller&) = delete;
  poller& operator=(const poller&) = delete;
  ~poller() { close(); }

  int open() noexcept {
    if (bell_ < 0) bell_ = files::open();
    return 0;
  }
  void close() noexcept {
    if (bell_ < 0) return;
    engine::the().system_call("close", nullptr);
    files::at(bell_).open = false;
    bell_ = -1;
    set_.clear();
  }
  void abandon() noexcept { close(); }
  int reopen() noexcept { return ENOTSUP; }
  bool is_open() const noexcept { return bell_ >= 0; }
  bool owns(int fd) const noexcept { return fd >= 0 && fd == bell_; }

  int add(int fd, interest what, token_type token) noexcept {
    engine::the().system_call("poll-add", nullptr);
    if (!files::is_open(fd)) return EBADF;
    set_.push_back({fd, what, token});
    files::changed();
    return 0;
  }
  int change(int fd, interest what, token_type token) noexcept {
    engine::the().system_call("poll-mod", nullptr);
    entry* e = find(fd);
    if (e == nullptr) return ENOENT;
    *e = {fd, what, token};
    files::changed();
    return 0;
  }
  int remove(int fd) noexcept {
    engine::the().system_call("poll-del", nullptr);
    entry* e = find(fd);
    if (e == nullptr) return ENOENT;
    set_.erase(set_.begin() + (e - set_.data()));
    return 0;
  }
  int renew() noexcept {
    set_.clear();
    return 0;
  }
  int expose(int& out) noexcept {
    out = bell_;
    return 0;
  }
  void settle() noexcept {}

  int wait(poll_event* out, std::size_t room, nanos timeout) noexcept {
    engine& e = engine::the();
    e.system_call("poll", this);
    const nanos end = timeout == forever ? forever : e.now() + timeout;
    for (;;) {
      const bool rung = std::exchange(files::at(bell_).rung, false);
      const int got = report(out, room);
      if (got != 0 || rung || end <= e.now()) return got;
      if (!e.wait(files::object(), end)) return report(out, room);  // or a signal came
    }
  }

  int bell() const noexcept { return bell_; }
  static int ring(int bell) noexcept {
    engine::the().system_call("ring", nullptr);
    if (!files::is_open(bell)) engine::the().fail("a bell is rung that was closed");
    files::at(bell).rung = true;
    files::changed();
    return 0;
  }

 private:
  struct entry {
    int fd;
    interest what;
    token_type token;
  };
  entry* find(int fd) noexcept {
    for (entry& e : set_) {
      if (e.fd == fd) return &e;
    }
    return nullptr;
  }
  int report(poll_event* out, std::size_t room) noexcept {
    int got = 0;
    for (entry& e : set_) {
      const bool wanted = hybridloop::detail::has(e.what, interest::readable);
      if (!wanted || !files::at(e.fd).readable || static_cast<std::size_t>(got) == room) continue;
      out[got] = {};
      out[got].token = e.token;
      out[got].what.readable = true;
      ++got;
      if (hybridloop::detail::has(e.what, interest::oneshot)) e.what = interest::none;
    }
    return got;
  }

  int bell_ = -1;
  std::vector<entry> set_;
};

struct kernel : hybridloop::default_traits::kernel {
  static void* map(std::size_t bytes) noexcept { return engine::the().memory().take(bytes); }
  static void unmap(void* memory, std::size_t bytes) noexcept { engine::the().memory().give(memory, bytes); }
  static void yield() noexcept { engine::the().yield(); }
  static void nap(nanos span) noexcept { engine::the().wait(&naps(), engine::the().now() + span); }
  static std::uint32_t forks() noexcept { return 0; }
  static unsigned usable_cpus() noexcept { return 2; }
  static bool is_descriptor(int fd) noexcept { return files::is_open(fd); }

  class mutex {
   public:
    void lock() noexcept {
      while (word_.exchange(1, std::memory_order_acquire) != 0) parker::wait(word_, 1, forever);
    }
    void unlock() noexcept {
      word_.exchange(0, std::memory_order_release);
      parker::wake_one(word_);
    }

   private:
    atomic<std::uint32_t> word_{0};
  };
  class hold {
   public:
    explicit hold(mutex& m) noexcept : mutex_(m) { m.lock(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() { mutex_.unlock(); }

   private:
    mutex& mutex_;
  };

  // Another thread of the scene.
  class thread {
   public:
    bool joinable() const noexcept { return run_ != nullptr; }
    int start(void (*run)(void*), void* with) noexcept {
      run_ = run;
      over_ = false;
      engine::the().start("companion", [this, run, with] {
        run(with);
        over_ = true;
        engine::the().notify(this, 1);
      });
      return 0;
    }
    void join() noexcept {
      if (!over_) engine::the().wait(this, forever);
      run_ = nullptr;
    }
    void forget() noexcept { run_ = nullptr; }

   private:
    void (*run_)(void*) = nullptr;
    bool over_ = false;
  };

 private:
  static char& naps() noexcept {
    static char object = 0;
    return object;
  }
};

// What membarrier(2) does. `refused`: the kernel has come to say no.
struct barrier {
  static inline bool refused = false;
  static bool available() noexcept { return true; }
  static bool issue() noexcept {
    if (refused) return false;
    engine::the().drain_all("barrier");
    return true;
  }
  static void issue_last() noexcept { engine::the().drain_all("barrier"); }
};

template <hybridloop::fence_policy Fence>
struct traits : hybridloop::default_traits {
  template <class T>
  using atomic = explore::atomic<T>;
  using clock = explore::clock;
  using kernel = explore::kernel;
  using parker = explore::parker;
  using poller = explore::poller;
  using barrier = explore::barrier;
  static constexpr hybridloop::fence_policy fence = Fence;
  static void schedule_point(const char* name) noexcept { engine::the().note(name); }
};

using hybridloop::fence_policy;
using symmetric_traits = traits<fence_policy::symmetric>;
using asymmetric_traits = traits<fence_policy::asymmetric>;
using adaptive_traits = traits<fence_policy::adaptive>;

// The same, for loops whose `spin` is not 0.
template <class Traits>
struct looking : Traits {
  using clock = moving_clock;
};

}  // namespace explore
