// loop/hook.hpp - a function of the user's that the loop calls again and again, and that may be replaced
#pragma once

#include <cstdint>
#include <utility>

#include "task/unique_task.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// It may replace itself while it runs, so it runs outside of its place. The loop thread only.
class hook {
 public:
  explicit operator bool() const noexcept { return static_cast<bool>(task_); }

  void set(unique_task&& task) noexcept {
    task_ = std::move(task);
    ++version_;
  }

  template <class Call>
  void call(const Call& run) {
    running mine{*this, std::move(task_), version_};
    run(mine.task);
  }

 private:
  struct running {
    hook& home;
    unique_task task;
    std::uint32_t version;
    ~running() {
      if (home.version_ == version) home.task_ = std::move(task);
    }
  };

  unique_task task_;
  std::uint32_t version_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
