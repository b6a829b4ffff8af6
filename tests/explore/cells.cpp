// cells.cpp - scenarios: waits and tokens that meet in cells, and segments that come and go
#include <memory>
#include <new>

#include "explore/scene.hpp"
#include "explore/waiting.hpp"

namespace explore {

// Who blocks does not look before it sleeps: how long that pays is learned from scene to scene.
struct one_cpu : kernel {
  static unsigned usable_cpus() noexcept { return 1; }
};

struct cell_traits : symmetric_traits {
  using kernel = one_cpu;
};
// The same, but they are used again.
struct thrifty_traits : cell_traits {};

}  // namespace explore

template <>
struct hybridloop::detail::epoch_memory<explore::cell_traits> : explore::page_memory {
  static constexpr bool reuses = false;
};
template <>
struct hybridloop::detail::epoch_memory<explore::thrifty_traits> : explore::page_memory {
  static constexpr bool reuses = true;
};

using namespace explore;

namespace {

using hybridloop::wait_status;

template <class Traits>
using cells_of_two = hybridloop::sync::basic_queue2<Traits, 2>;

// A semaphore in memory that is gone when it is destroyed, and what is known of its permits.
template <class Traits>
class permits {
  using queue = cells_of_two<Traits>;
  using semaphore = hybridloop::basic_semaphore<queue, hybridloop::sync::fifo>;

 public:
  explicit permits(std::ptrdiff_t n) : there_(n) {
    queue::memory::forget_all();
    made_ = ::new (engine::the().memory().take(sizeof(semaphore))) semaphore(n);
  }
  permits(const permits&) = delete;
  permits& operator=(const permits&) = delete;
  ~permits() {
    destroy();
    queue::memory::forget_all();
  }

  semaphore& operator*() { return *made_; }
  void destroy() {
    if (made_ == nullptr) return;
    made_->~semaphore();
    engine::the().memory().give(made_, sizeof(semaphore));
    made_ = nullptr;
  }

  wait_status acquire(std::ptrdiff_t n = 1) {
    const wait_status how = made_->acquire(n);
    if (how == wait_status::granted) took(n);
    return how;
  }
  // Time runs out when nobody else can go on, or before.
  bool acquire_in_time(std::ptrdiff_t n = 1) {
    const bool had = made_->try_acquire_for(std::chrono::nanoseconds(1000), n);
    if (had) took(n);
    return had;
  }
  void release(std::ptrdiff_t n = 1) {
    there_ += n;
    made_->release(n);
  }
  // Nobody waits, and none is lost.
  void check() {
    ledger::must(made_->available() == there_, "a permit was lost, or is there twice");
    for (std::ptrdiff_t k = 0; k != there_; ++k) ledger::must(made_->try_acquire(), "a permit was lost");
  }

 private:
  void took(std::ptrdiff_t n) {
    there_ -= n;
    ledger::must(there_ >= 0, "a permit was taken twice");
  }

  semaphore* made_ = nullptr;
  std::ptrdiff_t there_;
};

}  // namespace

EXPLORE(token_meets_waiter, 3) {
  permits<cell_traits> p(0);
  start("waiter", [&] { ledger::must(p.acquire() == wait_status::granted, "told a thing that is not so"); });
  start("sender", [&] { p.release(); });
  play();
  p.check();
}

// What was done before a release is seen by whoever gets the permit.
template <class Traits>
static void hand_over() {
  permits<Traits> p(0);
  int message = 0;
  start("waiter", [&] {
    static_cast<void>(p.acquire());
    engine::the().touch(&message, false);
  });
  start("sender", [&] {
    engine::the().touch(&message, true);
    p.release();
  });
  play();
  p.check();
}
EXPLORE(token_hands_over, 3) { hand_over<cell_traits>(); }

EXPLORE(leaves_and_token, 3) {
  permits<cell_traits> p(0);
  start("waiter", [&] { p.acquire_in_time(); });
  start("sender", [&] { p.release(); });
  play();
  p.check();
}

// One of them leaves; its token is the other's.
EXPLORE(one_leaves_one_stays, 2) {
  permits<cell_traits> p(0);
  start("leaver", [&] {
    if (p.acquire_in_time()) p.release();
  });
  start("stayer", [&] { ledger::must(p.acquire() == wait_status::granted, "told a thing that is not so"); });
  start("sender", [&] { p.release(); });
  play();
  p.check();
}

EXPLORE(both_leave, 2) {
  permits<cell_traits> p(0);
  for (const char* name : {"one", "two"}) {
    start(name, [&] { p.acquire_in_time(); });
  }
  start("sender", [&] { p.release(); });
  play();
  p.check();
}

