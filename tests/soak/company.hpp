// company.hpp - one mutex, event, condvar and channel that the threads and callbacks of a random program share
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include <hybridloop.hpp>

#include "soak/choices.hpp"
#include "soak/ledger.hpp"

namespace soak {

using hybridloop::wait_status;

// What one at a time may do. The count is a plain number: two at once are a race, which a sanitizer sees.
class turn {
 public:
  void take() {
    promise(!taken_.exchange(true, std::memory_order_relaxed), "a turn is one thread's, or one callback's");
    ++count_;
    taken_.store(false, std::memory_order_relaxed);
    done_.fetch_add(1, std::memory_order_relaxed);
  }
  void settle() const { promise(count_ == done_, "no turn is lost"); }

 private:
  std::atomic<bool> taken_{false};
  std::atomic<std::uint64_t> done_{0};
  std::uint64_t count_ = 0;
};

// By what a turn is had, or an answer waited for.
enum class kind { mutex, event, condvar, latch };
constexpr kind kinds_of_turns[] = {kind::mutex, kind::event, kind::condvar};
constexpr kind kinds_of_answers[] = {kind::event, kind::condvar, kind::latch};

// Made of some queue.
template <class Traits>
class company {
 public:
  using loop = hybridloop::basic_loop<Traits>;
  using clock = typename Traits::clock;
  using ticket = hybridloop::basic_wait_ticket<Traits>;
  using options = hybridloop::basic_wait_options<clock>;
  using span = std::optional<std::chrono::nanoseconds>;

  company() = default;
  company(const company&) = delete;
  company& operator=(const company&) = delete;
  virtual ~company() = default;

  // Waits, for so long at most; a span of 0 does not wait.
  virtual void take_turn(kind by, span most) = 0;
  // A callback does. An empty ticket: it is not called.
  virtual ticket take_turn_on(loop& l, kind by, entry& e, const options& how) = 0;
  virtual bool cancel(kind by, const ticket& which) = 0;

  // Waits for room, and then for the answer of who receives, on what is gone right after it. False: no room in that span.
  virtual bool ask(entry& e, span most, kind by) = 0;
  virtual bool send(entry& e, span most) = 0;
  virtual ticket send_on(loop& l, entry& told, entry& e, const options& how) = 0;
  virtual ticket receive_on(loop& l, entry& told, const options& how) = 0;
  // Whether what one thread sends is received in that order.
  virtual bool in_order() const = 0;

  // Nobody sends any more.
  virtual void end() = 0;
  virtual void settle() const = 0;
};

template <class Queue, class Traits>
class company_of final : public company<Traits> {
  using base = company<Traits>;
  using typename base::loop;
  using typename base::options;
  using typename base::span;
  using typename base::ticket;
  using latch = hybridloop::basic_latch<Queue>;
  using opening = hybridloop::basic_event<Queue, hybridloop::sync::manual_reset>;

  // Gone as soon as who waits for the answer has it.
  struct desk {
    explicit desk(kind k) : by(k) {}

    void answer() {
      if (by == kind::latch) return done.count_down();
      if (by == kind::event) return open.set();
      const std::lock_guard<std::mutex> held(lock);
      answered = true;
      called.notify_one();
    }
    void wait() {
      if (by == kind::latch) return done.wait();
      if (by == kind::event) return open.wait();
      std::unique_lock<std::mutex> held(lock);
      called.wait(held, [this] { return answered; });
    }

    const kind by;
    latch done{1};
    opening open;
    std::mutex lock;
    hybridloop::basic_condvar<Queue> called;
    bool answered = false;
  };
  struct value {
    charge e;
    desk* asked_at = nullptr;

    void answer() {
      e.run();
      if (asked_at != nullptr) asked_at->answer();
    }
  };

 public:
  // `receiver`: a thread that receives all the time.
  company_of(choices& c, bool receiver) : ordered_(receiver && c.one_in(2)), values_(c.between(1, 4)) {
    if (receiver) receiver_ = std::thread([this] { receive_all(); });
  }
  ~company_of() override { end(); }

  void take_turn(kind by, span most) override {
    if (by == kind::mutex) return by_mutex(most);
    if (by == kind::event) return by_event(most);
    by_condvar(most);
  }
  ticket take_turn_on(loop& l, kind by, entry& e, const options& how) override {
    if (by == kind::mutex) {
      return mutex_.async_lock(l, told(e, by, [this] { give_mutex(); }), how);
    }
    if (by == kind::event) return free_.async_wait(l, told(e, by, [this] { give_event(); }), how);
    const std::lock_guard<std::mutex> held(lock_);
    if (!busy_) return {};
    return freed_.async_wait(l, told(e, by, [this] { by_condvar(std::chrono::nanoseconds(0)); }), how);
  }
  bool cancel(kind by, const ticket& which) override {
    return by == kind::mutex ? mutex_.cancel(which) : by == kind::event ? free_.cancel(which) : freed_.cancel(which);
  }

