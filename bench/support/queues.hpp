// queues.hpp - the phases that take part
#pragma once

#include <type_traits>

#include <hybridloop.hpp>

namespace queues {

namespace sync = hybridloop::sync;

template <class Queue>
struct of {
  using type = Queue;
};

template <bool is_default, class Queue, class Visit>
void one(const Visit& visit, const char* name) {
  if constexpr (std::is_same_v<Queue, sync::default_queue> == is_default) visit(of<Queue>(), name);
}

// A line for each.
template <bool is_default, class Visit>
void some(const Visit& visit) {
  one<is_default, sync::queue0>(visit, "hybridloop phase 0");
  one<is_default, sync::queue1>(visit, "hybridloop phase 1");
}

// visit(of<Queue>(), name): the default one first, because the first row of a table is what others are
// compared with.
template <class Visit>
void for_each(const Visit& visit) {
  some<true>(visit);
  some<false>(visit);
}

}  // namespace queues
