// stage.hpp - loops whose race windows a test can step into
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include <hybridloop.hpp>

namespace support {

// While it lives, the first thread that comes to the named schedule point does `act` there.
class stage {
 public:
  stage(std::string point, std::function<void()> act) : point_(std::move(point)), act_(std::move(act)) {
    current_.store(this);
  }
  stage(const stage&) = delete;
  stage& operator=(const stage&) = delete;
  ~stage() { current_.store(nullptr); }

  bool entered() const { return entered_.load(); }

  static void reached(const char* point) {
    stage* now = current_.load();
    if (now == nullptr || now->point_ != point) return;
    if (!now->entered_.exchange(true)) now->act_();
  }

 private:
  static inline std::atomic<stage*> current_{nullptr};
  const std::string point_;
  std::function<void()> act_;
  std::atomic<bool> entered_{false};
};

template <hybridloop::fence_policy Fence = hybridloop::fence_policy::adaptive>
struct staged_traits : hybridloop::default_traits {
  static constexpr hybridloop::fence_policy fence = Fence;
  static void schedule_point(const char* name) noexcept { stage::reached(name); }
};
using staged_loop = hybridloop::basic_loop<staged_traits<>>;

}  // namespace support
