// wait/kernel_windows.hpp - the kernel seam on Windows: WaitOnAddress, and what all threads and pages need
#pragma once

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "base/clock.hpp"
#include "base/contract.hpp"
#include "base/handle.hpp"
#include "wait/kernel_winsock.hpp"
#include "wait/windows_calls.hpp"

#if HYBRIDLOOP_OS(WINDOWS)
#include <process.h>

HYBRIDLOOP_OPEN
namespace detail {

struct windows_kernel : winsock_calls {
  static constexpr const char* parking = "WaitOnAddress";

  // Rounded up, or the last millisecond would be spent spinning. A day at most: the caller sleeps again.
  static unsigned long whole_milliseconds(nanos span) noexcept {
    constexpr nanos longest = nanos{24} * 3600 * 1000;
    const nanos up = span / 1000000 + (span % 1000000 != 0 ? 1 : 0);
    return static_cast<unsigned long>(up < longest ? up : longest);
  }

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    const unsigned long span =
        deadline == never ? for_ever
                          : whole_milliseconds(time_between(read_clock<std::chrono::steady_clock>(), deadline));
    const functions& f = all();
    if (f.wait_on_address(word, &expected, sizeof expected, span) != 0) return 0;
    return f.last_error() == timed_out ? -ETIMEDOUT : -EAGAIN;
  }
  static int futex_wake(const void* word, int count) noexcept {
    (count == 1 ? all().wake_one : all().wake_all)(word);
    return 0;
  }

  // Returns when every other thread of the process has passed a full barrier.
  static void flush_write_buffers() noexcept { all().flush_write_buffers(); }
  static bool can_flush_write_buffers() noexcept { return !all().is_wine; }

  // Zeroed pages that cost nothing until touched; nullptr when there are none. (Untouched ones count
  // against what the system has promised, though: it does not promise more than it has.)
  static void* map(std::size_t bytes) noexcept {
    constexpr unsigned long reserve_and_commit = 0x3000, read_and_write = 4;
    return all().map(nullptr, bytes, reserve_and_commit, read_and_write);
  }
  static void unmap(void* memory, std::size_t) noexcept {
    constexpr unsigned long release = 0x8000;
    all().unmap(memory, 0, release);
  }

  static void yield() noexcept { all().yield(); }
  static void nap(nanos span) noexcept { all().sleep(whole_milliseconds(span)); }

  // There are none.
  static constexpr std::uint32_t forks() noexcept { return 0; }

  // A thread of the library's own.
  class thread {
   public:
    thread() noexcept = default;
    thread(const thread&) = delete;
    thread& operator=(const thread&) = delete;

    bool joinable() const noexcept { return run_ != nullptr; }

    // Calls run(with) there. 0, or the errno of a refused thread.
    int start(void (*run)(void*), void* with) noexcept {
      run_ = run;
      with_ = with;
      thread_ = reinterpret_cast<void*>(::_beginthreadex(nullptr, 0, &thread::enter, this, 0, nullptr));
      if (thread_ != nullptr) return 0;
      run_ = nullptr;
      return errno;
    }
    void join() noexcept {
      all().wait_for(thread_, for_ever);
      all().close(thread_);
      run_ = nullptr;
    }
    // The child of a fork, of which there is none.
    void forget() noexcept { run_ = nullptr; }

   private:
    static unsigned __stdcall enter(void* me) {
      const thread& mine = *static_cast<thread*>(me);
      mine.run_(mine.with_);
      return 0;
    }
    void* thread_ = nullptr;
    void (*run_)(void*) = nullptr;
    void* with_ = nullptr;
  };

  // A slim reader/writer lock, which is one pointer.
  class mutex {
   public:
    mutex() noexcept = default;
    mutex(const mutex&) = delete;
    mutex& operator=(const mutex&) = delete;
    void lock() noexcept { all().lock(&word_); }
    bool try_lock() noexcept { return all().try_lock(&word_) != 0; }
    void unlock() noexcept { all().unlock(&word_); }

