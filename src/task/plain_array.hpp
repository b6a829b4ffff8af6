// task/plain_array.hpp - plain values on the heap, by number
#pragma once

#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

#include "task/memory.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Zero until they are set; it only grows. One thread at a time.
template <class T>
class plain_array {
  static_assert(std::is_trivially_copyable_v<T>, "it is moved by memcpy");

 public:
  plain_array() noexcept = default;
  plain_array(const plain_array&) = delete;
  plain_array& operator=(const plain_array&) = delete;
  ~plain_array() {
    if (data_ != nullptr) heap_give(data_, alignof(T));
  }

  std::size_t room() const noexcept { return room_; }
  T* data() noexcept { return data_; }
  T& operator[](std::size_t i) noexcept { return data_[i]; }
  const T& operator[](std::size_t i) const noexcept { return data_[i]; }

  // Makes room for so many. False when there is no memory.
  bool reach(std::size_t count) noexcept {
    if (count <= room_) return true;
    std::size_t wider = room_ == 0 ? 32 : room_ * 2;
    while (wider < count) wider *= 2;
    void* memory = heap_take(wider * sizeof(T), alignof(T));
    if (memory == nullptr) return false;
    if (room_ != 0) std::memcpy(memory, data_, room_ * sizeof(T));
    std::memset(static_cast<unsigned char*>(memory) + room_ * sizeof(T), 0, (wider - room_) * sizeof(T));
    if (data_ != nullptr) heap_give(data_, alignof(T));
    data_ = static_cast<T*>(memory);
    room_ = wider;
    return true;
  }

  void swap(plain_array& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(room_, other.room_);
  }
  void zero() noexcept {
    if (room_ != 0) std::memset(static_cast<void*>(data_), 0, room_ * sizeof(T));
  }
  // What it holds belongs to nobody from here on.
  void leave_behind() noexcept {
    data_ = nullptr;
    room_ = 0;
  }

 private:
  T* data_ = nullptr;
  std::size_t room_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
