// What torch/extension.h beside this folder declares, by pybind11 itself: the same conversions, messages and
// docstrings as in an extension that torch builds.
#pragma once

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#define KERNELVERIFY_HIDDEN __attribute__((visibility("hidden")))

namespace kernelverify {

template <class F>
KERNELVERIFY_HIDDEN void bind(void* module, const char* name, void* function, const char* doc) {
  static_cast<pybind11::module_*>(module)->def(name, reinterpret_cast<F*>(function), doc);
}

template <class F>
KERNELVERIFY_HIDDEN void bind_guarded(void* module, const char* name, void* function, const char* doc) {
  auto& wrapped = *reinterpret_cast<F*>(function);
  static_cast<pybind11::module_*>(module)->def(name, torch::wrap_pybind_function(wrapped), doc);
}

}  // namespace kernelverify
