// actor.hpp - one thread's random program: it gives a loop all sorts of work, and checks what it is told
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include "soak/choices.hpp"
#include "soak/ledger.hpp"
#include "soak/member.hpp"
#include "soak/permits.hpp"
#include "soak/pipe.hpp"
#include "soak/tasks.hpp"

namespace soak {

using namespace std::chrono_literals;
using hybridloop::overflow;
using hybridloop::post_result;

// What all actors of a round know.
template <class Loop>
struct stage {
  Loop& loop;
  overflow when_full;
  bool alone;              // one thread does everything: nothing may wait for another
  std::size_t depth = 0;   // nested runs; the loop's
  std::atomic<std::uint64_t> operations{0};
  std::unique_ptr<permits_for<Loop>> shared = nullptr;
  std::unique_ptr<company_for<Loop>> company = nullptr;
};

template <class Loop>
class actor {
 public:
  actor(stage<Loop>& all, choices& c)
      : all_(all), loop_(all.loop), choose_(c), handle_(loop_.handle()), shared_(*all.shared), member_(*all.company, loop_, c) {}
  actor(const actor&) = delete;
  actor& operator=(const actor&) = delete;

  // From one thread at a time, which may be the loop's.
  void step() {
    constexpr void (actor::*work[])() = {
        &actor::post,        &actor::post,   &actor::post,       &actor::try_post,    &actor::post_range,
        &actor::post_by_handle, &actor::dispatch, &actor::invoke, &actor::post_family, &actor::post_nested,
        &actor::arm,         &actor::arm,    &actor::arm_often,  &actor::cancel,      &actor::reschedule,
        &actor::open_lane,   &actor::post_to_lane, &actor::post_to_lane, &actor::close_lane,
        &actor::watch,       &actor::feed,   &actor::feed,       &actor::unwatch,     &actor::interrupt,   &actor::pause,     &actor::await_run,
        &actor::await_run,   &actor::acquire, &actor::acquire,   &actor::take,        &actor::give_back,   &actor::wait,
        &actor::wait,        &actor::wait,   &actor::cancel_wait, &actor::close_permits,
        &actor::take_turn,   &actor::take_turn, &actor::take_turn, &actor::take_turn, &actor::cancel_turn,
        &actor::ask,         &actor::ask,    &actor::send,       &actor::send,     &actor::receive};
    (this->*choose_.any_of(work))();
    all_.operations.fetch_add(1, std::memory_order_relaxed);
  }

  // Waits for whatever must come while the loop still runs: for ever, if it was lost.
  void finish() {
    lane_.reset();
    give_back();
    for (wait_type& w : waits_) await([&w] { return w.what.ran != 0; });
    member_.finish([this](const auto& done) { this->await(done); });
    await_told();
    unwatch();
    for (alarm& a : alarms_) {
      if (a.repeats) {
        a.cancelled = loop_.cancel(a.id) || a.cancelled;
      } else if (!a.cancelled) {
        await([&a] { return a.what->ran != 0; });
      }
    }
  }

  // The loop is gone, and every thread but this one.
  void settle(bool drained) const {
    entries_.settle(drained);
    waited_.settle(false);
    member_.settle();
    for (const wait_type& w : waits_) {
      promise(!w.cancelled || w.what.ran == 0 || w.heard_cancel, "a cancel that answers true is heard, if anything is");
    }
    for (const alarm& a : alarms_) {
      promise(a.what->alive == 0, "a timer's closure is destroyed");
      promise(!a.cancelled || a.repeats || a.what->ran == 0, "a timer whose cancel was heard never fires");
    }
  }

 private:
  using clock = typename Loop::clock;
  using nanoseconds = std::chrono::nanoseconds;
  using wait_type = typename permits_for<Loop>::wait;

  // ---- Posting ----

  void note(entry& e, post_result result) {
    e.accepted = result == post_result::accepted;
    promise(result != post_result::closed || loop_.closed(), "only a closed loop answers closed");
  }
  void note_unless_full(entry& e, post_result result) {
    note(e, result);
    promise(result != post_result::full || all_.when_full == overflow::fail, "only `fail` answers full");
  }

