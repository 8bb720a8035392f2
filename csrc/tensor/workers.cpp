#include "tensor/workers.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>

#include "tensor/quiet_thread.h"

namespace dlferry {
namespace {

constexpr int kMostWorkers = 16;

int available_processors() noexcept {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::clamp(CPU_COUNT(&set), 1, kMostWorkers);
}

std::atomic<int> chosen_count{0};

// What one caller wants done. Whoever takes an index below `count` runs that task.
struct Work {
  void (*task)(void*, std::size_t) noexcept;
  void* context;
  std::size_t count;
  std::atomic<std::size_t> next{0};

  void run() noexcept {
    for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      task(context, i);
    }
  }
};

class Pool {
 public:
  // False, with nothing done, while another caller is being served.
  bool serve(Work& work, int helpers) noexcept {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    {
      const std::lock_guard lock(mutex_);
      while (threads_ < helpers && start_thread()) {
      }
      work_ = &work;
      seats_ = std::min(helpers, threads_);
    }
    wake_.notify_all();
    work.run();
    {
      std::unique_lock lock(mutex_);
      seats_ = 0;  // whoever has not come yet need not
      idle_.wait(lock, [this] { return working_ == 0; });
      work_ = nullptr;
    }
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  bool start_thread() noexcept {
    try {
      quiet_thread([this] { serve_forever(); }).detach();
      ++threads_;
      return true;
    } catch (const std::system_error&) {
      return false;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  void serve_forever() noexcept {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return seats_ > 0; });
      --seats_;
      ++working_;
      Work& work = *work_;
      lock.unlock();
      work.run();
      lock.lock();
      if (--working_ == 0) idle_.notify_one();
    }
  }

  std::atomic<bool> busy_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  Work* work_ = nullptr;
  int threads_ = 0;
  int seats_ = 0;    // helpers still wanted for `work_`
  int working_ = 0;  // helpers inside `work_`
};

std::atomic<Pool*> current_pool{nullptr};

// A forked child has none of the threads, and locks in whatever state they were: it forgets the
// pool, and makes its own when it needs one.
void forget_pool() noexcept { current_pool.store(nullptr, std::memory_order_relaxed); }

// Registered when the library is loaded: on first use, a fork could come in between.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, forget_pool);

// The pool is leaked on purpose: its threads sleep in it until the process ends, also while static
// objects are being destroyed.
Pool* pool() noexcept {
  Pool* existing = current_pool.load(std::memory_order_acquire);
  if (existing) return existing;
  Pool* made = new (std::nothrow) Pool;
  if (made && !current_pool.compare_exchange_strong(existing, made, std::memory_order_acq_rel)) {
    delete made;  // another thread was first
    return existing;
  }
  return made;
}

}  // namespace

void set_worker_count(int count) noexcept {
  chosen_count.store(count <= 0 ? 0 : count, std::memory_order_relaxed);
}

int worker_count() noexcept {
  // Not a static made on first use: a child that is forked meanwhile would wait for its guard.
  static std::atomic<int> available{0};
  const int chosen = chosen_count.load(std::memory_order_relaxed);
  if (chosen > 0) return chosen;
  int count = available.load(std::memory_order_relaxed);
  if (count == 0) available.store(count = available_processors(), std::memory_order_relaxed);
  return count;
}

void run_tasks(std::size_t count, void (*task)(void*, std::size_t) noexcept,
               void* context) noexcept {
  Work work{task, context, count};
  const auto most = static_cast<std::size_t>(worker_count());
  const int helpers = static_cast<int>(std::min(count, most)) - 1;
  Pool* const workers = helpers > 0 ? pool() : nullptr;
  if (!workers || !workers->serve(work, helpers)) work.run();
}

}  // namespace dlferry
