// sync/channel.hpp - values from any thread to any thread, a bounded number on their way
#pragma once

#include <chrono>
#include <cstddef>
#include <limits>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/contract.hpp"
#include "base/error.hpp"
#include "sync/semaphore.hpp"
#include "sync/small_lock.hpp"
#include "task/memory.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A circle of values behind a lock of a few lines. Who counts how many there are is the channel.
template <class Traits, class T>
class value_circle {
 public:
  explicit value_circle(std::size_t capacity) noexcept
      : capacity_(capacity), slots_(capacity > most ? nullptr : static_cast<T*>(heap_take(capacity * sizeof(T), alignof(T)))) {}
  value_circle(const value_circle&) = delete;
  value_circle& operator=(const value_circle&) = delete;
  ~value_circle() {
    if (slots_ == nullptr) return;
    for (; count_ != 0; --count_) take_first().~T();
    heap_give(slots_, alignof(T));
  }
  bool had() const noexcept { return slots_ != nullptr; }

  // False: closed. There is room.
  bool push(T& value) noexcept {
    const hold locked(lock_);
    if (closed_) return false;
    ::new (static_cast<void*>(slots_ + (first_ + count_++) % capacity_)) T(std::move(value));
    return true;
  }
  std::optional<T> pop() noexcept {
    const hold locked(lock_);
    if (count_ == 0) return std::nullopt;
    --count_;
    T& from = take_first();
    std::optional<T> value(std::move(from));
    from.~T();
    return value;
  }
  void close() noexcept {
    const hold locked(lock_);
    closed_ = true;
  }

 private:
  class hold {
   public:
    explicit hold(small_lock<Traits>& lock) noexcept : lock_(lock) { lock.lock(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() { lock_.unlock(); }

   private:
    small_lock<Traits>& lock_;
  };

  T& take_first() noexcept {
    T& value = slots_[first_];
    first_ = (first_ + 1) % capacity_;
    return value;
  }

  static constexpr std::size_t most = (std::numeric_limits<std::ptrdiff_t>::max)() / sizeof(T);

  small_lock<Traits> lock_;
  const std::size_t capacity_;
  T* const slots_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  bool closed_ = false;
};

}  // namespace detail

// At most `capacity` values that were sent and not received. Any thread, everything; the destructor while
// nobody waits. Values come out in the order in which they were put in: a sender that waits on a loop puts its
// own when its turn comes there, though it had room before. T moves without throwing. Blocking forms not on a
// thread that is running a loop: that is a broken contract.
//
// close(): who sends is told `closed`; who receives gets what is left, and then nothing.
template <class T, class Queue>
class basic_channel {
  using Traits = typename Queue::traits;
  using semaphore_type = basic_semaphore<Queue, sync::fifo>;
  using loop_type = basic_loop<Traits>;
  static_assert(std::is_nothrow_move_constructible_v<T>, "a channel's value moves without throwing");

 public:
  using clock = typename semaphore_type::clock;
  using ticket = typename semaphore_type::ticket;
  using options = typename semaphore_type::options;

  // At least 1, else it is a broken contract. Throws std::system_error without memory.
  template <class Build = detail::build_tag>
  explicit basic_channel(std::size_t capacity)
      : values_(capacity), room_(static_cast<std::ptrdiff_t>(capacity)), filled_(0) {
    HYBRIDLOOP_CONTRACT(capacity != 0, "a channel has room for one value at least");
    if (!values_.had()) detail::refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: channel");
  }

  // `granted`, or `closed`, and then the value is still the caller's.
  wait_status send(T&& value) noexcept {
    const wait_status had = room_.acquire();
    return had == wait_status::granted ? put(value) : had;
  }
  // False: full, or closed; the value is still the caller's.
  [[nodiscard]] bool try_send(T&& value) noexcept { return room_.try_acquire() && put(value) == wait_status::granted; }
  template <class Rep, class Period>
  [[nodiscard]] bool try_send_for(std::chrono::duration<Rep, Period> span, T&& value) noexcept {
    return room_.try_acquire_for(span) && put(value) == wait_status::granted;
  }

