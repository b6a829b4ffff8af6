// cost.cpp - what it costs to have a loop: to compile it, to keep it, and what a burst leaves behind
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <type_traits>

#include <hybridloop.hpp>

#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/bench.hpp"
#include "support/rivals.hpp"
#include "support/workloads.hpp"

#if !defined(BENCH_CXX)
#define BENCH_CXX "c++"
#endif
#if !defined(BENCH_INCLUDE)
#define BENCH_INCLUDE "-I."
#endif

namespace {

using bench::kind;
using bench::sample;

// ---- Compile time ----

// What a file includes, and what it does with it.
struct source {
  std::string includes;
  std::string body;
};
const source ours_source{
    "#include <hybridloop.hpp>\n",
    "int main() { hybridloop::loop l; static_cast<void>(l.post([] {})); l.run_until_idle(); }\n"};
const source asio_source{"#include <asio/io_context.hpp>\n#include <asio/post.hpp>\n",
                         "int main() { asio::io_context c; asio::post(c, [] {}); c.run(); }\n"};

// The standard headers that the library includes, read from its joined file.
source standard_headers() {
  std::ifstream joined("hybridloop.hpp");
  std::set<std::string> headers;
  for (std::string line; std::getline(joined, line);) {
    if (line.compare(0, 10, "#include <") == 0 && line.find('.') == std::string::npos)
      headers.insert(line);
  }
  source all;
  for (const std::string& header : headers) all.includes += header + "\n";
  bench::must(!all.includes.empty(), "hybridloop.hpp is in this folder");
  return all;
}

// A compiler's run, in a folder of its own.
class compilation {
 public:
  explicit compilation(const std::string& text) {
    bench::must(made_ != nullptr, "a folder to compile in");
    std::ofstream(path()) << text;
  }
  compilation(const compilation&) = delete;
  ~compilation() {
    std::remove(path().c_str());
    ::rmdir(folder_);
  }
  sample milliseconds(const char* level) const {
    const std::string command =
        std::string(BENCH_CXX " -std=c++17 " BENCH_INCLUDE " -DASIO_STANDALONE ") + level + " -c " +
        path() + " -o /dev/null";
    int status = 0;
    const sample s = bench::timed(1, [&] { status = std::system(command.c_str()); });
    bench::must(status == 0, "the file compiled");
    return sample(s.figure / 1e6);
  }

