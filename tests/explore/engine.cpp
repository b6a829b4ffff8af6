// engine.cpp - fibers, and who runs next
#include "explore/engine.hpp"

#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <utility>

namespace explore {

namespace {

// The runtime's record of exceptions in flight: a pointer and a count, in this order in every ABI that
// has __cxa_get_globals.
struct in_flight {
  void* caught;
  unsigned uncaught;
};
void swap_exceptions(std::array<void*, 2>& out, const std::array<void*, 2>& in) noexcept {
  auto* const now = reinterpret_cast<in_flight*>(abi::__cxa_get_globals());
  out = {now->caught, reinterpret_cast<void*>(static_cast<std::uintptr_t>(now->uncaught))};
  now->caught = in[0];
  now->uncaught = static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(in[1]));
}

}  // namespace

engine& engine::the() noexcept {
  static engine one;
  return one;
}

// ---- The scene ----

void engine::begin(strategy& how, const settings& s) {
  ++scene_;
  settings_ = s;
  strategy_ = &how;
  tick_ = 0;
  waits_ = 0;
  now_ = 1000000000;
  count_ = 1;
  deviations_.clear();
  fresh_contention_.clear();
  plain_.begin_again();
  me().knows = {};
  me().knows.at[0] = 1;
  me().name = "scene";
}

void engine::start(const char* name, std::function<void()> body) {
  if (count_ == most_threads) fail("more threads than the explorer has");
  fiber& t = threads_[count_];
  t.name = name;
  t.body = std::move(body);
  t.is = state::ready;
  t.yielded = false;
  t.knows = me().knows;
  ++me().knows.at[running_];
  t.knows.at[count_] = 1;
  t.own.assign(own_.size(), nullptr);
  if (t.stack == nullptr) make_stack(t, reinterpret_cast<void (*)()>(&engine::enter), count_);
  ++count_;
}

void engine::make_stack(fiber& f, void (*entry)(), unsigned self) {
  if (f.stack == nullptr) f.stack = std::make_unique<unsigned char[]>(stack_size);
  ::getcontext(&f.context);
  f.context.uc_stack.ss_sp = f.stack.get();
  f.context.uc_stack.ss_size = stack_size;
  f.context.uc_link = &outside_;
  ::makecontext(&f.context, entry, 1, self);  // what does not ask for it does not get it
}

void engine::perform(void (*scene)()) {
  scene_body_ = scene;
  make_stack(me(), &engine::enter_scene, 0);
  ::swapcontext(&outside_, &me().context);
}
void engine::enter_scene() { the().scene_body_(); }

// A fiber is kept from scene to scene.
void engine::enter(unsigned self) {
  engine& e = the();
  for (;;) {
    fiber& t = e.threads_[self];
    try {
      t.body();
    } catch (...) {
      e.fail("an exception has left a thread");
    }
    e.step("end", nullptr, {nullptr, 0});
    e.pause();
    e.tell("%s", "");
    e.drain(t, t.stores.size());
    t.is = state::finished;
    e.threads_[0].knows.join(t.knows);
    e.give_way();
  }
}

void engine::play() {
  if (count_ == 1) return;
  tick_ = 0;
  me().own.assign(own_.size(), nullptr);
  give_way();
}

void engine::end() {
  for (const void* at : fresh_contention_) locations_.of(at, scene_).contended = true;
  if (!pages_.begin_again()) fail("memory was written to after it had been given back");
}

void engine::fail(const char* what) {
  if (report_ != nullptr) report_(what);
  std::abort();
}

// ---- Choosing ----

void engine::add_option(option::kind what, unsigned t, std::size_t drained, unsigned cost) {
  if (option_count_ == most_options) fail("more choices than the explorer has room for");
  options_[option_count_++] = {what, static_cast<std::uint8_t>(t), static_cast<std::uint8_t>(drained),
                               static_cast<std::uint8_t>(cost)};
}

