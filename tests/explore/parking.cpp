// parking.cpp - scenarios: a loop that goes to sleep while others give it work
#include "explore/scene.hpp"

using namespace explore;

namespace {

template <class Traits>
void two_posters() {
  ledger book;
  {
    hybridloop::basic_loop<Traits> l(small_loop());
    last_one closer(2, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    for (unsigned who : {1u, 2u}) {
      start(who == 1 ? "one" : "two", [&, who] {
        book.post(l, who);
        closer.done();
      });
    }
    play();
  }
  ledger::must(book.accepted() == 2, "a post was refused");
  book.check();
}

}  // namespace

EXPLORE(two_posters_symmetric, 2) { two_posters<symmetric_traits>(); }
EXPLORE(two_posters_asymmetric, 2) { two_posters<asymmetric_traits>(); }
