// loop/invoke.hpp - a caller that waits for what its task returns
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "loop/blocked.hpp"
#include "wait/notice.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Where a result waits for its caller. A reference is kept as a pointer, void as nothing.
template <class R>
class result_place {
 public:
  template <class F>
  void fill(F&& f) {
    value_.emplace(std::forward<F>(f)());
  }
  void receive(result_place&& other) { value_.emplace(std::move(*other.value_)); }
  R take() { return std::move(*value_); }

 private:
  std::optional<R> value_;
};
template <class R>
class result_place<R&> {
 public:
  template <class F>
  void fill(F&& f) {
    value_ = &std::forward<F>(f)();
  }
  void receive(result_place&& other) noexcept { value_ = other.value_; }
  R& take() { return *value_; }

 private:
  R* value_ = nullptr;
};
template <>
class result_place<void> {
 public:
  template <class F>
  void fill(F&& f) {
    std::forward<F>(f)();
  }
  void receive(result_place&&) noexcept {}
  void take() {}
};

// Lives on the stack of the caller of invoke().
template <class Traits, class R, class Build>
class awaited {
 public:
  // The task that answers. Destroyed without having run, it answers "dropped".
  template <class F>
  class asking {
   public:
    asking(awaited& place, F& f) noexcept : place_(&place), f_(&f) {}
    asking(asking&& other) noexcept : place_(std::exchange(other.place_, nullptr)), f_(other.f_), born_(other.born_) {}
    asking& operator=(asking&&) = delete;
    ~asking() {
      if (place_ != nullptr && at_home()) place_->answer_.tell(dropped);
    }

    // In the child of a fork, also one that f makes, there is no caller any more, and its stack may
    // be anybody's.
    void operator()() {
      if (!at_home()) return;
      awaited& caller = *place_;
      result_place<R> result;
      std::exception_ptr error;
      trap<Build>([&] { result.fill(*f_); },
                  [&](std::exception_ptr thrown) { error = std::move(thrown); });
      if (!at_home()) return;
      trap<Build>(
          [&] {
            if (!error) caller.result_.receive(std::move(result));
          },
          [&](std::exception_ptr thrown) { error = std::move(thrown); });
      caller.error_ = std::move(error);
      place_ = nullptr;
      caller.answer_.tell(done);
    }

   private:
    bool at_home() const noexcept { return Traits::kernel::forks() == born_; }

    awaited* place_;
    F* f_;
    std::uint32_t born_ = Traits::kernel::forks();
  };

  // Any thread, while the caller is in the call.
  const notice<Traits>& answer() const noexcept { return answer_; }

  // False when the task was dropped.
  bool wait() noexcept {
    answer_.wait(never);
    return answer_.told() == done;
  }

  R take() {
    if (error_) rethrow<Build>(std::move(error_));
    return result_.take();
  }

 private:
  enum : std::uint32_t { done = 1, dropped };

  notice<Traits> answer_;
  result_place<R> result_;
  std::exception_ptr error_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
