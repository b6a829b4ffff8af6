// statistics.hpp - the ratio of two medians, and how sure one may be of it
#pragma once

#include <algorithm>
#include <cstddef>
#include <random>
#include <vector>

#include "measure.hpp"

namespace bench {

struct ratio {
  double value = none;
  double low = none;  // 95 % of the resampled ratios lie between these two
  double high = none;
};

inline constexpr std::size_t enough_for_interval = 21;

// A percentile bootstrap over pairs: figure i of both is of one round, so what disturbed the round
// disturbed both. The seed is fixed, the same figures give the same interval.
inline ratio ratio_of_medians(const std::vector<double>& ours, const std::vector<double>& theirs) {
  ratio r;
  if (!(median_of(theirs) > 0)) return r;
  r.value = median_of(ours) / median_of(theirs);
  const std::size_t n = (std::min)(ours.size(), theirs.size());
  if (n < enough_for_interval) return r;
  constexpr std::size_t resamples = 2000;
  std::mt19937 random(2024);
  std::uniform_int_distribution<std::size_t> any(0, n - 1);
  std::vector<double> ratios(resamples), a(n), b(n);
  for (double& one : ratios) {
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t pick = any(random);
      a[i] = ours[pick];
      b[i] = theirs[pick];
    }
    one = median_of(a) / median_of(b);
  }
  std::sort(ratios.begin(), ratios.end());
  r.low = ratios[resamples / 40];
  r.high = ratios[resamples - 1 - resamples / 40];
  return r;
}

}  // namespace bench
