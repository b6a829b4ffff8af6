// ingress/stream.hpp - keeps a fast consumer from chasing its producer through the ring
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/pause.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A consumer that is faster than its producer polls the very line that the producer is about to
// write; each task then costs a transfer of the line both ways, several times the cost of a task
// in a stream. So a consumer that finds its next task at once, many times in a row and sooner than
// a requester that waits for its answer could have sent it, lets some gather before it looks again:
// longer while batches are large, shorter while they are small, not at all when the stream ends.
//
// The loop thread only. Counted in pauses: a look is a matter of tens of nanoseconds, and a clock
// would cost as much.
class stream_pace {
 public:
  // After a batch of `ran` tasks that ended at an empty ring; look() says whether there is more.
  // False: there is nothing more just now.
  template <class Look>
  bool more(std::size_t ran, const Look& look) noexcept {
    if (pause_ != 0) {
      adapt(ran);
      rest(pause_);
    }
    for (std::uint32_t i = 0; i < at_once; ++i) {
      if (look()) {
        if (pause_ == 0 && ++streak_ >= many) pause_ = 1;
        return true;
      }
      cpu_pause();
    }
    streak_ = 0;
    pause_ = 0;
    return false;
  }

 private:
  static constexpr std::uint32_t at_once = 2;
  static constexpr std::uint32_t many = 16;
  static constexpr std::uint32_t longest = 32;
  static constexpr std::size_t large_batch = 8;

  void adapt(std::size_t ran) noexcept {
    if (ran >= large_batch) {
      if (pause_ < longest) pause_ *= 2;
    } else if (pause_ > 1) {
      pause_ /= 2;
    }
  }
  static void rest(std::uint32_t pauses) noexcept {
    for (std::uint32_t i = 0; i < pauses; ++i) cpu_pause();
  }

  std::uint32_t streak_ = 0;
  std::uint32_t pause_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
