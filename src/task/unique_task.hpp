// task/unique_task.hpp - a closure that is called, moved and destroyed, and never copied
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

#include "base/config.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Where closures that do not fit inline come from; the arena of a loop is one.
class block_source {
 public:
  // nullptr when there is no memory at all. Any thread.
  virtual void* take(std::size_t bytes, std::size_t alignment) noexcept = 0;
  virtual void give(void* memory, std::size_t bytes, std::size_t alignment) noexcept = 0;

 protected:
  ~block_source() = default;
};

// A closure that the loop sends to itself: it runs in line with tasks and is not counted as one.
struct command_base {};

// A move-only closure of `Args...` with room for task_size bytes inside.
//
// Closures that are larger, over-aligned, or whose move may throw live in a block of their own;
// so a basic_task always moves without throwing, and a closure in a ring slot never moves.
template <class... Args>
class basic_task {
  static constexpr std::size_t alignment = 8;  // of a double too, where i386 asks for 4

 public:
  basic_task() noexcept = default;
  basic_task(basic_task&& other) noexcept { steal(other); }
  basic_task& operator=(basic_task&& other) noexcept {
    if (this != &other) {
      reset();
      steal(other);
    }
    return *this;
  }
  ~basic_task() { reset(); }

  template <class F>
  static constexpr bool fits = sizeof(F) <= task_size && alignof(F) <= alignment &&
                               std::is_nothrow_move_constructible_v<F>;

  // The closure's memory, had before anything is claimed for it; given back unless used.
  template <class F>
  class room {
   public:
    explicit room(block_source& home) : home_(home) {
      if constexpr (!fits<F>) memory_ = home.take(sizeof(F), alignof(F));
    }
    room(const room&) = delete;
    room& operator=(const room&) = delete;
    ~room() { give_back(); }
    // What was not used; touches nothing otherwise.
    void give_back() noexcept {
      if constexpr (!fits<F>) {
        if (memory_ != nullptr) home_.give(std::exchange(memory_, nullptr), sizeof(F), alignof(F));
      }
    }
    bool had() const noexcept { return fits<F> || memory_ != nullptr; }

   private:
    friend class basic_task;
    block_source& home_;
    void* memory_ = nullptr;
  };

  // The task is empty before, and still is if the closure's constructor throws.
  template <class F, class Given>
  void emplace(room<F>& place, Given&& f) {
    if constexpr (fits<F>) {
      construct<F>(std::forward<Given>(f));
    } else {
      F* made = ::new (place.memory_) F(std::forward<Given>(f));
      place.memory_ = nullptr;
      construct<boxed<F>>(boxed<F>(made, place.home_));
    }
    constexpr bool own = std::is_base_of_v<command_base, F>;
    ops_ = &table<std::conditional_t<fits<F>, F, boxed<F>>, own>;
  }

  explicit operator bool() const noexcept { return ops_ != nullptr; }
  bool counted() const noexcept { return ops_ != nullptr && !ops_->command; }
  void operator()(Args... args) { ops_->call(storage_, std::forward<Args>(args)...); }

  void reset() noexcept {
    if (ops_ == nullptr) return;
    const operations* was = std::exchange(ops_, nullptr);
    if (was->destroy != nullptr) was->destroy(storage_);
  }

  // For a task in a slot that producers write and the loop thread only reads, so that the line
  // never travels back dirty: destroyed without a mark, and marked empty before it is built again.
  void destroy_unmarked() noexcept {
    if (ops_ != nullptr && ops_->destroy != nullptr) ops_->destroy(storage_);
  }
  void mark_empty() noexcept { ops_ = nullptr; }

 private:
  struct operations {
    void (*call)(void*, Args...);
    void (*relocate)(void* from, void* to) noexcept;
    void (*destroy)(void*) noexcept;  // nullptr: nothing to do
    bool command;
  };

  template <class F>
  class boxed {
   public:
    boxed(F* object, block_source& home) noexcept : object_(object), home_(&home) {}
    boxed(boxed&& other) noexcept
        : object_(std::exchange(other.object_, nullptr)), home_(other.home_) {}
    boxed& operator=(boxed&&) = delete;
    ~boxed() {
      if (object_ == nullptr) return;
      object_->~F();
      home_->give(object_, sizeof(F), alignof(F));
    }
    void operator()(Args... args) { (*object_)(std::forward<Args>(args)...); }

   private:
    F* object_;
    block_source* home_;
  };

  template <class F>
  static void call(void* where, Args... args) {
    (*static_cast<F*>(where))(std::forward<Args>(args)...);
  }
  template <class F>
  static void relocate(void* from, void* to) noexcept {
    F* old = static_cast<F*>(from);
    ::new (to) F(std::move(*old));
    old->~F();
  }
  template <class F>
  static void destroy(void* where) noexcept {
    static_cast<F*>(where)->~F();
  }
  template <class F, bool Command>
  static constexpr operations table{
      &call<F>, &relocate<F>, std::is_trivially_destructible_v<F> ? nullptr : &destroy<F>, Command};

  template <class F, class Given>
  void construct(Given&& f) {
    ::new (static_cast<void*>(storage_)) F(std::forward<Given>(f));
  }

  void steal(basic_task& other) noexcept {
    if (other.ops_ == nullptr) return;
    other.ops_->relocate(other.storage_, storage_);
    ops_ = std::exchange(other.ops_, nullptr);
  }

  const operations* ops_ = nullptr;
  alignas(alignment) unsigned char storage_[task_size];
};

using unique_task = basic_task<>;

static_assert(sizeof(unique_task) <= task_size + 8, "a task and its lap fill a ring slot exactly");

}  // namespace detail
HYBRIDLOOP_CLOSE
