// permits.hpp - permits that the threads and callbacks of a random program share, in any phase, handed out in either way
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <utility>

#include <hybridloop.hpp>

#include "soak/choices.hpp"
#include "soak/ledger.hpp"

namespace soak {

using hybridloop::wait_status;

// A semaphore of some kind. How many are held, by whomever, is counted here.
template <class Traits>
class permits {
 public:
  using loop = hybridloop::basic_loop<Traits>;
  using clock = typename Traits::clock;
  using ticket = hybridloop::basic_wait_ticket<Traits>;
  using options = hybridloop::basic_wait_options<clock>;

  // One wait of a callback. Where it is kept it stays until the loop is gone.
  struct wait {
    wait(permits& p, entry& e, const options& o) : from(p), what(e), how(o) {}
    permits& from;
    entry& what;
    const options how;
    ticket id;
    bool cancelled = false;  // and it was answered so; written by who waits
    std::atomic<bool> heard_cancel{false};
  };

  explicit permits(std::ptrdiff_t total) : total_(total) {}
  permits(const permits&) = delete;
  permits& operator=(const permits&) = delete;
  virtual ~permits() = default;

  virtual bool acquire(std::ptrdiff_t n) = 0;
  virtual bool try_acquire_for(std::chrono::nanoseconds span, std::ptrdiff_t n) = 0;
  virtual bool try_acquire(std::ptrdiff_t n) = 0;
  virtual void begin(loop& l, wait& w) = 0;
  virtual bool cancel(const ticket& which) = 0;
  virtual void close() = 0;
  virtual bool closed() const = 0;

  std::ptrdiff_t total() const { return total_; }
  void hold(std::ptrdiff_t n) { promise((held_ += n) <= total_, "no more permits are held than there are"); }
  void give_back(std::ptrdiff_t n) {
    held_ -= n;
    release(n);
  }

  // Nobody waits or holds any more.
  void settle() const {
    promise(held_ == 0, "what was held was given back");
    promise(available() == total_, "no permit is lost or made");
  }

 protected:
  // What a callback is told, and what it does then.
  struct listener {
    wait& w;
    charge e;
    void operator()(wait_status how) const {
      e.run();
      w.from.check(w, how);
      if (how != wait_status::granted) return;
      w.from.hold(w.how.n);
      w.from.give_back(w.how.n);
    }
  };

  virtual void release(std::ptrdiff_t n) = 0;
  virtual std::ptrdiff_t available() const = 0;

 private:
  void check(wait& w, wait_status how) const {
    w.heard_cancel = how == wait_status::cancelled;
    promise(how != wait_status::closed || closed(), "only what was closed says so");
    promise(how != wait_status::timed_out || (w.how.deadline && *w.how.deadline <= clock::now()), "no wait ends before its time");
  }

  const std::ptrdiff_t total_;
  std::atomic<std::ptrdiff_t> held_{0};
};

template <class Semaphore, class Traits>
class permits_of final : public permits<Traits> {
  using base = permits<Traits>;

 public:
  explicit permits_of(std::ptrdiff_t total) : base(total), semaphore_(total) {}

  bool acquire(std::ptrdiff_t n) override { return semaphore_.acquire(n) == wait_status::granted; }
  bool try_acquire_for(std::chrono::nanoseconds span, std::ptrdiff_t n) override { return semaphore_.try_acquire_for(span, n); }
  bool try_acquire(std::ptrdiff_t n) override { return semaphore_.try_acquire(n); }
  void begin(typename base::loop& l, typename base::wait& w) override {
    w.id = semaphore_.async_acquire(l, typename base::listener{w, charge(w.what)}, w.how);
  }
  bool cancel(const typename base::ticket& which) override { return semaphore_.cancel(which); }
  void close() override { semaphore_.close(); }
  bool closed() const override { return semaphore_.closed(); }

 private:
  void release(std::ptrdiff_t n) override { semaphore_.release(n); }
  std::ptrdiff_t available() const override { return semaphore_.available(); }

  Semaphore semaphore_;
};

template <class Traits, class Queue>
std::unique_ptr<permits<Traits>> permits_on(bool barging, std::ptrdiff_t total) {
  using fifo = hybridloop::basic_semaphore<Queue>;
  using robbed = hybridloop::basic_semaphore<Queue, hybridloop::sync::barging>;
  if (barging) return std::make_unique<permits_of<robbed, Traits>>(total);
  return std::make_unique<permits_of<fifo, Traits>>(total);
}

// Of the kind that goes with the loop.
template <class Traits>
std::unique_ptr<permits<Traits>> some_permits(const hybridloop::basic_loop<Traits>&, choices& c) {
  namespace sync = hybridloop::sync;
  const bool barging = c.one_in(3);
  const auto total = static_cast<std::ptrdiff_t>(c.between(1, 4));
  switch (c.below(5)) {
    case 0: return permits_on<Traits, sync::basic_queue0<Traits>>(barging, total);
    case 1: return permits_on<Traits, sync::basic_queue1<Traits>>(barging, total);
    case 2: return permits_on<Traits, sync::basic_queue2<Traits>>(barging, total);
    case 3: return permits_on<Traits, sync::basic_queue3<Traits>>(barging, total);
    default: return permits_on<Traits, sync::basic_queue_locked<Traits>>(barging, total);
  }
}
template <class Loop>
using permits_for = typename decltype(some_permits(std::declval<const Loop&>(), std::declval<choices&>()))::element_type;

}  // namespace soak
