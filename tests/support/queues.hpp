// queues.hpp - the phases: every promise of what is made of a queue is tested in each of them
#pragma once

#include <hybridloop.hpp>

// For TEST_CASE_TEMPLATE("...", Queue, SUPPORT_QUEUES).
#define SUPPORT_QUEUES                                                                          \
  hybridloop::sync::queue0, hybridloop::sync::queue1, hybridloop::sync::queue2, hybridloop::sync::queue3, \
      hybridloop::sync::queue_locked

namespace support {

// The same queue, made of other traits.
template <class Queue, class Traits>
struct rebound;
template <template <class> class Queue, class Before, class Traits>
struct rebound<Queue<Before>, Traits> {
  using type = Queue<Traits>;
};
template <template <class, unsigned> class Queue, class Before, unsigned Size, class Traits>
struct rebound<Queue<Before, Size>, Traits> {
  using type = Queue<Traits, Size>;
};
template <class Queue, class Traits>
using rebind_queue = typename rebound<Queue, Traits>::type;

}  // namespace support
