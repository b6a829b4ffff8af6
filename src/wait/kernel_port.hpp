// wait/kernel_port.hpp - completion ports, AFD and waits for handles, as one poller calls them: Windows
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "base/clock.hpp"
#include "base/contract.hpp"
#include "base/handle.hpp"
#include "wait/windows_calls.hpp"

#if HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
HYBRIDLOOP_OPEN
namespace detail {

// What a completion port hands out.
struct port_packet {
  std::uintptr_t key;
  void* what;
  std::uintptr_t internal;
  unsigned long bytes;
};

// One question to the kernel, which is answered by one packet. Its memory is the kernel's from the call
// that asks until that packet was taken, also where the question was taken back.
struct port_request {
  struct {
    std::intptr_t status;
    std::uintptr_t bytes;
  } outcome{};
  struct {
    std::int64_t timeout;
    unsigned long count;
    unsigned long exclusive;
    void* socket;
    unsigned long events;
    long status;
  } poll{};
  native_handle port = -1;  // of a wait for a handle
  void* wait = nullptr;
  std::atomic<bool> signalled{false};
};

// Sockets are asked after by \Device\Afd, which is what select() and WSAPoll() are made of; the numbers
// are its own. Nothing of this is in a header of Windows, and no header of Windows is wanted here, so it
// is looked up by name.
struct port_calls {
  enum : std::uintptr_t { request_key = 1, bell_key, timer_key };

  enum : unsigned {
    afd_receive = 0x1,
    afd_expedited = 0x2,
    afd_send = 0x4,
    afd_disconnect = 0x8,
    afd_abort = 0x10,
    afd_local_close = 0x20,
    afd_accept = 0x80,
    afd_connect_fail = 0x100
  };

  static int port_open(native_handle& port) noexcept {
    const functions& f = all();
    if (!f.complete) return -ENOSYS;
    void* const nothing = reinterpret_cast<void*>(std::intptr_t{-1});
    void* const made = f.create_port(nothing, nullptr, 0, many_threads);
    port = number_of(made);
    return made != nullptr ? 0 : -ENOMEM;
  }

  static int port_post(native_handle port, std::uintptr_t key, void* what) noexcept {
    return all().post(object_of(port), 0, key, what) != 0 ? 0 : -ENOMEM;
  }

  // Rounded up, or the last millisecond would be spent spinning. A day at most: the caller waits again.
  static int port_wait(native_handle port, port_packet* out, int room, nanos timeout) noexcept {
    constexpr nanos longest = nanos{24} * 3600 * 1000;
    const nanos up = timeout / 1000000 + (timeout % 1000000 != 0 ? 1 : 0);
    const auto span = static_cast<unsigned long>(up < longest ? up : longest);
    const functions& f = all();
    unsigned long got = 0;
    const int done = f.wait(object_of(port), out, static_cast<unsigned long>(room), &got,
                            timeout == never ? for_ever : span, 0);
    if (done != 0) return static_cast<int>(got);
    return f.last_error() == timed_out ? 0 : -EBADF;
  }

  // ---- Sockets ----

  // What asks after some sockets. Its packets go to the port.
  static int afd_open(native_handle port, native_handle& afd) noexcept {
    static wchar_t path[] = L"\\Device\\Afd\\hybridloop";
    const counted_text name{sizeof path - sizeof path[0], sizeof path, path};
    const object_attributes which{sizeof which, nullptr, &name, 0, nullptr, nullptr};
    const functions& f = all();
    status_block outcome{};
    void* made = nullptr;
    const long refused = f.create_file(&made, may_synchronize, &which, &outcome, nullptr, 0, 3, 1, 0, nullptr, 0);
    if (refused != 0) return -errno_of(refused);
    afd = number_of(made);
    if (f.create_port(made, object_of(port), request_key, 0) != nullptr && f.set_modes(made, skip_event) != 0) return 0;
    f.close(made);
    return -ENOMEM;
  }

  // 0: a packet comes, maybe at once.
  static int afd_poll(native_handle afd, port_request& r, native_handle socket, unsigned events) noexcept {
    constexpr unsigned long poll_code = 0x00012024;
    r.poll = {never, 1, 0, object_of(socket), events, 0};
    r.outcome.status = pending;
    auto* const outcome = static_cast<void*>(&r.outcome);
    const long answer = all().control(object_of(afd), nullptr, nullptr, &r, outcome, poll_code, &r.poll,
                                      sizeof r.poll, &r.poll, sizeof r.poll);
    return answer == 0 || answer == pending ? 0 : -errno_of(answer);
  }

  // The packet comes nevertheless.
  static void afd_cancel(native_handle afd, port_request& r) noexcept {
    status_block outcome{};
    all().cancel(object_of(afd), &r.outcome, &outcome);
  }

  // What became of it: events, 0 for none, or -errno. A question that was taken back still has its events.
  static int afd_outcome(const port_request& r) noexcept {
    const auto status = static_cast<long>(r.outcome.status);
    if (status == cancelled) return 0;
    if (status < 0) return -errno_of(status);
    return r.poll.count != 0 ? static_cast<int>(r.poll.events) : 0;
  }

