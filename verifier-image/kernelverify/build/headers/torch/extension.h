// Stands in front of torch's header of this name: all of torch/types.h, and of pybind11 only the names that an ordinary
// extension uses, so that neither pybind11 nor torch's C++ modules are compiled for each candidate. The bindings
// themselves are pybind11's, compiled once for each signature (kernelverify/bindings.h) and linked.
//
// Whatever this file lacks is a compile error, and then the build runs once more with torch's own header.
#ifndef KERNELVERIFY_TORCH_EXTENSION_H
#define KERNELVERIFY_TORCH_EXTENSION_H

#include <torch/types.h>

// hidden: a signature without bindings is an error of the linker, never a missing symbol at import
#define KERNELVERIFY_HIDDEN __attribute__((visibility("hidden")))

namespace kernelverify {

template <class F>
KERNELVERIFY_HIDDEN void bind(void* module, const char* name, void* function, const char* doc);
template <class F>
KERNELVERIFY_HIDDEN void bind_guarded(void* module, const char* name, void* function, const char* doc);
KERNELVERIFY_HIDDEN void* initialise();

template <class F>
struct Guarded {
  F* function;
};

// The part of pybind11::module_ that needs no pybind11.
struct Module {
  void* handle;

  template <class F>
  Module& def(const char* name, F* function, const char* doc = "") {
    bind<F>(handle, name, reinterpret_cast<void*>(function), doc);
    return *this;
  }

  template <class F>
  Module& def(const char* name, Guarded<F> guarded, const char* doc = "") {
    bind_guarded<F>(handle, name, reinterpret_cast<void*>(guarded.function), doc);
    return *this;
  }
};

}  // namespace kernelverify

namespace torch {

template <class F>
kernelverify::Guarded<F> wrap_pybind_function(F& function) {
  return {&function};
}

}  // namespace torch

KERNELVERIFY_HIDDEN void kernelverify_define(kernelverify::Module&);

#define KERNELVERIFY_JOIN(a, b) a##b
#define KERNELVERIFY_INIT(name) KERNELVERIFY_JOIN(PyInit_, name)
#define PYBIND11_MODULE(name, variable)                                           \
  extern "C" __attribute__((visibility("default"))) void* KERNELVERIFY_INIT(name)() { \
    return kernelverify::initialise();                                            \
  }                                                                               \
  void kernelverify_define(kernelverify::Module& variable)

#endif