  void post() {
    entry& e = entries_.open(&mine_);
    switch (choose_.below(4)) {
      case 0: return note_unless_full(e, loop_.post(task(e)));
      case 1: return note_unless_full(e, loop_.post(large(e)));
      case 2: return note_unless_full(e, loop_.post(throwing(e)));
      default: return note_unless_full(e, loop_.post(task(e)));
    }
  }
  // A wake that is lost keeps it, and with it everybody, until something else wakes the loop.
  void await_run() {
    entry& e = entries_.open(&mine_);
    note_unless_full(e, loop_.post(task(e)));
    if (e.accepted) await([&e] { return e.ran != 0; });
  }
  void try_post() {
    entry& e = entries_.open(&mine_);
    note(e, loop_.try_post(task(e)));
  }
  void post_by_handle() {
    entry& e = entries_.open(&mine_);
    note_unless_full(e, handle_.post(task(e)));
  }
  void dispatch() {
    entry& e = entries_.open(loop_.running_in_this_thread() ? nullptr : &mine_);
    note_unless_full(e, loop_.dispatch(task(e)));
  }
  void post_range() {
    std::vector<entry*> given;
    auto tasks = std::vector<decltype(task(std::declval<entry&>()))>();
    for (std::size_t n = choose_.between(1, 40); n != 0; --n) {
      given.push_back(&entries_.open(&mine_));
      tasks.push_back(task(*given.back()));
    }
    const auto told = loop_.post_range(std::make_move_iterator(tasks.begin()), std::make_move_iterator(tasks.end()));
    promise(told.accepted <= given.size(), "no more is accepted than was given");
    for (std::size_t i = 0; i < told.accepted; ++i) given[i]->accepted = true;
    promise(told.accepted == given.size() || told.result != post_result::accepted, "a range that is not whole says why");
  }

  // One that gives more work from inside.
  void post_family() {
    entry& parent = entries_.open(&mine_);
    entry& child = entries_.open(nullptr);
    entry& later = entries_.open(nullptr);
    entry& next = entries_.open(nullptr);
    note_unless_full(parent, loop_.post([this, e = charge(parent), &child, &later, &next] {
      e.run();
      note_unless_full(child, loop_.post(task(child)));
      later.accepted = next.accepted = true;
      loop_.defer(task(later));
      loop_.microtask(task(next));
    }));
  }

  // One that runs the loop from inside.
  void post_nested() {
    entry& e = entries_.open(&mine_);
    const std::size_t how = choose_.below(4);
    note_unless_full(e, loop_.post([this, e = charge(e), how] {
      e.run();
      if (all_.depth == 3) return;
      ++all_.depth;
      switch (how) {
        case 0: loop_.poll(); break;
        case 1: loop_.run_for(20us); break;
        case 2: loop_.run_budget(20us); break;
        default: loop_.wake(), loop_.run_once(); break;
      }
      --all_.depth;
    }));
  }

  void invoke() {
    if (all_.alone && !loop_.running_in_this_thread()) return;
    entry& e = entries_.open(loop_.running_in_this_thread() ? nullptr : &mine_);
    const int want = static_cast<int>(choose_.below(1000));
    try {
      const int got = loop_.invoke([e = charge(e), want] {
        e.run();
        return want;
      });
      e.accepted = true;
      promise(got == want, "invoke answers what the closure answered");
      promise(e.ran == 1, "invoke returns when the closure has run");
    } catch (const std::system_error& refused) {
      const bool full = refused.code() == hybridloop::errc::full && all_.when_full == overflow::fail;
      const bool closed = refused.code() == hybridloop::errc::closed && loop_.closed();
      promise((full || closed) && e.ran == 0, "a call that was refused says why, and has not run");
    }
  }

  // ---- Lanes ----