  static bool is_socket(native_handle handle) noexcept {
    const functions& f = all();
    int type = 0, size = sizeof type;
    const auto socket = static_cast<std::uintptr_t>(handle);
    return f.socket_option != nullptr && f.socket_option(socket, every_level, its_type, &type, &size) == 0;
  }

  // The socket below the layers that programs may put on top.
  static int base_socket(native_handle socket, native_handle& out) noexcept {
    constexpr unsigned long base_code = 0x48000022, base_for_poll_code = 0x4800001D;
    const functions& f = all();
    for (const unsigned long code : {base_code, base_for_poll_code}) {
      unsigned long bytes = 0;
      const auto handle = static_cast<std::uintptr_t>(socket);
      if (f.socket_control(handle, code, nullptr, 0, &out, sizeof out, &bytes, nullptr, nullptr) == 0) return 0;
    }
    return -EINVAL;
  }

  // ---- Other handles ----

  static bool is_file(native_handle handle) noexcept { return all().file_type(object_of(handle)) == 1; }
  static void close_handle(native_handle handle) noexcept { all().close(object_of(handle)); }

  // 0: a packet comes when the handle is signalled, or is there at once.
  static int handle_wait(native_handle port, port_request& r, native_handle handle) noexcept {
    const functions& f = all();
    r.port = port;
    if (f.packet_create != nullptr) {
      const long made = r.wait == nullptr ? f.packet_create(&r.wait, 1, nullptr) : 0;
      if (made != 0) return -errno_of(made);
      return -errno_of(f.packet_associate(r.wait, object_of(port), object_of(handle), number(request_key), &r, 0, 0, nullptr));
    }
    handle_forget(r);
    r.signalled.store(false, std::memory_order_relaxed);  // ours alone until it is registered
    constexpr unsigned long once_in_the_waiter = 8 | 4;
    const int done = f.register_wait(&r.wait, object_of(handle), &signalled, &r, for_ever, once_in_the_waiter);
    if (done == 0) r.wait = nullptr;
    return done != 0 ? 0 : -EINVAL;
  }

  // True: no packet comes.
  static bool handle_cancel(port_request& r) noexcept {
    const functions& f = all();
    if (f.packet_create != nullptr) return f.packet_cancel(r.wait, 1) == 0;
    handle_forget(r);
    return !r.signalled.load(std::memory_order_relaxed);  // ours alone: who sets it was waited for
  }

  static void handle_forget(port_request& r) noexcept {
    const functions& f = all();
    if (r.wait == nullptr) return;
    if (f.packet_create != nullptr) {
      f.close(r.wait);
    } else {
      f.unregister_wait(r.wait, reinterpret_cast<void*>(std::intptr_t{-1}));  // waits for signalled()
    }
    r.wait = nullptr;
  }

  // ---- A timer of finer grain, where the kernel can tie one to a port ----

  static int timer_open(native_handle& timer, native_handle& tie) noexcept {
    const functions& f = all();
    if (f.packet_create == nullptr || f.create_timer == nullptr) return -ENOSYS;
    constexpr unsigned long high_resolution = 2, all_access = 0x1F0003;
    void* const made = f.create_timer(nullptr, nullptr, high_resolution, all_access);
    if (made == nullptr) return -ENOSYS;
    timer = number_of(made);
    void* packet = nullptr;
    const long refused = f.packet_create(&packet, 1, nullptr);
    if (refused == 0) {
      tie = number_of(packet);
      return 0;
    }
    f.close(made);
    timer = -1;
    return -errno_of(refused);
  }
  // Rounded up to what it counts, 100 ns.
  static int timer_start(native_handle timer, native_handle tie, native_handle port, nanos span) noexcept {
    const std::int64_t due = -(span / 100 + (span % 100 != 0 ? 1 : 0));
    const functions& f = all();
    if (f.set_timer(object_of(timer), &due, 0, nullptr, nullptr, 0) == 0) return -EINVAL;
    return -errno_of(f.packet_associate(object_of(tie), object_of(port), object_of(timer), number(timer_key), nullptr, 0, 0, nullptr));
  }
  // Nothing of it is left in the port.
  static void timer_stop(native_handle tie) noexcept { all().packet_cancel(object_of(tie), 1); }

 private:
  struct status_block {
    std::intptr_t status;
    std::uintptr_t bytes;
  };
  struct counted_text {
    unsigned short bytes;
    unsigned short room;
    wchar_t* text;
  };
  struct object_attributes {
    unsigned long size;
    void* root;
    const counted_text* name;
    unsigned long attributes;
    void* security;
    void* quality;
  };

  static constexpr long pending = 0x103;
  static constexpr long cancelled = static_cast<long>(0xC0000120);
  static constexpr unsigned long timed_out = 258;
  static constexpr unsigned long for_ever = 0xffffffff;
  static constexpr unsigned long many_threads = 1024;  // the port keeps nobody from running
  static constexpr unsigned long may_synchronize = 0x00100000;
  static constexpr unsigned char skip_event = 2;
  static constexpr int every_level = 0xffff;
  static constexpr int its_type = 0x1008;

