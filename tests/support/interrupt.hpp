// interrupt.hpp - what holds a thread up in the middle of something, while others go on
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "support/support.hpp"

namespace support {

// What happens to this thread in the middle of something, once: before its nth access to an atomic
// of interrupted_traits, at the latest before it falls asleep; or where it first passes a schedule
// point of that name.
class interruption {
 public:
  interruption(int access, std::function<void()> what) : accesses_left_(access), what_(std::move(what)) {
    current() = this;
  }
  interruption(const char* point, std::function<void()> what) : point_(point), what_(std::move(what)) {
    current() = this;
  }
  interruption(const interruption&) = delete;
  interruption& operator=(const interruption&) = delete;
  ~interruption() { current() = nullptr; }

  bool happened() const { return happened_; }

  // Nothing happens from here on. True while a greater n may be a later place.
  bool over() {
    current() = nullptr;
    return happened_ && !asleep_;
  }

  static void access() {
    interruption* const now = current();
    if (now != nullptr && now->point_ == nullptr && now->accesses_left_-- == 0) now->happen();
  }
  static void sleep() {
    interruption* const now = current();
    if (now == nullptr || now->point_ != nullptr) return;
    now->asleep_ = true;
    now->happen();
  }
  static void pass(const char* point) {
    interruption* const now = current();
    if (now != nullptr && now->point_ != nullptr && std::strcmp(now->point_, point) == 0) now->happen();
  }

 private:
  static interruption*& current() {
    static thread_local interruption* mine = nullptr;
    return mine;
  }
  void happen() {
    current() = nullptr;
    happened_ = true;
    what_();
  }

  const char* const point_ = nullptr;
  int accesses_left_ = 0;
  const std::function<void()> what_;
  bool happened_ = false;
  bool asleep_ = false;
};

// Plays a scene again and again, each time with its interruption one place later, until the scene
// answers that there was none. How many places there are.
template <class Scene>
int at_every_place(const Scene& scene) {
  int place = 0;
  while (scene(place)) ++place;
  return place;
}

template <class T>
class interrupted_atomic : public std::atomic<T> {
  using base = std::atomic<T>;
  using order = std::memory_order;

 public:
  using base::base;

  T load(order o) const {
    interruption::access();
    return base::load(o);
  }
  void store(T value, order o) {
    interruption::access();
    base::store(value, o);
  }
  T exchange(T value, order o) {
    interruption::access();
    return base::exchange(value, o);
  }
  T fetch_add(T value, order o) {
    interruption::access();
    return base::fetch_add(value, o);
  }
  T fetch_sub(T value, order o) {
    interruption::access();
    return base::fetch_sub(value, o);
  }
  T fetch_or(T value, order o) {
    interruption::access();
    return base::fetch_or(value, o);
  }
  T fetch_and(T value, order o) {
    interruption::access();
    return base::fetch_and(value, o);
  }
  template <class... Orders>
  bool compare_exchange_weak(T& expected, T desired, Orders... orders) {
    interruption::access();
    return base::compare_exchange_weak(expected, desired, orders...);
  }
  template <class... Orders>
  bool compare_exchange_strong(T& expected, T desired, Orders... orders) {
    interruption::access();
    return base::compare_exchange_strong(expected, desired, orders...);
  }
};

struct interrupted_parker : hybridloop::default_traits::parker {
  template <class Word>
  static void wait(const Word& word, std::uint32_t expected, hybridloop::detail::nanos deadline) {
    interruption::sleep();
    hybridloop::default_traits::parker::wait(word, expected, deadline);
  }
};

struct interrupted_traits : hybridloop::default_traits {
  using parker = interrupted_parker;
  template <class T>
  using atomic = interrupted_atomic<T>;
  static void schedule_point(const char* name) noexcept { interruption::pass(name); }
};

using interrupted_loop = hybridloop::basic_loop<interrupted_traits>;

// Reports a number when it runs. Its copy tells that it has begun, and is not made until the gate
// opens: a post of one is stalled after its claim and before its publication.
class slow_closure {
 public:
  slow_closure(std::vector<int>& ran, int n, gate& begun, gate& go) noexcept
      : ran_(&ran), n_(n), begun_(&begun), go_(&go) {}
  slow_closure(const slow_closure& other)
      : ran_(other.ran_), n_(other.n_), begun_(other.begun_), go_(other.go_) {
    begun_->open();
    go_->pass();
  }
  slow_closure(slow_closure&&) noexcept = default;
  slow_closure& operator=(const slow_closure&) = delete;
  void operator()() { ran_->push_back(n_); }

 private:
  std::vector<int>* ran_;
  int n_;
  gate* begun_;
  gate* go_;
};
static_assert(hybridloop::detail::unique_task::fits<slow_closure>, "it is built in the slot itself");

// Gives the processor away now and then, between what a thread read and what it does about it.
template <class T>
class hesitant_atomic : public std::atomic<T> {
 public:
  using std::atomic<T>::atomic;
  T load(std::memory_order o) const {
    static thread_local unsigned accesses = 0;
    const T value = std::atomic<T>::load(o);
    if (++accesses % 61 == 0) std::this_thread::yield();
    return value;
  }
};

struct hesitant_traits : hybridloop::default_traits {
  template <class T>
  using atomic = hesitant_atomic<T>;
};

using hesitant_loop = hybridloop::basic_loop<hesitant_traits>;

}  // namespace support
