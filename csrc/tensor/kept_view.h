// KeptView: a View that owns its shape and strides, for work that outlives its caller.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "tensor/view.h"

namespace dlferry {

// The memory itself is still someone else's.
class KeptView {
 public:
  KeptView() noexcept = default;
  explicit KeptView(const View& view)
      : view_(view), axes_(new std::int64_t[2 * static_cast<std::size_t>(view.ndim)]) {
    std::copy_n(view.shape, view.ndim, axes_.get());
    std::copy_n(view.strides, view.ndim, axes_.get() + view.ndim);
    view_.shape = axes_.get();
    view_.strides = axes_.get() + view.ndim;
  }

  // The axes of `view` in another order: `order` names each of them once.
  KeptView(const View& view, const std::vector<int>& order) : KeptView(view) {
    for (std::size_t i = 0; i < order.size(); ++i) {
      axes_[i] = view.shape[order[i]];
      axes_[order.size() + i] = view.strides[order[i]];
    }
  }

  [[nodiscard]] const View& operator*() const noexcept { return view_; }
  [[nodiscard]] const View* operator->() const noexcept { return &view_; }

 private:
  View view_;
  std::unique_ptr<std::int64_t[]> axes_;
};

}  // namespace dlferry