  void open_lane() {
    if (lane_.has_value()) return;
    lane_order_ = &lanes_.emplace_back();
    lane_.emplace(loop_.make_producer(std::size_t{1} << choose_.between(1, 6)));
  }
  void post_to_lane() {
    if (!lane_.has_value()) return;
    for (std::size_t n = choose_.between(1, 20); n != 0; --n) {
      entry& e = entries_.open(lane_order_);
      note_unless_full(e, lane_->post(task(e)));
    }
  }
  void close_lane() { lane_.reset(); }

  // ---- Timers ----

  struct alarm {
    entry* what = nullptr;
    hybridloop::timer_id id;
    std::atomic<std::int64_t> not_before{0};
    bool repeats = false;
    bool cancelled = false;
  };

  static std::int64_t count(typename clock::time_point t) {
    return std::chrono::duration_cast<nanoseconds>(t.time_since_epoch()).count();
  }
  nanoseconds some_time() { return nanoseconds(choose_.below(16) * choose_.below(16) * 1000); }

  void arm() {
    alarm& a = new_alarm();
    const auto due = clock::now() + some_time();
    a.not_before = count(due);
    a.id = loop_.at(due, [&a, e = charge(*a.what)] {
      promise(count(clock::now()) >= a.not_before, "a timer never fires early");
      e.run();
    });
  }
  void arm_often() {
    alarm& a = new_alarm();
    a.repeats = true;
    a.id = loop_.every(some_time() + 50us, [&a, e = charge(*a.what)] {
      promise(a.what->alive == 1, "a repeating timer's closure is held once");
      ++a.what->ran;
    });
    if (!may_wait()) return;
    await([&a] { return a.what->ran >= 2; });
    a.cancelled = loop_.cancel(a.id);  // one that stood would wake a loop that lost a wake
  }
  alarm& new_alarm() {
    alarm& a = alarms_.emplace_back();
    a.what = &timers_.open(nullptr);
    a.what->accepted = true;
    return a;
  }
  alarm* any_alarm() { return alarms_.empty() ? nullptr : &alarms_[choose_.below(alarms_.size())]; }

  void cancel() {
    alarm* a = any_alarm();
    if (a == nullptr) return;
    const bool heard = loop_.cancel(a->id);
    promise(!heard || !a->cancelled, "a cancel is heard once");
    a->cancelled = a->cancelled || heard;
  }
  void reschedule() {
    alarm* a = any_alarm();
    if (a == nullptr || a->repeats) return;
    const auto due = clock::now() + some_time();
    const std::int64_t before = a->not_before;
    if (count(due) < before) a->not_before = count(due);
    const bool heard = loop_.reschedule(a->id, due);
    promise(!heard || !a->cancelled, "what was cancelled cannot be moved");
    if (heard) a->not_before = count(due);
  }

  // ---- Descriptors ----

  struct channel {
    pipe wire;
    hybridloop::watch_id id;
    std::size_t fed = 0;                // bytes written
    std::atomic<std::size_t> heard{0};  // and read by the loop
    std::atomic<bool> gone{false};
    bool ending = false;
  };

  void watch() {
    if (channel_ != nullptr) return;
    channel_ = &channels_.emplace_back();
    channel& c = *channel_;
    std::error_code refused;
    c.id = loop_.watch(c.wire.reader(), hybridloop::interest::readable, [&c](const hybridloop::ready& what) {
      promise(!c.gone, "a watch that has ended is told nothing");
      promise(!what.error, "a descriptor that is open is not refused");
      c.heard += c.wire.drain();
    }, refused);
    if (refused) {
      promise(refused == hybridloop::errc::closed, "only a closed loop refuses a watch");
      channel_ = nullptr;
    }
  }
  void feed() {
    if (channel_ == nullptr) return;
    channel_->fed += channel_->wire.write(choose_.between(1, 100));
    if (choose_.one_in(4)) await_told();
  }
  void unwatch() {
    if (channel_ == nullptr) return;
    channel& c = *std::exchange(channel_, nullptr);
    if (loop_.running_in_this_thread()) {
      promise(loop_.unwatch(c.id) || loop_.closed(), "a watch is known until it ends");
      c.gone = true;
      return c.wire.close();
    }
    const bool known = loop_.unwatch(c.id, [&c] { c.gone = true; });
    promise(known || loop_.closed(), "a watch is known until it ends");
    await([&c] { return c.gone.load(); });
    if (c.gone) c.wire.close();  // its number comes again
  }
  void await_told() {
    if (channel_ != nullptr) await([&c = *channel_] { return c.heard == c.fed; });
  }