// The nearest deadline, of those who wait for it.
void engine::add_expiries(unsigned cost) {
  nanos next = forever;
  for (unsigned t = 1; t < count_; ++t) {
    if (threads_[t].is == state::waiting && threads_[t].deadline < next) next = threads_[t].deadline;
  }
  for (unsigned t = 1; t < count_ && next != forever; ++t) {
    if (threads_[t].is == state::waiting && threads_[t].deadline == next) add_option(option::expire, t, 0, cost);
  }
}

// What may happen beside the threads' own steps.
void engine::add_events() {
  add_expiries(1);
  for (unsigned t = 1; t < count_; ++t) {
    const fiber& other = threads_[t];
    if (t != running_ && !other.stores.empty()) add_option(option::drain, t, 1, 1);
    if (settings_.rouses && other.is == state::waiting) add_option(option::rouse, t, 0, 1);
  }
}

// Whoever can run instead of the one who does. Who has yielded rests until all others have, or wait.
void engine::add_others(bool preempts) {
  const std::size_t stores = preempts ? me().stores.size() : 0;
  for (unsigned i = 1; i < count_; ++i) {
    const unsigned t = (running_ + i - 1) % (count_ - 1) + 1;
    if (t == running_ || threads_[t].is != state::ready || (!preempts && threads_[t].yielded)) continue;
    for (std::size_t k = stores + 1; k-- != 0;) add_option(option::go, t, k, preempts ? 1 : 0);
  }
}

// The options from here. `goes_on`: of a thread that could; that is the first then.
unsigned engine::collect(bool goes_on) {
  option_count_ = 0;
  if (goes_on) add_option(option::go, running_, 0, 0);
  add_others(goes_on);
  if (option_count_ == 0) {
    for (unsigned t = 1; t < count_; ++t) threads_[t].yielded = false;
    add_others(false);
  }
  if (option_count_ == 0) {  // then time passes
    add_expiries(0);
    if (option_count_ == 0 && playing() && me().is == state::ready) add_option(option::go, running_, 0, 0);
    return option_count_;
  }
  add_events();
  return option_count_;
}

const option& engine::choose(unsigned count) {
  ++tick_;
  if (count == 1) return options_[0];
  const unsigned chosen = strategy_->choose(options_.data(), count, tick_);
  if (chosen >= count) fail("the schedule does not fit: it was made by another explorer or another code");
  if (chosen != 0) deviations_.push_back({tick_, chosen});
  return options_[chosen];
}

void engine::apply(const option& o) {
  fiber& t = threads_[o.thread];
  switch (o.what) {
    case option::go: return;
    case option::drain: return drain_one(t);
    case option::expire:
      say("-- the time comes that %s waits for\n", t.name);
      if (t.deadline > now_) now_ = t.deadline;
      t.told = false;
      break;
    case option::rouse:
      say("-- %s wakes for no reason\n", t.name);
      t.told = false;
      break;
  }
  t.is = state::ready;
  t.object = nullptr;
}

// Before a step that others can see: they may come first.
void engine::pause() {
  for (;;) {
    const unsigned count = collect(true);
    const option o = choose(count);
    if (o.what == option::go) {
      if (o.thread == running_) return;
      drain(me(), o.drained);
      return switch_to(o.thread);
    }
    apply(o);
  }
}

// The one who runs cannot, or will not, go on.
void engine::give_way() {
  for (;;) {
    const unsigned count = collect(false);
    if (count == 0) {
      for (unsigned t = 1; t < count_; ++t) {
        if (threads_[t].is != state::finished) deadlock();
      }
      return switch_to(0);
    }
    const option o = choose(count);
    if (o.what == option::go) return switch_to(o.thread);
    apply(o);
  }
}

void engine::switch_to(unsigned t) {
  fiber& from = me();
  fiber& to = threads_[t];
  if (&from == &to) return;
  for (std::size_t i = 0; i < own_.size(); ++i) from.own[i] = std::exchange(*own_[i], to.own[i]);
  swap_exceptions(from.exceptions, to.exceptions);
  running_ = t;
  ::swapcontext(&from.context, &to.context);
}

}  // namespace explore
