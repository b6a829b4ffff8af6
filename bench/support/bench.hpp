// bench.hpp - families of rows: repetitions in turn, and one table each
#pragma once

#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include "measure.hpp"
#include "options.hpp"
#include "statistics.hpp"
#include "syscalls.hpp"
#include "watchdog.hpp"

namespace bench {

enum class kind { ours, rival, limit };

inline const char* name_of(kind k) {
  constexpr const char* names[] = {"ours", "rival", "limit"};
  return names[static_cast<int>(k)];
}

struct row {
  kind role;
  std::string name;
  std::function<sample()> repeat;  // one repetition
  bool may_hang = false;
  std::vector<sample> samples{};
  double syscalls = none;

  std::vector<double> all(double sample::*what) const {
    std::vector<double> values;
    for (const sample& s : samples) values.push_back(s.*what);
    return values;
  }
  double median(double sample::*what = &sample::figure) const { return median_of(all(what)); }
  double least(double sample::*what = &sample::figure) const {
    const auto values = all(what);
    return *std::min_element(values.begin(), values.end());
  }
  double most(double sample::*what = &sample::figure) const {
    const auto values = all(what);
    return *std::max_element(values.begin(), values.end());
  }
};

// Rows that do the same thing. The first row is ours: what others are compared with.
class family {
 public:
  explicit family(std::string title, const char* unit = "ns/op")
      : title_(std::move(title)), unit_(unit) {}

  template <class F>
  void add(kind role, std::string name, F&& repeat) {
    rows_.push_back({role, std::move(name), std::forward<F>(repeat)});
  }
  // Of one that may never end: each repetition is run in a child, and the row is left out if one does not.
  template <class F>
  void add_watched(kind role, std::string name, F&& repeat) {
    rows_.push_back({role, std::move(name), std::forward<F>(repeat), true});
  }
  void skip(std::string name) { absent_.push_back(std::move(name) + " is not here: skipped"); }

  // A second table, of what the same repetitions found aside.
  family& aside(const char* what, const char* unit) {
    aside_ = what;
    aside_unit_ = unit;
    return *this;
  }

  // Nothing here is an operation whose system calls could be counted.
  family& uncounted() {
    counted_ = false;
    return *this;
  }

  void run(const options& how);

 private:
  void select(const options& how);
  void repeat(const options& how);
  void drop_those_that_hung();
  void print(const options& how) const;
  family what_was_found_aside() const;
  void print_text() const;
  void print_csv(const options& how) const;
  void print_json(const options& how) const;

