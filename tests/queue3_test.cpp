// queue3_test.cpp - requests: whoever is stopped anywhere holds up no call, and at most what it was about to deliver
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <hybridloop.hpp>

#include "support/queues.hpp"
#include "support/race.hpp"
#include "support/support.hpp"

using namespace support;
using hybridloop::wait_status;

namespace {

// A thread stops where it was told to, until it is told how far it may go. Where the queue is asked by one that is
// not stopped there, it loses its CPU every few times.
struct halting_traits : stuttering_traits {
  class thread {
   public:
    thread(const char* where, std::function<void()> work) : where_(where) {
      own_ = std::thread([this, work = std::move(work)] {
        mine = this;
        work();
        mine = nullptr;
        over_ = true;
      });
      await_halt();
    }
    thread(const thread&) = delete;
    thread& operator=(const thread&) = delete;
    ~thread() { go_on(); }

    // To the next such point.
    void go_to(const char* where) {
      halted_ = false;
      where_ = where;
      await_halt();
    }
    void go_on() {
      where_ = nullptr;
      if (own_.joinable()) own_.join();
    }
    bool halted() const { return halted_; }

   private:
    friend halting_traits;
    void reach(const char* name) {
      const char* const here = where_;
      if (here == nullptr || std::strcmp(here, name) != 0) return;
      halted_ = true;
      while (where_ == here) std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    void await_halt() const {
      while (!halted_ && !over_) std::this_thread::yield();
    }

    std::atomic<const char*> where_;
    std::atomic<bool> halted_{false};
    std::atomic<bool> over_{false};
    std::thread own_;
  };

  static inline thread_local thread* mine = nullptr;
  static void schedule_point(const char* name) noexcept {
    if (mine != nullptr) return mine->reach(name);
    stuttering_traits::schedule_point(name);
  }
};

// A semaphore, without the threads that wait.
template <class Queue>
class crowd {
  using core_type = hybridloop::detail::primitive<Queue, hybridloop::detail::permit_account<typename Queue::traits>>;

 public:
  class one : public Queue::node {
   public:
    one() : Queue::node(&hear) {}
    std::atomic<int> told{0};
    std::atomic<std::size_t>* total = nullptr;

   private:
    static void hear(hybridloop::detail::waiter<typename Queue::traits>& w, hybridloop::detail::nudges<typename Queue::traits>&) noexcept {
      auto& me = static_cast<one&>(w);
      auto& all = *me.total;
      ++me.told;
      ++all;
    }
  };

  void join(one& w) {
    w.total = &told;
    w.begin(1, core_.account.take(1));
    core_.join(w);
  }
  void give() {
    ++given;
    core_.send(core_.account.give(1), wait_status::granted);
  }
  bool leave(one& w) { return core_.leave(w, wait_status::cancelled); }
  void close() { core_.send(core_.account.close(), wait_status::closed); }
  std::ptrdiff_t available() const { return core_.account.available(); }

  std::atomic<std::size_t> told{0};
  std::atomic<std::size_t> given{0};

 private:
  core_type core_{std::ptrdiff_t{0}};
};

// Threads that have one after the other join, and then leave, or have a permit released.
template <class Queue>
class others {
  using one = typename crowd<Queue>::one;

 public:
  others(crowd<Queue>& c, std::size_t each) : each_(each) {
    std::vector<scoped_thread> threads;
    for (std::size_t k = 0; k < count; ++k) {
      all_[k] = std::make_unique<one[]>(each);
      threads.emplace_back([this, &c, k] {
        dice chance(k + 1);
        for (std::size_t i = 0; i < each_; ++i) {
          one& w = all_[k][i];
          c.join(w);
          if (chance.roll(3) != 0 || !c.leave(w)) c.give();
        }
      });
    }
  }
  std::size_t waits() const { return count * each_; }
  template <class F>
  void each(const F& f) const {
    for (const auto& some : all_) {
      for (std::size_t i = 0; i < each_; ++i) f(some[i]);
    }
  }

