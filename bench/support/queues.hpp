// queues.hpp - the phases that take part
#pragma once

#include <type_traits>

#include <hybridloop.hpp>

#include "options.hpp"

namespace queues {

namespace sync = hybridloop::sync;

template <class Queue>
struct of {
  using type = Queue;
};

template <bool is_default, class Queue, class Visit>
void one(const Visit& visit, const char* name) {
  constexpr bool chosen = Queue::phase == sync::default_queue::phase;
  if constexpr (chosen == is_default) visit(of<Queue>(), name);
}

// A line for each.
template <class Traits, bool is_default, class Visit>
void some(const Visit& visit) {
  one<is_default, sync::basic_queue0<Traits>>(visit, "hybridloop phase 0");
  one<is_default, sync::basic_queue1<Traits>>(visit, "hybridloop phase 1");
  one<is_default, sync::basic_queue2<Traits>>(visit, "hybridloop phase 2");
  one<is_default, sync::basic_queue3<Traits>>(visit, "hybridloop phase 3");
}

// visit(of<Queue>(), name): the default one first, because the first row of a table is what others are
// compared with.
template <class Traits, class Visit>
void for_each_of(const Visit& visit) {
  some<Traits, true>(visit);
  some<Traits, false>(visit);
}
template <class Visit>
void for_each(const Visit& visit) {
  for_each_of<hybridloop::default_traits>(visit);
}

// The default one; with --full all of them. Fairness and phase are chosen apart, so a table need not have each
// with each.
template <class Visit>
void for_barging(const Visit& visit) {
  some<hybridloop::default_traits, true>(visit);
  if (bench::full) some<hybridloop::default_traits, false>(visit);
}

}  // namespace queues