  // ---- Permits ----

  std::ptrdiff_t some_permits() { return static_cast<std::ptrdiff_t>(choose_.below(static_cast<std::size_t>(shared_.total())) + 1); }

  // Who waits keeps none: somebody else may need them first.
  void acquire() {
    if (!may_wait()) return take();
    give_back();
    const std::ptrdiff_t n = some_permits();
    const bool had = choose_.one_in(2) ? shared_.acquire(n) : shared_.try_acquire_for(some_time(), n);
    if (had) keep(n);
  }
  void take() {
    const std::ptrdiff_t n = some_permits();
    if (shared_.try_acquire(n)) keep(n);
  }
  void keep(std::ptrdiff_t n) {
    shared_.hold(n);
    kept_ += n;
  }
  void give_back() {
    if (kept_ != 0) shared_.give_back(std::exchange(kept_, 0));
  }
  void wait() {
    typename permits_for<Loop>::options how;
    how.n = some_permits();
    if (choose_.one_in(2)) how.deadline = clock::now() + some_time();
    wait_type& w = waits_.emplace_back(shared_, waited_.open(nullptr), how);
    shared_.begin(loop_, w);
    w.what.accepted = static_cast<bool>(w.id);
    promise(w.what.accepted || loop_.closed(), "only a closed loop refuses a wait");
  }
  void cancel_wait() {
    if (waits_.empty()) return;
    wait_type& w = waits_[choose_.below(waits_.size())];
    const bool heard = shared_.cancel(w.id);
    promise(!heard || !w.cancelled, "a cancel is heard once");
    w.cancelled = w.cancelled || heard;
  }
  void close_permits() {
    if (choose_.one_in(64)) shared_.close();
  }

  // ---- Company ----

  void take_turn() {
    if (may_wait()) give_back();
    member_.take_turn(may_wait());
  }
  void cancel_turn() { member_.cancel(); }
  void ask() {
    if (may_wait()) give_back();
    member_.ask(may_wait());
  }
  void send() {
    if (may_wait()) give_back();
    member_.send(may_wait());
  }
  void receive() { member_.receive(); }

  // ---- Waiting ----

  bool may_wait() const { return !all_.alone && !loop_.running_in_this_thread(); }

  template <class Done>
  void await(const Done& done) {
    if (!may_wait()) return;
    for (int looks = 0; !done() && !loop_.closed(); ++looks) {
      if (looks < 200) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(20us);
      }
    }
  }

  void interrupt() { choose_.one_in(2) ? loop_.stop() : loop_.wake(); }
  void pause() {
    if (all_.alone) return;
    if (choose_.one_in(8)) return std::this_thread::sleep_for(std::chrono::microseconds(choose_.below(200)));
    std::this_thread::yield();
  }

  stage<Loop>& all_;
  Loop& loop_;
  choices& choose_;
  decltype(std::declval<Loop&>().handle()) handle_;
  line mine_;
  ledger entries_;
  ledger timers_;
  std::deque<line> lanes_;
  line* lane_order_ = nullptr;
  std::optional<decltype(std::declval<Loop&>().make_producer(2))> lane_;
  std::deque<alarm> alarms_;
  std::deque<channel> channels_;
  channel* channel_ = nullptr;
  permits_for<Loop>& shared_;
  std::ptrdiff_t kept_ = 0;
  ledger waited_;
  std::deque<wait_type> waits_;
  member<Loop> member_;
};

}  // namespace soak
