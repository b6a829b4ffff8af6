// queues.cpp - what a phase's queue costs by itself: waiters that nobody has to wake, and storms of cancels
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/bench.hpp"
#include "support/crowd.hpp"
#include "support/queues.hpp"

namespace {

using bench::kind;
using bench::sample;
using bench::scaled;
using hybridloop::wait_status;

namespace sync = hybridloop::sync;

template <class Queue>
using permits = hybridloop::detail::permits<Queue, sync::fifo>;

// ---- Waiters that count ----

enum class answer : std::uint32_t { none, waits, granted, cancelled };

// Told, it says how; nobody is woken.
template <class Queue>
class counting : public permits<Queue>::node {
  using node = typename permits<Queue>::node;

 public:
  counting() : node(&note) {}

  answer now() const { return answer_.load(std::memory_order_acquire); }
  void wait(permits<Queue>& of) {
    answer_.store(answer::waits, std::memory_order_relaxed);
    const std::ptrdiff_t had = of.take(1);
    if (of.queue_up(*this, 1, had)) note(*this);
  }

 private:
  static void note(hybridloop::detail::waiter<typename Queue::traits>& w) noexcept {
    auto& me = static_cast<counting&>(static_cast<node&>(w));
    const bool granted = w.status == wait_status::granted;
    me.answer_.store(granted ? answer::granted : answer::cancelled, std::memory_order_release);
  }
  std::atomic<answer> answer_{answer::none};
};

// One thread's share of the mix. It owes as many releases as it has waits that were not cancelled, and between 1
// and `most` of them: so there is never a permit, and all that is done goes through the queue.
template <class Queue>
class mixer {
 public:
  struct mix {
    std::size_t waits, releases, cancels;  // of 100
  };

  mixer(permits<Queue>& of, mix shares, std::size_t seed)
      : of_(of), shares_(shares), random_(seed) {
    wait();
  }
  mixer(mixer&& other) = delete;
  ~mixer() {
    while (owed_ != 0) release();
    for (const waiter& w : waiters_) {
      while (w.now() == answer::waits) std::this_thread::yield();
    }
  }

  void operator()() {
    const std::size_t roll = random_.below(100);
    if (roll < shares_.cancels) {
      cancel();
    } else if (owed_ == 1 || (owed_ < most && roll < shares_.cancels + shares_.waits)) {
      wait();
    } else {
      release();
    }
  }

 private:
  using waiter = counting<Queue>;
  static constexpr std::size_t most = 8;
  static constexpr std::size_t room = 256;

  // Those of a thread are served in order, or nearly so.
  void wait() {
    latest_ = (latest_ + 1) % room;
    while (waiters_[latest_].now() == answer::waits) std::this_thread::yield();
    waiters_[latest_].wait(of_);
    ++owed_;
  }
  void release() {
    --owed_;
    of_.give(1);
  }
  void cancel() {
    if (of_.leave(waiters_[latest_], wait_status::cancelled)) --owed_;
    if (owed_ == 0) wait();
  }

  permits<Queue>& of_;
  const mix shares_;
  crowd::dice random_;
  std::size_t owed_ = 0;
  std::size_t latest_ = 0;
  waiter waiters_[room];
};

template <class Queue>
sample mixed(std::size_t threads, typename mixer<Queue>::mix shares) {
  alignas(128) permits<Queue> of(0);
  const sample s = crowd::run(threads, [&](std::size_t i) {
    return [mine = std::make_unique<mixer<Queue>>(of, shares, i)] { (*mine)(); };
  });
  bench::must(of.account.available() == 0 && of.account.withdraw(1) == 0,
              "what was owed was given");
  return s;
}

// What no queue can do without: the account is one word, the queue another.
sample bare(std::size_t threads) {
  alignas(128) std::atomic<std::ptrdiff_t> account{0};
  alignas(128) std::atomic<std::ptrdiff_t> queue{0};
  return crowd::run(threads, [&](std::size_t) {
    return [&] {
      account.fetch_sub(1, std::memory_order_acq_rel);
      queue.fetch_add(1, std::memory_order_acq_rel);
    };
  });
}

void mixes(const bench::options& how) {
  for (const std::size_t cancels : {0u, 10u}) {
    const std::size_t share = (100 - cancels) / 2;
    for (const std::size_t threads : {1u, 2u, 4u, 8u, 16u, 32u, 64u}) {
      bench::family table("queue: " + std::to_string(share) + " % wait, " + std::to_string(share) +
                          " % release, " + std::to_string(cancels) +
                          " % cancel, threads: " + std::to_string(threads));
      queues::for_each([&](auto queue, const std::string& name) {
        using type = typename decltype(queue)::type;
        table.add(kind::ours, name, [=] { return mixed<type>(threads, {share, share, cancels}); });
      });
      table.add(kind::limit, "two bare read-modify-writes", [threads] { return bare(threads); });
      table.run(how);
    }
  }
}

// ---- Storms of cancels ----

enum class order { first_first, last_first, random };

const char* name_of(order o) {
  constexpr const char* names[] = {"first come, first gone", "last come, first gone",
                                   "in random order"};
  return names[static_cast<int>(o)];
}

constexpr std::size_t at_once = 1000;

// A thousand at a time, all of whom leave. Aside: by how much the heap had grown at the most.
template <class Queue>
sample storm(order o, bool behind_one_who_stays) {
  permits<Queue> of(0);
  counting<Queue> stays;
  std::deque<counting<Queue>> waiters(at_once);
  std::vector<std::size_t> who(at_once);
  for (std::size_t i = 0; i < at_once; ++i) who[i] = o == order::last_first ? at_once - 1 - i : i;
  if (o == order::random) std::shuffle(who.begin(), who.end(), std::mt19937(2024));
  const std::size_t rounds = (std::max)(std::size_t{1}, scaled(1000000) / at_once);
  std::size_t left = 0;
  const std::size_t before = bench::heap_bytes();
  std::size_t most = before;
  if (behind_one_who_stays) stays.wait(of);
  const sample timed = bench::timed(rounds * at_once, [&] {
    for (std::size_t round = 0; round < rounds; ++round) {
      for (counting<Queue>& w : waiters) w.wait(of);
      if (round % 16 == 0) most = (std::max)(most, bench::heap_bytes());
      for (const std::size_t i : who) {
        if (of.leave(waiters[i], wait_status::timed_out)) ++left;
      }
    }
  });
  most = (std::max)(most, bench::heap_bytes());
  bench::must(left == rounds * at_once, "everybody left");
  for (const counting<Queue>& w : waiters)
    bench::must(w.now() == answer::cancelled, "everybody was told");
  of.give(1);
  bench::must((stays.now() == answer::granted) == behind_one_who_stays,
              "who stayed got its permit");
  bench::must(of.account.available() == (behind_one_who_stays ? 0 : 1), "every permit once");
  sample s = timed;
  s.aside = static_cast<double>(most - before);
  return s;
}

void storms(const bench::options& how) {
  for (const bool behind : {false, true}) {
    for (const order o : {order::first_first, order::last_first, order::random}) {
      bench::family table(std::string("queue: wait and leave, 1000 at once, ") + name_of(o) +
                          (behind ? ", behind one who stays" : ""));
      queues::for_each([&](auto queue, const std::string& name) {
        using type = typename decltype(queue)::type;
        table.add(kind::ours, name, [=] { return storm<type>(o, behind); });
      });
      if (bench::heap_known) table.aside(": the heap had grown by", "bytes");
      table.run(how);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  mixes(how);
  storms(how);
}
