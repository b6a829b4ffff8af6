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
// The loop thread only.
class stream_pace {
 public:
  // After a batch of `ran` tasks that ended at an empty ring; look() says whether there is more.
  // False: there is nothing more just now. A rest ends early when plenty() says that it would hold up
  // the producer.
  template <class Look, class Plenty>
  bool more(std::size_t ran, const Look& look, const Plenty& plenty) noexcept {
    if (rest_ns_ != 0) {
      adapt(ran);
      rest(plenty);
    }
    for (std::uint32_t left = pauses_in(at_once_ns); left != 0; --left) {
      if (look()) {
        if (rest_ns_ == 0 && ++streak_ >= many) rest_ns_ = shortest_ns;
        return true;
      }
      cpu_pause();
    }
    streak_ = 0;
    rest_ns_ = 0;
    return false;
  }

 private:
  // A line goes from one core to another and back in 300 ns and more.
  static constexpr std::uint32_t at_once_ns = 200;
  static constexpr std::uint32_t shortest_ns = 100;
  static constexpr std::uint32_t longest_ns = 12800;
  static constexpr std::uint32_t many = 16;
  static constexpr std::size_t large_batch = 8;

  void adapt(std::size_t ran) noexcept {
    if (ran >= large_batch) {
      if (rest_ns_ < longest_ns) rest_ns_ *= 2;
    } else if (rest_ns_ > shortest_ns) {
      rest_ns_ /= 2;
    }
  }

  template <class Plenty>
  void rest(const Plenty& plenty) noexcept {
    for (std::uint32_t ns = 0; ns < rest_ns_; ns += shortest_ns) {
      for (std::uint32_t left = pauses_in(shortest_ns); left != 0; --left) cpu_pause();
      if (plenty()) return;
    }
  }

  std::uint32_t streak_ = 0;
  std::uint32_t rest_ns_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
