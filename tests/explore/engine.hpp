// engine.hpp - runs threads one step at a time, in the order that a strategy chooses
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ucontext.h>

#include "explore/memory.hpp"

namespace explore {

using nanos = std::int64_t;
inline constexpr nanos forever = INT64_MAX;

// Where an operation stands in the explored code.
struct site {
  const char* file;
  int line;
};

// What can happen next. `cost` is what a bound on preemptions counts: whatever would not have happened
// if each thread ran until it waits, its stores in memory by then, and time stood still.
struct option {
  enum kind : std::uint8_t {
    go,      // `thread` runs on; of the one that ran before, `drained` stores reach memory first
    drain,   // the oldest store of `thread` reaches memory
    expire,  // the time comes that `thread` waits for
    rouse    // `thread` wakes for no reason, as a futex may
  };
  kind what;
  std::uint8_t thread;
  std::uint8_t drained;
  std::uint8_t cost;
};

class strategy {
 public:
  virtual ~strategy() = default;
  // `count` is at least 2; options[0] costs nothing. Answers an index.
  virtual unsigned choose(const option* options, unsigned count, std::uint32_t tick) = 0;
};

// One choice that was not the first option: at which tick, and which one.
struct deviation {
  std::uint32_t tick;
  unsigned option;
};

struct settings {
  std::uint32_t most_ticks = 20000;  // more is a livelock
  bool rouses = false;               // sleepers may wake for no reason
  bool everything = false;           // every atomic is a scheduling point, contended so far or not
  bool narrate = false;              // print each step
};

// The one of this process. A scene is played on the caller's thread: it makes things, starts threads,
// runs them to their end with play(), and looks at what came of it. While nothing plays, operations
// happen at once.
class engine {
 public:
  static engine& the() noexcept;

  // ---- The scene ----

  void begin(strategy& how, const settings& s);
  // Plays it, on a stack of its own: where its things lie is the same each time, whoever calls.
  void perform(void (*scene)());
  void start(const char* name, std::function<void()> body);
  void play();
  void end();

  // A word that each thread has of its own, such as a thread_local of the explored code.
  void own_for_each_thread(void** word) { own_.push_back(word); }
  // Never returns.
  [[noreturn]] void fail(const char* what);

  std::uint32_t ticks() const noexcept { return tick_; }
  bool found_contention() const noexcept { return !fresh_contention_.empty(); }
  const std::vector<deviation>& deviations() const noexcept { return deviations_; }
  unsigned running() const noexcept { return running_; }
  const char* name_of(unsigned t) const noexcept { return threads_[t].name; }
  nanos now() const noexcept { return now_; }
  // Time goes on by itself; who waits for what is past by then is not yet awake.
  void pass(nanos span) noexcept { now_ += span; }
  pages& memory() noexcept { return pages_; }
  // Called by fail() with the sentence; prints the schedule and leaves.
  void on_failure(void (*report)(const char*)) noexcept { report_ = report; }

  // ---- Operations of threads. Each is a scheduling point. ----

  enum class change : std::uint8_t { put, add, subtract, set, keep };

  std::uint64_t load(const void* at, unsigned size, std::memory_order o, site s);
  void store(void* at, unsigned size, std::uint64_t value, std::memory_order o, site s);
  std::uint64_t modify(void* at, unsigned size, change how, std::uint64_t operand, std::memory_order o, site s);
  bool exchange_if(void* at, unsigned size, std::uint64_t& expected, std::uint64_t desired,
                   std::memory_order o, std::memory_order o_failed, site s);
  // The process-wide barrier: every thread's stores are in memory.
  void drain_all(const char* what);
  // A system call: the caller's stores are in memory.
  void system_call(const char* what, const void* object);
  // Until notify(object). False: the deadline came first, or no reason at all.
  bool wait(const void* object, nanos deadline);
  void notify(const void* object, std::size_t most);
  // Lets the others go on before it asks again.
  void yield();
  // Somewhere in the middle of plain code.
  void breathe(const char* what);
  // Plain memory, see plain_memory.
  void touch(const void* at, bool writes);
  void forget(const void* at) { plain_.forget(at); }

  // For the narration.
  void note(const char* what);

 private:
  enum class state : std::uint8_t { unborn, ready, waiting, finished };
  struct fiber {
    const char* name = "";
    std::function<void()> body;
    state is = state::unborn;
    bool yielded = false;
    bool told = false;  // notified, as opposed to expired
    const void* object = nullptr;
    nanos deadline = forever;
    std::uint64_t since = 0;  // among those who wait, who came first
    stamp knows;
    std::vector<pending_store> stores;
    ucontext_t context{};
    std::unique_ptr<unsigned char[]> stack;
    std::array<void*, 2> exceptions{};  // what the C++ runtime keeps for a thread
    std::vector<void*> own;
    struct {  // what it is at, for the narration
      std::uint32_t tick;
      const char* what;
      const void* at;
      site where;
    } at{};
  };
  static constexpr std::size_t stack_size = std::size_t{1} << 18;
  static constexpr unsigned most_options = 64;

  fiber& me() noexcept { return threads_[running_]; }
  bool playing() const noexcept { return running_ != 0; }
  location& arrive(const char* what, const void* at, bool writes, site s, bool& point);
  void pause();
  void give_way();
  unsigned collect(bool goes_on);
  void add_option(option::kind what, unsigned t, std::size_t drained, unsigned cost);
  void add_expiries(unsigned cost);
  void add_events();
  void add_others(bool preempts);
  const option& choose(unsigned count);
  void apply(const option& o);
  void switch_to(unsigned t);
  void drain_one(fiber& t);
  void drain(fiber& t, std::size_t count);
  void must_live(const void* at);
  void write(void* at, unsigned size, std::uint64_t value);
  static std::uint64_t read(const void* at, unsigned size);
  void step(const char* what, const void* at, site s);
  void tell(const char* format, ...) __attribute__((format(printf, 2, 3)));
  void say(const char* format, ...) __attribute__((format(printf, 2, 3)));
  void describe(const void* at, char* out, std::size_t room) const;
  [[noreturn]] void deadlock();
  bool on_own_stack(const void* at);
  void make_stack(fiber& f, void (*entry)(), unsigned self);
  static void enter(unsigned self);
  static void enter_scene();

  std::array<fiber, most_threads> threads_;
  ucontext_t outside_{};
  void (*scene_body_)() = nullptr;
  unsigned count_ = 1;
  unsigned running_ = 0;
  bool played_ = false;
  settings settings_;
  strategy* strategy_ = nullptr;
  std::uint32_t scene_ = 0;
  std::uint32_t tick_ = 0;
  std::uint64_t waits_ = 0;
  nanos now_ = 0;
  std::array<option, most_options> options_{};
  unsigned option_count_ = 0;
  std::vector<deviation> deviations_;
  std::vector<const void*> fresh_contention_;
  locations locations_;
  plain_memory plain_;
  pages pages_;
  std::vector<void**> own_;
  void (*report_)(const char*) = nullptr;
};

}  // namespace explore
