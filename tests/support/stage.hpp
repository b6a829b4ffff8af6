// stage.hpp - loops whose race windows a test can step into
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>
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
  ~stage() {
    current_.store(nullptr);
    while (looking_ != 0) std::this_thread::yield();
  }

  bool entered() const { return entered_.load(); }

  static void reached(const char* point) {
    if (stage* here = entered_at(point)) here->act_();
  }

 private:
  static stage* entered_at(const char* point) {
    if (current_.load() == nullptr) return nullptr;
    ++looking_;
    stage* here = current_.load();
    if (here != nullptr && (here->point_ != point || here->entered_.exchange(true))) here = nullptr;
    --looking_;
    return here;
  }

  static inline std::atomic<stage*> current_{nullptr};
  static inline std::atomic<int> looking_{0};  // threads that compare names
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