 private:
  static constexpr std::size_t count = 3;
  const std::size_t each_;
  std::unique_ptr<one[]> all_[count];
};

enum class call { join, give, leave };

struct window {
  const char* where;
  call what;
  bool alone;      // it finds nobody at work
  bool delivers;   // it is the owner there
};
constexpr window windows[] = {
    {"joining", call::join, true, false},
    {"sending", call::give, true, false},
    {"promised", call::leave, true, false},
    {"entered", call::join, false, false},
    {"entered", call::give, false, false},
    {"entered", call::leave, false, false},
    {"asked", call::join, false, false},
    {"asked", call::give, false, false},
    {"asked", call::leave, false, false},
    {"owner", call::join, true, true},
    {"owner", call::give, true, true},
    {"owner", call::leave, true, true},
    {"served", call::join, true, true},
    {"served", call::give, true, true},
    {"served", call::leave, true, true},
    {"requests-there", call::join, false, true},
    {"requests-there", call::give, false, true},
    {"requests-there", call::leave, false, true},
    {"leaves-taken", call::join, false, true},
    {"leaves-taken", call::leave, false, true},
    {"waiters-served", call::give, false, true},
    {"waiters-served", call::leave, false, true},
    {"served", call::leave, false, true},
};

}  // namespace

TEST_SUITE_BEGIN("queue3");

TEST_CASE("a thread that is stopped in any window holds up no call, and what it was to deliver comes when it goes on") {
  using queue = hybridloop::sync::basic_queue3<halting_traits>;
  using halted = halting_traits::thread;
  for (const window& here : windows) {
    CAPTURE(here.where);
    CAPTURE(static_cast<int>(here.what));
    crowd<queue> c;
    typename crowd<queue>::one mine, another;
    c.join(mine);
    const auto act = [&] {
      if (here.what == call::join) c.join(another);
      if (here.what == call::give) c.give();
      if (here.what == call::leave) static_cast<void>(c.leave(mine));
    };
    std::optional<halted> owner;
    typename crowd<queue>::one of_the_owner;
    if (!here.alone) owner.emplace("owner", [&] { c.join(of_the_owner); });
    halted victim(here.alone ? here.where : "entered", act);
    if (owner) {
      REQUIRE(owner->halted());
      owner->go_on();
      if (std::strcmp(here.where, "entered") != 0) victim.go_to(here.where);
    }
    REQUIRE(victim.halted());
    const std::size_t before = c.told;

    const others<queue> rest(c, scaled(2000, 100));  // nobody hangs
    const std::size_t meanwhile = c.told - before;

    if (here.delivers) {
      CHECK(meanwhile == 0);
    } else {
      CHECK(meanwhile + 3 >= rest.waits());  // but for those whose place or token the victim has in hand
    }
    victim.go_on();
    CHECK(c.told - before + 3 >= rest.waits());
    c.close();
    std::size_t granted = 0, wrong = 0;
    const auto count = [&](const auto& w) {
      if (w.told != 1) ++wrong;
      if (w.status == wait_status::granted) ++granted;
    };
    rest.each(count);
    count(mine);
    if (here.what == call::join) count(another);
    if (!here.alone) count(of_the_owner);
    CHECK(wrong == 0);
    CHECK(granted + static_cast<std::size_t>(c.available()) == c.given);
  }
}

TEST_CASE("signals for two who left in one round let two others through") {
  using queue = hybridloop::sync::basic_queue3<halting_traits>;
  hybridloop::basic_loop<halting_traits> l;
  hybridloop::basic_event<queue, hybridloop::sync::auto_reset> e;
  int through = 0;
  std::vector<hybridloop::basic_wait_ticket<halting_traits>> waits;
  for (int i = 0; i < 5; ++i) {
    waits.push_back(e.async_wait(l, [&through](wait_status how) { through += how == wait_status::granted; }));
  }

  halting_traits::thread owner("served", [&e] { e.set(); });
  REQUIRE(owner.halted());
  e.set();
  e.set();
  owner.go_to("leaves-taken");
  REQUIRE(owner.halted());
  CHECK(e.cancel(waits[1]));
  CHECK(e.cancel(waits[2]));
  owner.go_on();
  l.run_until_idle();

  CHECK(through == 3);
  CHECK_FALSE(e.is_set());
}

TEST_SUITE_END();