   private:
    void* word_ = nullptr;
  };
  class hold {
   public:
    explicit hold(mutex& m) noexcept : mutex_(m) { m.lock(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() { mutex_.unlock(); }

   private:
    mutex& mutex_;
  };

  // The process's affinity mask, since a thread may be kept on a CPU of its own. It is of 64 CPUs, and empty where
  // the process has more than those.
  static unsigned usable_cpus() noexcept {
    void* const this_process = reinterpret_cast<void*>(std::intptr_t{-1});
    std::uintptr_t ours = 0, of_all = 0;
    if (all().affinity(this_process, &ours, &of_all) == 0) return 1;
    if (ours == 0) return 64;
    unsigned count = 0;
    for (; ours != 0; ours &= ours - 1) ++count;
    return count;
  }

  // The lowest two bits of a number are the program's own, and none is wider than 32 bits.
  static bool is_descriptor(native_handle handle) noexcept {
    unsigned long flags = 0;
    const bool usual = handle > 0 && handle <= 0x7fffffff && handle % native_handle{handle_step} == 0;
    return usual && all().handle_information(reinterpret_cast<void*>(handle), &flags) != 0;
  }

#if !HYBRIDLOOP_NO_IO
  static int identify(native_handle handle, file_identity& out) noexcept {
    if (!is_descriptor(handle)) return -EBADF;
    if (is_socket(handle)) return 0;
    out.always_ready = is_file(handle);
    return out.always_ready ? 0 : -EBADF;
  }
#endif

 private:
  static constexpr unsigned long for_ever = 0xffffffff;
  static constexpr unsigned long timed_out = 1460;

  struct functions {
    int(__stdcall* wait_on_address)(const void*, const void*, std::size_t, unsigned long);
    void(__stdcall* wake_one)(const void*);
    void(__stdcall* wake_all)(const void*);
    unsigned long(__stdcall* last_error)();
    void(__stdcall* flush_write_buffers)();
    void*(__stdcall* map)(void*, std::size_t, unsigned long, unsigned long);
    int(__stdcall* unmap)(void*, std::size_t, unsigned long);
    int(__stdcall* yield)();
    void(__stdcall* sleep)(unsigned long);
    unsigned long(__stdcall* wait_for)(void*, unsigned long);
    int(__stdcall* close)(void*);
    void(__stdcall* lock)(void**);
    unsigned char(__stdcall* try_lock)(void**);
    void(__stdcall* unlock)(void**);
    int(__stdcall* affinity)(void*, std::uintptr_t*, std::uintptr_t*);
    int(__stdcall* handle_information)(void*, unsigned long*);
    bool is_wine;
  };

  static const functions& all() noexcept {
    static const functions found = look_up();
    return found;
  }
  static functions look_up() noexcept {
    functions f{};
    const windows_library kernel("kernel32.dll"), words("api-ms-win-core-synch-l1-2-0.dll"), native("ntdll.dll");
    const bool complete =
        words.find(f.wait_on_address, "WaitOnAddress") && words.find(f.wake_one, "WakeByAddressSingle") &&
        words.find(f.wake_all, "WakeByAddressAll") && kernel.find(f.last_error, "GetLastError") &&
        kernel.find(f.flush_write_buffers, "FlushProcessWriteBuffers") && kernel.find(f.map, "VirtualAlloc") &&
        kernel.find(f.unmap, "VirtualFree") && kernel.find(f.yield, "SwitchToThread") && kernel.find(f.sleep, "Sleep") &&
        kernel.find(f.wait_for, "WaitForSingleObject") && kernel.find(f.close, "CloseHandle") &&
        kernel.find(f.lock, "AcquireSRWLockExclusive") && kernel.find(f.try_lock, "TryAcquireSRWLockExclusive") &&
        kernel.find(f.unlock, "ReleaseSRWLockExclusive") && kernel.find(f.affinity, "GetProcessAffinityMask") &&
        kernel.find(f.handle_information, "GetHandleInformation");
    if (!complete) fail("needs Windows 8 or later: there is no WaitOnAddress");
    const char*(__cdecl* version)() = nullptr;
    f.is_wine = native.find(version, "wine_get_version");
    return f;
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(WINDOWS)
