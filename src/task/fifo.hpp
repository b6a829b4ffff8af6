// task/fifo.hpp - a growing queue of tasks for the loop thread alone
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "task/memory.hpp"
#include "task/unique_task.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A circle of tasks that doubles when it is full and never shrinks: no allocation in steady
// state. Deferred tasks and microtasks wait here. The loop thread only.
class task_fifo {
 public:
  task_fifo() = default;
  task_fifo(const task_fifo&) = delete;
  task_fifo& operator=(const task_fifo&) = delete;
  ~task_fifo() {
    clear();
    if (slots_ != nullptr) heap_give(slots_, alignof(unique_task));
  }

  bool empty() const noexcept { return head_ == tail_; }
  std::size_t size() const noexcept { return tail_ - head_; }

  // For one more. False: there is no memory for it.
  bool make_room() noexcept { return size() != capacity_ || grow(); }

  // There is room.
  void push(unique_task&& task) noexcept {
    ::new (static_cast<void*>(&slots_[tail_ & (capacity_ - 1)])) unique_task(std::move(task));
    ++tail_;
  }

  unique_task pop() noexcept {
    unique_task& front = slots_[head_ & (capacity_ - 1)];
    unique_task task(std::move(front));
    front.~unique_task();
    ++head_;
    return task;
  }

  void clear() noexcept {
    while (!empty()) pop();
  }

 private:
  bool grow() noexcept {
    const std::size_t wider = capacity_ == 0 ? 16 : capacity_ * 2;
    void* memory = heap_take(wider * sizeof(unique_task), alignof(unique_task));
    if (memory == nullptr) return false;
    auto* larger = static_cast<unique_task*>(memory);
    std::size_t count = 0;
    for (; !empty(); ++count) ::new (static_cast<void*>(&larger[count])) unique_task(pop());
    if (slots_ != nullptr) heap_give(slots_, alignof(unique_task));
    slots_ = larger;
    capacity_ = wider;
    head_ = 0;
    tail_ = count;
    return true;
  }

  unique_task* slots_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t head_ = 0;
  std::size_t tail_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