  std::string title_;
  const char* unit_;
  bool counted_ = true;
  const char* aside_ = nullptr;
  const char* aside_unit_ = nullptr;
  std::vector<row> rows_;
  std::vector<std::string> absent_;
};

inline void family::run(const options& how) {
  select(how);
  if (rows_.empty()) return;
  repeat(how);
  drop_those_that_hung();
  if (rows_.empty()) return;
  print(how);
  if (aside_ != nullptr) what_was_found_aside().print(how);
}

inline void family::print(const options& how) const {
  if (how.as == format::text) print_text();
  if (how.as == format::csv) print_csv(how);
  if (how.as == format::json) print_json(how);
  std::fflush(stdout);
}

inline family family::what_was_found_aside() const {
  family other(title_ + aside_, aside_unit_);
  for (const row& r : rows_) {
    other.rows_.push_back({r.role, r.name, r.repeat});
    for (const sample& s : r.samples) other.rows_.back().samples.emplace_back(s.aside);
  }
  return other;
}

inline void family::drop_those_that_hung() {
  std::vector<row> ended;
  for (row& r : rows_) {
    if (r.samples.empty()) {
      absent_.push_back(r.name + " did not end: left out");
    } else {
      ended.push_back(std::move(r));
    }
  }
  rows_ = std::move(ended);
}

// A row that is asked for by its own name brings the first one along, to be compared with.
inline void family::select(const options& how) {
  std::vector<row> wanted;
  bool any = false;
  for (row& r : rows_) {
    const bool named = how.wants(title_, r.name);
    any = any || named;
    if (named || wanted.empty()) wanted.push_back(std::move(r));
  }
  if (!any) wanted.clear();
  rows_ = std::move(wanted);
}

// A B C A B C ..., after a round that is not counted.
inline void family::repeat(const options& how) {
  const bool watched = ::isatty(STDERR_FILENO) == 1;
  const auto progress = [&](const row& r, const char* what, int i) {
    if (!watched) return;
    std::fprintf(stderr, "\r%-52.52s %-30.30s %s %d/%d ", title_.c_str(), r.name.c_str(), what, i,
                 how.reps);
  };
  if (!watched) std::fprintf(stderr, "%s\n", title_.c_str());
  if (counted_) {
    for (row& r : rows_) {
      progress(r, "count", 0);
      if (!r.may_hang) r.syscalls = count_syscalls(r.repeat);
    }
  }
  std::vector<bool> hung(rows_.size());
  for (int i = 0; i <= how.reps; ++i) {
    for (std::size_t n = 0; n != rows_.size(); ++n) {
      row& r = rows_[n];
      if (hung[n]) continue;
      progress(r, "round", i);
      sample s;
      if (r.may_hang) {
        hung[n] = !in_watched_child(r.repeat, s);
      } else {
        s = r.repeat();
      }
      if (hung[n]) {
        r.samples.clear();
      } else if (i > 0) {
        r.samples.push_back(s);
      }
    }
  }
  if (watched) std::fprintf(stderr, "\r%104s\r", "");
}

// ---- Text ----

// A number in `width` columns, "-" for none.
inline void cell(int width, double value, int digits) {
  if (std::isnan(value)) {
    std::printf(" %*s", width, "-");
  } else {
    std::printf(" %*.*f", width, digits, value);
  }
}
inline void figure_cell(double value) {
  const double size = std::fabs(value);
  cell(10, value, size < 1 ? 3 : size < 1000 ? 1 : 0);
}

inline void family::print_text() const {
  const bool spread = !std::isnan(rows_.front().samples.front().p99);
  std::printf("\n%-50s %10s %10s %10s %9s %13s %9s %9s %9s %9s\n", title_.c_str(),
              spread ? "p50" : unit_, spread ? "p99" : "min", "max", "ours/this", "95 %", "cpu ns",
              "switches", "allocs", "syscalls");
  if (spread) std::printf("  (%s)\n", unit_);
  for (const row& r : rows_) {
    const ratio x = ratio_of_medians(rows_.front().all(&sample::figure), r.all(&sample::figure));
    char interval[32] = "-";
    if (!std::isnan(x.low)) std::snprintf(interval, sizeof interval, "%.3f..%.3f", x.low, x.high);
    std::printf("  %-48s", ((r.role == kind::ours    ? ""
                             : r.role == kind::rival ? "... "
                                                     : "(limit) ") +
                            r.name)
                               .c_str());
    figure_cell(r.median());
    figure_cell(spread ? r.median(&sample::p99) : r.least());
    figure_cell(spread ? r.most(&sample::most) : r.most());
    cell(9, x.value, 3);
    std::printf(" %13s", interval);
    cell(9, r.median(&sample::cpu_ns), 0);
    cell(9, r.median(&sample::switches), 3);
    cell(9, r.median(&sample::allocations), 3);
    cell(9, r.syscalls, 3);
    std::printf("\n");
  }
  for (const std::string& why : absent_) std::printf("  ... %s\n", why.c_str());
}

// ---- For machines ----

struct column {
  const char* name;
  double (*of)(const row&);
};
inline constexpr column columns[] = {
    {"median", [](const row& r) { return r.median(); }},
    {"min", [](const row& r) { return r.least(); }},
    {"max", [](const row& r) { return r.most(); }},
    {"p99", [](const row& r) { return r.median(&sample::p99); }},
    {"least", [](const row& r) { return r.least(&sample::least); }},
    {"most", [](const row& r) { return r.most(&sample::most); }},
    {"cpu_ns", [](const row& r) { return r.median(&sample::cpu_ns); }},
    {"switches", [](const row& r) { return r.median(&sample::switches); }},
    {"allocations", [](const row& r) { return r.median(&sample::allocations); }},
    {"syscalls", [](const row& r) { return r.syscalls; }},
};

inline void print_csv_header() {
  std::printf("program,family,unit,kind,row");
  for (const column& c : columns) std::printf(",%s", c.name);
  std::printf(",ours/this,low,high\n");
}

inline std::string number(double value, const char* absent) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return std::isnan(value) ? absent : text;
}

inline void family::print_csv(const options& how) const {
  for (const row& r : rows_) {
    std::printf("%s,\"%s\",%s,%s,\"%s\"", how.program.c_str(), title_.c_str(), unit_,
                name_of(r.role), r.name.c_str());
    for (const column& c : columns) std::printf(",%s", number(c.of(r), "").c_str());
    const ratio x = ratio_of_medians(rows_.front().all(&sample::figure), r.all(&sample::figure));
    std::printf(",%s,%s,%s\n", number(x.value, "").c_str(), number(x.low, "").c_str(),
                number(x.high, "").c_str());
  }
}

// A line for each row; a row of ours says how it stands against every other row.
inline void family::print_json(const options& how) const {
  for (const row& r : rows_) {
    std::printf(
        "{\"program\": \"%s\", \"family\": \"%s\", \"unit\": \"%s\", \"kind\": \"%s\", \"row\": "
        "\"%s\"",
        how.program.c_str(), title_.c_str(), unit_, name_of(r.role), r.name.c_str());
    for (const column& c : columns)
      std::printf(", \"%s\": %s", c.name, number(c.of(r), "null").c_str());
    std::printf(", \"figures\": [");
    for (const sample& s : r.samples)
      std::printf("%s%s", &s == &r.samples.front() ? "" : ", ", number(s.figure, "null").c_str());
    std::printf("], \"against\": {");
    const char* comma = "";
    for (const row& other : rows_) {
      if (r.role != kind::ours || &other == &r) continue;
      const ratio x = ratio_of_medians(r.all(&sample::figure), other.all(&sample::figure));
      std::printf("%s\"%s\": [%s, %s, %s]", comma, other.name.c_str(),
                  number(x.value, "null").c_str(), number(x.low, "null").c_str(),
                  number(x.high, "null").c_str());
      comma = ", ";
    }
    std::printf("}}\n");
  }
}

}  // namespace bench