  bool ask(entry& e, span most, kind by) override {
    desk here(by);
    value v{charge(e), &here};
    if (!give(v, most)) return false;
    here.wait();
    promise(e.ran == 1, "an answer comes after what it answers");
    return true;
  }
  bool send(entry& e, span most) override {
    value v{charge(e)};
    return give(v, most);
  }
  ticket send_on(loop& l, entry& told, entry& e, const options& how) override {
    return values_.async_send(l, value{charge(e)}, [&e, heard = charge(told)](wait_status s) {
      heard.run();
      e.accepted = s == wait_status::granted;
    }, how);
  }
  ticket receive_on(loop& l, entry& told, const options& how) override {
    return values_.async_receive(l, [heard = charge(told)](wait_status s, std::optional<value> v) {
      heard.run();
      promise((s == wait_status::granted) == v.has_value(), "who is granted a value has one");
      if (v) v->answer();
    }, how);
  }
  bool in_order() const override { return ordered_; }

  void end() override {
    values_.close();
    if (receiver_.joinable()) receiver_.join();
    receive_all();
  }
  void settle() const override {
    for (const turn& t : turns_) t.settle();
  }

 private:
  turn& turn_of(kind by) { return turns_[static_cast<std::size_t>(by)]; }

  // What a callback hears; `granted` is its turn.
  template <class Granted>
  auto told(entry& e, kind by, const Granted& granted) {
    static_cast<void>(by);
    return [heard = charge(e), granted](wait_status s) {
      heard.run();
      if (s == wait_status::granted) granted();
    };
  }

  void by_mutex(span most) {
    if (!most) mutex_.lock();
    else if (most->count() == 0 ? !mutex_.try_lock() : !mutex_.try_lock_for(*most)) return;
    give_mutex();
  }
  void give_mutex() {
    turn_of(kind::mutex).take();
    mutex_.unlock();
  }

  // Set while nobody has a turn.
  void by_event(span most) {
    if (!most) free_.wait();
    else if (most->count() == 0 ? !free_.try_wait() : !free_.wait_for(*most)) return;
    give_event();
  }
  void give_event() {
    turn_of(kind::event).take();
    free_.set();
  }

  // Whoever finds that another one was faster has that one's notification to rely on.
  void by_condvar(span most) {
    std::unique_lock<std::mutex> held(lock_);
    const auto idle = [this] { return !busy_; };
    if (!most) freed_.wait(held, idle);
    else if (most->count() == 0 ? busy_ : !freed_.wait_for(held, *most, idle)) return;
    busy_ = true;
    held.unlock();
    turn_of(kind::condvar).take();
    held.lock();
    busy_ = false;
    const bool all = ++given_ % 4 == 0;
    if (given_ % 2 == 0) held.unlock();
    all ? freed_.notify_all() : freed_.notify_one();
  }

  bool give(value& v, span most) {
    if (!most) return values_.send(std::move(v)) == wait_status::granted;
    return most->count() == 0 ? values_.try_send(std::move(v)) : values_.try_send_for(*most, std::move(v));
  }
  void receive_all() {
    while (auto v = values_.receive()) v->answer();
  }

  const bool ordered_;
  turn turns_[3];
  hybridloop::basic_mutex<Queue> mutex_;
  hybridloop::basic_event<Queue, hybridloop::sync::auto_reset> free_{true};
  std::mutex lock_;
  hybridloop::basic_condvar<Queue> freed_;
  bool busy_ = false;
  unsigned given_ = 0;
  hybridloop::basic_channel<value, Queue> values_;
  std::thread receiver_;
};

// Of the kind that goes with the loop.
template <class Traits>
std::unique_ptr<company<Traits>> some_company(const hybridloop::basic_loop<Traits>&, choices& c, bool receiver) {
  namespace sync = hybridloop::sync;
  switch (c.below(5)) {
    case 0: return std::make_unique<company_of<sync::basic_queue0<Traits>, Traits>>(c, receiver);
    case 1: return std::make_unique<company_of<sync::basic_queue1<Traits>, Traits>>(c, receiver);
    case 2: return std::make_unique<company_of<sync::basic_queue2<Traits>, Traits>>(c, receiver);
    case 3: return std::make_unique<company_of<sync::basic_queue3<Traits>, Traits>>(c, receiver);
    default: return std::make_unique<company_of<sync::basic_queue_locked<Traits>, Traits>>(c, receiver);
  }
}
template <class Loop>
using company_for =
    typename decltype(some_company(std::declval<const Loop&>(), std::declval<choices&>(), true))::element_type;

}  // namespace soak