 private:
  std::string path() const { return std::string(folder_) + "/file.cpp"; }
  char folder_[32] = "/tmp/hybridloop-bench-XXXXXX";
  const char* made_ = ::mkdtemp(folder_);
};

// A file that includes the header, and one that uses it.
struct compile_how {
  const char* title;
  const char* level;
  bool used;
};

void add_compilation(bench::family& table, kind role, const char* name, const source& what,
                     compile_how how) {
  std::string text = what.includes + (how.used ? what.body : "");
  table.add(role, name, [text = std::move(text), level = how.level] {
    return compilation(text).milliseconds(level);
  });
}

#if defined(HAVE_ASIO)
void add_asio_compilation(bench::family& table, compile_how how) {
  add_compilation(table, kind::rival, "Asio", asio_source, how);
}
#else
void add_asio_compilation(bench::family& table, compile_how) { table.skip("Asio"); }
#endif

void measure_compilation(const bench::options& how, compile_how compile) {
  bench::family table(std::string("cost: compile time, ") + compile.title, "ms");
  add_compilation(table, kind::ours, "hybridloop", ours_source, compile);
  add_asio_compilation(table, compile);
  add_compilation(table, kind::limit, "the standard headers it needs", standard_headers(), compile);
  table.uncounted().run(how);
}

// ---- Size ----

void add_size(bench::family& table, kind role, const char* name, std::size_t size) {
  table.add(role, name, [size] { return sample(static_cast<double>(size)); });
}
#if defined(HAVE_LIBUV)
void add_libuv_size(bench::family& table) {
  add_size(table, kind::rival, "libuv uv_loop_t + uv_async_t",
           sizeof(uv_loop_t) + sizeof(uv_async_t));
}
#else
void add_libuv_size(bench::family& table) { table.skip("libuv"); }
#endif
#if defined(HAVE_ASIO)
void add_asio_size(bench::family& table) {
  add_size(table, kind::rival, "Asio io_context", sizeof(asio::io_context));
}
#else
void add_asio_size(bench::family& table) { table.skip("Asio"); }
#endif

void measure_size(const bench::options& how) {
  bench::family table("cost: sizeof the loop object", "bytes");
  add_size(table, kind::ours, "hybridloop", sizeof(hybridloop::loop));
  add_libuv_size(table);
  add_asio_size(table);
  table.uncounted().run(how);
}

// ---- Memory and descriptors ----

// Kilobytes that this process alone has written to, or what is resident where the kernel does not say.
double kilobytes_touched() {
  std::ifstream rollup("/proc/self/smaps_rollup");
  for (std::string word; rollup >> word;) {
    double value = 0;
    if (word == "Private_Dirty:" && rollup >> value) return value;
  }
  std::ifstream pages("/proc/self/statm");
  double size = 0, resident = 0;
  pages >> size >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1024;
}

double descriptors_open() {
  double count = 0;
  DIR* const all = ::opendir("/proc/self/fd");
  if (all == nullptr) return bench::none;
  while (::readdir(all) != nullptr) ++count;
  ::closedir(all);
  return count;
}

// In a child, so that no contender finds memory that another one has touched before.
template <class F>
double in_a_child(F f) {
  int ends[2];
  bench::must(::pipe(ends) == 0, "a pipe");
  const pid_t child = ::fork();
  if (child == 0) {
    const double figure = f();
    ::_exit(::write(ends[1], &figure, sizeof figure) == static_cast<ssize_t>(sizeof figure) ? 0
                                                                                            : 1);
  }
  ::close(ends[1]);
  double figure = bench::none;
  bench::must(::read(ends[0], &figure, sizeof figure) == static_cast<ssize_t>(sizeof figure),
              "a child answered");
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  return figure;
}

// A thread and nothing else.
struct bare_thread {
  static constexpr const char* name = "a bare thread";
  ~bare_thread() {
    leave.open();
    thread.join();
  }
  template <class F>
  void post(F&& f) {
    f();
  }
  workloads::gate leave;
  std::thread thread{[this] { leave.pass(); }};
};

template <class Rival>
void run_tasks(Rival& rival, std::size_t count) {
  workloads::tally all(count);
  for (std::size_t i = 0; i < count; ++i) rival.post([&all] { all.count(); });
  all.wait();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

// What `meter` shows more once there is a contender, with its thread, that has run `tasks` tasks.
template <class Contender>
void add_growth(bench::family& table, kind role, double (*meter)(), std::size_t tasks) {
  if constexpr (std::is_base_of_v<rivals::absent, Contender>) {
    table.skip(Contender::name);
  } else {
    table.add(role, Contender::name, [meter, tasks] {
      return sample(in_a_child([meter, tasks] {
        meter();
        const double before = meter();
        Contender contender;
        run_tasks(contender, tasks);
        return meter() - before;
      }));
    });
  }
}

void measure_growth(const bench::options& how, const char* title, const char* unit,
                    double (*meter)(), std::size_t tasks) {
  bench::family table(title, unit);
  add_growth<rivals::ours<>>(table, kind::ours, meter, tasks);
  add_growth<rivals::ours<hybridloop::fast_path::mini>>(table, kind::ours, meter, tasks);
  add_growth<rivals::ours<hybridloop::fast_path::off>>(table, kind::ours, meter, tasks);
  add_growth<rivals::libuv>(table, kind::rival, meter, tasks);
  add_growth<rivals::asio_post>(table, kind::rival, meter, tasks);
  add_growth<rivals::libevent>(table, kind::rival, meter, tasks);
  add_growth<rivals::libev>(table, kind::rival, meter, tasks);
  add_growth<rivals::condvar>(table, kind::rival, meter, tasks);
  add_growth<bare_thread>(table, kind::limit, meter, tasks);
  table.uncounted().run(how);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  measure_compilation(how, {"header included, -O0", "-O0", false});
  measure_compilation(how, {"loop made, one post, -O0", "-O0", true});
  measure_compilation(how, {"loop made, one post, -O2", "-O2", true});
  measure_size(how);
  measure_growth(how, "cost: memory touched, idle, with its thread", "KiB", kilobytes_touched, 1);
  measure_growth(how, "cost: memory touched, after 100000 posts", "KiB", kilobytes_touched, 100000);
  measure_growth(how, "cost: descriptors of a loop", "count", descriptors_open, 1);
}
