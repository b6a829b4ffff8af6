// operations.cpp - what threads do to shared memory: total store order, and who learns what from whom
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "explore/engine.hpp"
#include "explore/source.hpp"

namespace explore {

// Stores that are not seq_cst go to the end of a queue of the thread's own and reach memory later, in
// order; its loads look there first. Read-modify-writes, seq_cst stores and system calls wait until it
// is empty. That is x86 (P. Sewell et al., x86-TSO, 2010).

std::uint64_t engine::read(const void* at, unsigned size) {
  std::uint64_t value = 0;
  std::memcpy(&value, at, size);  // the low bytes: TSO machines are little-endian
  return value;
}
void engine::write(void* at, unsigned size, std::uint64_t value) { std::memcpy(at, &value, size); }

void engine::must_live(const void* at) {
  if (pages_.is_dead(at)) fail("an atomic was touched after its memory had been given back");
}

void engine::drain_one(fiber& t) {
  const pending_store s = t.stores.front();
  t.stores.erase(t.stores.begin());
  must_live(s.at);
  location& l = locations_.of(s.at, scene_);
  if (settings_.narrate) {
    char name[64];
    describe(s.at, name, sizeof name);
    say("-- a store of %s is in memory: %s = %#llx\n", t.name, name, static_cast<unsigned long long>(s.value));
  }
  write(s.at, s.size, s.value);
  l.released = s.releases ? s.released : stamp{};
}

void engine::drain(fiber& t, std::size_t count) {
  for (; count != 0; --count) drain_one(t);
}

location& engine::arrive(const char* what, const void* at, bool writes, site s, bool& point) {
  step(what, at, s);
  must_live(at);
  location& l = locations_.of(at, scene_);
  const auto bit = static_cast<std::uint8_t>(1u << running_);
  if (playing()) {
    l.touched |= bit;
    if (writes) l.written |= bit;
    const bool several = (l.touched & (l.touched - 1)) != 0;
    if (several && l.written != 0 && !l.contended) fresh_contention_.push_back(at);
  }
  point = playing() && (l.contended || settings_.everything);
  if (point) pause();
  if (point) must_live(at);
  return l;
}

std::uint64_t engine::load(const void* at, unsigned size, std::memory_order o, site s) {
  bool point = false;
  const location& l = arrive("load", at, false, s, point);
  for (std::size_t i = me().stores.size(); i-- != 0;) {
    const pending_store& own = me().stores[i];
    if (own.at != at) continue;
    tell("= %#llx, its own", static_cast<unsigned long long>(own.value));
    return own.value;
  }
  if (acquires(o)) me().knows.join(l.released);
  const std::uint64_t value = read(at, size);
  tell("= %#llx", static_cast<unsigned long long>(value));
  return value;
}

void engine::store(void* at, unsigned size, std::uint64_t value, std::memory_order o, site s) {
  bool point = false;
  location& l = arrive("store", at, true, s, point);
  stamp& now = me().knows;
  // A frame is used again by what the model does not see, so what was stored there must not come later.
  const bool strong = o == std::memory_order_seq_cst || (releases(o) && on_own_stack(at));
  const bool buffered = point && !strong && !on_own_stack(at);
  tell("= %#llx%s", static_cast<unsigned long long>(value), buffered ? ", on its way" : "");
  if (strong) drain(me(), me().stores.size());
  if (buffered) {
    constexpr std::size_t most = 8;
    if (me().stores.size() == most) drain_one(me());
    me().stores.push_back({at, value, size, releases(o), now});
  } else {
    write(at, size, value);
    l.released = releases(o) ? now : stamp{};
  }
  if (releases(o)) ++now.at[running_];
}

bool engine::on_own_stack(const void* at) {
  const auto* const byte = static_cast<const unsigned char*>(at);
  const unsigned char* const stack = me().stack.get();
  return byte >= stack && byte < stack + stack_size;
}

std::uint64_t engine::modify(void* at, unsigned size, change how, std::uint64_t operand, std::memory_order o,
                             site s) {
  bool point = false;
  location& l = arrive("modify", at, true, s, point);
  drain(me(), me().stores.size());
  const std::uint64_t was = read(at, size);
  std::uint64_t then = operand;
  switch (how) {
    case change::put: break;
    case change::add: then = was + operand; break;
    case change::subtract: then = was - operand; break;
    case change::set: then = was | operand; break;
    case change::keep: then = was & operand; break;
  }
  write(at, size, then);
  tell("%#llx -> %#llx", static_cast<unsigned long long>(was), static_cast<unsigned long long>(then));
  if (acquires(o)) me().knows.join(l.released);
  if (releases(o)) {
    l.released.join(me().knows);
    ++me().knows.at[running_];
  }
  return was;
}

bool engine::exchange_if(void* at, unsigned size, std::uint64_t& expected, std::uint64_t desired,
                         std::memory_order o, std::memory_order o_failed, site s) {
  bool point = false;
  location& l = arrive("cas", at, true, s, point);
  drain(me(), me().stores.size());
  const std::uint64_t was = read(at, size);
  if (was != expected) {
    tell("expected %#llx, finds %#llx", static_cast<unsigned long long>(expected), static_cast<unsigned long long>(was));
    if (acquires(o_failed)) me().knows.join(l.released);
    expected = was;
    return false;
  }
  write(at, size, desired);
  tell("%#llx -> %#llx", static_cast<unsigned long long>(was), static_cast<unsigned long long>(desired));
  if (acquires(o)) me().knows.join(l.released);
  if (releases(o)) {
    l.released.join(me().knows);
    ++me().knows.at[running_];
  }
  return true;
}

// ---- Everything else ----

void engine::drain_all(const char* what) {
  step(what, nullptr, {nullptr, 0});
  if (playing()) pause();
  tell("%s", "");
  for (unsigned t = 0; t < count_; ++t) drain(threads_[t], threads_[t].stores.size());
}

void engine::system_call(const char* what, const void* object) {
  step(what, object, {nullptr, 0});
  if (playing()) pause();
  tell("%s", "");
  drain(me(), me().stores.size());
}

bool engine::wait(const void* object, nanos deadline) {
  if (deadline <= now_) return false;
  if (!playing()) fail("the scene itself would sleep: nobody is there to wake it");
  fiber& t = me();
  t.is = state::waiting;
  t.object = object;
  t.deadline = deadline;
  t.since = ++waits_;
  t.told = false;
  if (settings_.narrate) {
    char name[64];
    describe(object, name, sizeof name);
    say("-- %s sleeps on %s\n", t.name, name);
  }
  give_way();
  return t.told;
}

void engine::notify(const void* object, std::size_t most) {
  for (; most != 0; --most) {
    fiber* first = nullptr;
    for (unsigned i = 1; i < count_; ++i) {
      fiber& t = threads_[i];
      if (t.is != state::waiting || t.object != object) continue;
      if (first == nullptr || t.since < first->since) first = &t;
    }
    if (first == nullptr) return;
    first->is = state::ready;
    first->object = nullptr;
    first->told = true;
    say("-- %s is woken\n", first->name);
  }
}

void engine::yield() {
  step("yield", nullptr, {nullptr, 0});
  tell("%s", "");
  if (!playing()) return;
  drain(me(), me().stores.size());
  me().yielded = true;
  give_way();
  me().yielded = false;
}

void engine::breathe(const char* what) {
  step(what, nullptr, {nullptr, 0});
  if (playing()) pause();
  tell("%s", "");
}

void engine::touch(const void* at, bool writes) {
  if (const char* wrong = plain_.touch(at, writes, running_, me().knows)) fail(wrong);
}

// ---- What a reader sees ----

void engine::step(const char* what, const void* at, site s) {
  const std::uint32_t most = playing() ? settings_.most_ticks : 1000 * settings_.most_ticks;
  if (++tick_ > most) fail("livelock: too many steps");
  me().at = {tick_, what, at, s};
}

// The step that this thread is at has come to this.
void engine::tell(const char* format, ...) {
  if (!settings_.narrate || !playing()) return;
  char outcome[96], name[48];
  std::va_list rest;
  va_start(rest, format);
  std::vsnprintf(outcome, sizeof outcome, format, rest);
  va_end(rest);
  const auto& now = me().at;
  describe(now.at, name, sizeof name);
  std::printf("%6u  %-9s %-8s %-14s %-22s", now.tick, me().name, now.what, name, outcome);
  if (now.where.file != nullptr) {
    std::printf(" %s:%d  %s", now.where.file, now.where.line, line_of(now.where.file, now.where.line).c_str());
  }
  std::putchar('\n');
}

void engine::say(const char* format, ...) {
  if (!settings_.narrate) return;
  std::va_list rest;
  va_start(rest, format);
  std::vprintf(format, rest);
  va_end(rest);
}

void engine::note(const char* what) {
  if (playing()) say("%6s  %-9s (%s)\n", "", me().name, what);
}

void engine::describe(const void* at, char* out, std::size_t room) const {
  out[0] = '\0';
  if (at == nullptr || pages_.name(at, out, room)) return;
  for (unsigned t = 0; t < count_; ++t) {
    const unsigned char* const stack = threads_[t].stack.get();
    if (at < stack || at >= stack + stack_size) continue;
    std::snprintf(out, room, "stack of %s", threads_[t].name);
    return;
  }
  std::snprintf(out, room, "elsewhere");  // a doorbell, a static: not where it is the same each time
}

void engine::deadlock() {
  std::string what = "deadlock, a wake is lost:";
  for (unsigned t = 1; t < count_; ++t) {
    if (threads_[t].is != state::waiting) continue;
    char name[64];
    describe(threads_[t].object, name, sizeof name);
    what += std::string(" ") + threads_[t].name + " sleeps on " + name + ";";
  }
  fail(what.c_str());
}

}  // namespace explore