  struct functions {
    void*(__stdcall* create_port)(void*, void*, std::uintptr_t, unsigned long);
    int(__stdcall* post)(void*, unsigned long, std::uintptr_t, void*);
    int(__stdcall* wait)(void*, port_packet*, unsigned long, unsigned long*, unsigned long, int);
    int(__stdcall* set_modes)(void*, unsigned char);
    int(__stdcall* close)(void*);
    unsigned long(__stdcall* file_type)(void*);
    unsigned long(__stdcall* last_error)();
    int(__stdcall* register_wait)(void**, void*, void(__stdcall*)(void*, unsigned char), void*, unsigned long, unsigned long);
    int(__stdcall* unregister_wait)(void*, void*);
    void*(__stdcall* create_timer)(void*, const wchar_t*, unsigned long, unsigned long);
    int(__stdcall* set_timer)(void*, const std::int64_t*, long, void*, void*, int);
    long(__stdcall* create_file)(void**, unsigned long, const object_attributes*, status_block*, void*, unsigned long,
                                 unsigned long, unsigned long, unsigned long, void*, unsigned long);
    long(__stdcall* control)(void*, void*, void*, void*, void*, unsigned long, void*, unsigned long, void*, unsigned long);
    long(__stdcall* cancel)(void*, void*, status_block*);
    long(__stdcall* packet_create)(void**, unsigned long, void*);
    long(__stdcall* packet_associate)(void*, void*, void*, void*, void*, long, std::uintptr_t, unsigned char*);
    long(__stdcall* packet_cancel)(void*, unsigned char);
    int(__stdcall* socket_control)(std::uintptr_t, unsigned long, void*, unsigned long, void*, unsigned long, unsigned long*,
                                   void*, void*);
    int(__stdcall* socket_option)(std::uintptr_t, int, int, void*, int*);
    bool complete;
  };

  static const functions& all() noexcept {
    static const functions found = look_up();
    return found;
  }
  static functions look_up() noexcept {
    functions f{};
    const windows_library kernel("kernel32.dll"), native("ntdll.dll"), sockets("ws2_32.dll");
    f.complete = kernel.find(f.create_port, "CreateIoCompletionPort") && kernel.find(f.post, "PostQueuedCompletionStatus") &&
                 kernel.find(f.wait, "GetQueuedCompletionStatusEx") &&
                 kernel.find(f.set_modes, "SetFileCompletionNotificationModes") && kernel.find(f.close, "CloseHandle") &&
                 kernel.find(f.file_type, "GetFileType") &&
                 kernel.find(f.last_error, "GetLastError") && kernel.find(f.register_wait, "RegisterWaitForSingleObject") &&
                 kernel.find(f.unregister_wait, "UnregisterWaitEx") && native.find(f.create_file, "NtCreateFile") &&
                 native.find(f.control, "NtDeviceIoControlFile") && native.find(f.cancel, "NtCancelIoFileEx");
    kernel.find(f.create_timer, "CreateWaitableTimerExW");
    kernel.find(f.set_timer, "SetWaitableTimer");
    const bool ties = native.find(f.packet_create, "NtCreateWaitCompletionPacket") &&
                      native.find(f.packet_associate, "NtAssociateWaitCompletionPacket") &&
                      native.find(f.packet_cancel, "NtCancelWaitCompletionPacket");
    if (!ties) f.packet_create = nullptr;
    if (!sockets.find(f.socket_control, "WSAIoctl") || !sockets.find(f.socket_option, "getsockopt")) f.socket_option = nullptr;
    return f;
  }

  // A thread of the system's own.
  static void __stdcall signalled(void* with, unsigned char) noexcept {
    auto& r = *static_cast<port_request*>(with);
    r.signalled.store(true, std::memory_order_relaxed);  // a hint; who cancels waits for this function
    if (port_post(r.port, request_key, with) != 0) fail("the kernel has no memory to report a handle");
  }

  static void* object_of(native_handle handle) noexcept { return reinterpret_cast<void*>(handle); }
  static void* number(std::uintptr_t key) noexcept { return reinterpret_cast<void*>(key); }
  static native_handle number_of(void* object) noexcept { return reinterpret_cast<native_handle>(object); }

  static int errno_of(long status) noexcept {
    switch (static_cast<unsigned long>(status)) {
      case 0: return 0;
      case 0xC0000008: return EBADF;   // no handle
      case 0xC0000024: return EBADF;   // one of another kind
      case 0xC0000017: return ENOMEM;
      case 0xC000009A: return ENOMEM;
      case 0xC000011F: return EMFILE;
      case 0xC0000022: return EACCES;
      default: return EIO;
    }
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#elif HYBRIDLOOP_OS(WINDOWS)
HYBRIDLOOP_OPEN
namespace detail {
struct port_calls {};
}  // namespace detail
HYBRIDLOOP_CLOSE
#endif