  // Nothing: closed, and all was received.
  [[nodiscard]] std::optional<T> receive() noexcept { return take(filled_.acquire()); }
  [[nodiscard]] std::optional<T> try_receive() noexcept {
    return take(filled_.try_acquire() ? wait_status::granted : now_status());
  }
  template <class Rep, class Period>
  [[nodiscard]] std::optional<T> try_receive_for(std::chrono::duration<Rep, Period> span) noexcept {
    return take(filled_.try_acquire_for(span) ? wait_status::granted : now_status());
  }

  // Calls f(wait_status) in a task of that loop; the value is gone if it was granted, and destroyed if not. Tickets,
  // options and ends as with basic_semaphore::async_acquire().
  template <class F, class Build = detail::build_tag>
  ticket async_send(loop_type& l, T value, F&& f, options how = {}) {
    auto sent = [this, kept = std::move(value), g = std::forward<F>(f)](wait_status had) mutable {
      g(had == wait_status::granted ? put(kept) : had);
    };
    how.n = 1;
    return room_.template async_acquire<decltype(sent), Build>(l, std::move(sent), how);
  }
  // Calls f(wait_status, std::optional<T>): granted, with a value, or what became of the wait, without.
  template <class F, class Build = detail::build_tag>
  ticket async_receive(loop_type& l, F&& f, options how = {}) {
    auto received = [this, g = std::forward<F>(f)](wait_status had) mutable {
      std::optional<T> value = take(had);
      g(value ? wait_status::granted : had == wait_status::granted ? wait_status::closed : had, std::move(value));
    };
    how.n = 1;
    return filled_.template async_acquire<decltype(received), Build>(l, std::move(received), how);
  }
  bool cancel(const ticket& wait) noexcept { return room_.cancel(wait) || filled_.cancel(wait); }

  // `wait_status s = co_await channel.send_on(loop, value);` Otherwise as basic_semaphore::acquire_on().
  template <class Build = detail::build_tag>
  auto send_on(loop_type& l, T& value, options how = {}) noexcept {
    how.n = 1;
    return sending<decltype(room_.template acquire_on<Build>(l, how))>(*this, value, l, how);
  }
  // `std::optional<T> v = co_await channel.receive_on(loop);`
  template <class Build = detail::build_tag>
  auto receive_on(loop_type& l, options how = {}) noexcept {
    how.n = 1;
    return receiving<decltype(filled_.template acquire_on<Build>(l, how))>(*this, l, how);
  }

  void close() noexcept {
    values_.close();
    room_.close();
    filled_.close();
  }
  bool closed() const noexcept { return filled_.closed(); }

 private:
  template <class Awaiter>
  struct [[nodiscard]] sending : Awaiter {
    sending(basic_channel& c, T& v, loop_type& l, const options& how) noexcept
        : Awaiter(detail::build_tag(), l, c.room_.core_, 1, how.end()), channel(c), value(v) {}
    wait_status await_resume() noexcept {
      const wait_status had = Awaiter::await_resume();
      return had == wait_status::granted ? channel.put(value) : had;
    }
    basic_channel& channel;
    T& value;
  };
  template <class Awaiter>
  struct [[nodiscard]] receiving : Awaiter {
    receiving(basic_channel& c, loop_type& l, const options& how) noexcept
        : Awaiter(detail::build_tag(), l, c.filled_.core_, 1, how.end()), channel(c) {}
    std::optional<T> await_resume() noexcept { return channel.take(Awaiter::await_resume()); }
    basic_channel& channel;
  };

  wait_status now_status() const noexcept { return closed() ? wait_status::closed : wait_status::timed_out; }

  wait_status put(T& value) noexcept {
    if (!values_.push(value)) return wait_status::closed;
    filled_.release();
    return wait_status::granted;
  }
  // Once closed, what is left is for whoever comes. Whose loop is closed hears `closed` as well, and has no permit
  // for a value.
  std::optional<T> take(wait_status had) noexcept {
    if (had != wait_status::granted && !(had == wait_status::closed && closed())) return std::nullopt;
    std::optional<T> value = values_.pop();
    if (value) room_.release();
    return value;
  }

  detail::value_circle<Traits, T> values_;
  semaphore_type room_;    // for so many values
  semaphore_type filled_;  // so many are there
};

HYBRIDLOOP_CLOSE