EXPLORE(batch_leaves, 2) {
  permits<cell_traits> p(0);
  start("batch", [&] { p.acquire_in_time(2); });
  start("one", [&] { p.release(); });
  start("two", [&] { p.release(); });
  play();
  p.check();
}

// Three cells stand in two segments. What the batch had is the other's.
EXPLORE(batch_leaves_and_another_waits, 2) {
  permits<cell_traits> p(0);
  start("batch", [&] {
    if (p.acquire_in_time(3)) p.release(3);
  });
  start("single", [&] {
    ledger::must(p.acquire() == wait_status::granted, "told a thing that is not so");
    p.release();
  });
  start("sender", [&] { p.release(2); });
  play();
  p.check();
}

// One of them finds a permit there, the other comes to the queue first: neither keeps half of it.
EXPLORE(two_batches, 2) {
  permits<cell_traits> p(1);
  for (const char* name : {"one", "two"}) {
    start(name, [&] {
      ledger::must(p.acquire(2) == wait_status::granted, "told a thing that is not so");
      p.release(2);
    });
  }
  start("sender", [&] { p.release(); });
  play();
  p.check();
}

EXPLORE(close_meets_waiters, 2) {
  permits<cell_traits> p(0);
  start("waiter", [&] { static_cast<void>(p.acquire()); });
  start("batch", [&] { p.acquire_in_time(2); });
  start("closer", [&] { (*p).close(); });
  play();
  ledger::must((*p).available() == 0, "a permit was made");
}

EXPLORE(close_and_release, 2) {
  permits<cell_traits> p(0);
  start("batch", [&] { static_cast<void>(p.acquire(2)); });
  start("sender", [&] { p.release(); });
  start("closer", [&] { (*p).close(); });
  play();
  ledger::must((*p).available() == 1, "a permit was lost, or is there twice");
}

// Who was told destroys it while others are on their way out.
EXPLORE(told_and_destroys, 3) {
  permits<cell_traits> p(0);
  start("waiter", [&] {
    static_cast<void>(p.acquire(2));
    p.destroy();
  });
  start("one", [&] { p.release(); });
  start("two", [&] { p.release(); });
  play();
}
EXPLORE(told_late_and_destroys, 3) {
  permits<cell_traits> p(0);
  start("waiter", [&] {
    if (!p.acquire_in_time()) static_cast<void>(p.acquire());
    p.destroy();
  });
  start("sender", [&] { p.release(); });
  play();
}

// Rounds through segments of two cells, which are over again and again while others stand in them.
template <class Traits>
static void rounds(unsigned many) {
  permits<Traits> p(0);
  start("waiter", [&, many] {
    for (unsigned k = 0; k != many; ++k) static_cast<void>(p.acquire());
  });
  start("leaver", [&, many] {
    for (unsigned k = 0; k != many; ++k) {
      if (p.acquire_in_time()) p.release();
    }
  });
  start("sender", [&, many] {
    for (unsigned k = 0; k != many; ++k) p.release();
  });
  play();
  p.check();
}
EXPLORE(segments_given_back, 2) { rounds<cell_traits>(4); }
EXPLORE(segments_used_again, 2) { rounds<thrifty_traits>(6); }

// Two that come and go behind one that waits: whole segments are taken out in between.
EXPLORE(segments_in_the_middle, 2) {
  permits<thrifty_traits> p(0);
  last_one done(2, [&] { p.release(); });
  start("waiter", [&] { static_cast<void>(p.acquire()); });
  for (const char* name : {"one", "two"}) {
    start(name, [&] {
      for (unsigned k = 0; k != 2; ++k) p.acquire_in_time();
      done.done();
    });
  }
  play();
  p.check();
}

// A notification that somebody takes along who leaves is lost to the one who stays.
EXPLORE(notified_and_left, 2) {
  using queue = cells_of_two<cell_traits>;
  using condition = hybridloop::detail::primitive<queue, hybridloop::detail::notice_account<cell_traits>>;
  queue::memory::forget_all();
  {
    condition c;
    const auto notify = [&] {
      std::ptrdiff_t n = 0;
      while ((n = c.account.notify(1)) == 0) one_cpu::yield();
      c.send(n, wait_status::granted);
    };
    const auto wait = [&](nanos deadline) {
      hybridloop::detail::thread_waiter<condition> w(c, true);
      w.begin(1, 0);
      c.account.enter();
      c.join(w);
      return hybridloop::detail::wait_until_told(c, w, deadline) == wait_status::granted;
    };
    start("stayer", [&] { ledger::must(wait(forever), "told a thing that is not so"); });
    start("leaver", [&] {
      if (wait(engine::the().now() + 1000)) notify();
    });
    start("notifier", [&] { notify(); });
    play();
  }
  queue::memory::forget_all();
}
