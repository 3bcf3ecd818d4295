// The module itself. Its name comes from the import: pybind11 initialises in two phases.
#pragma once

#include <kernelverify/bindings.h>

namespace kernelverify {

struct Module {
  void* handle;
};

KERNELVERIFY_HIDDEN void* initialise();

}  // namespace kernelverify

KERNELVERIFY_HIDDEN void kernelverify_define(kernelverify::Module&);

PYBIND11_MODULE(kernelverify_module, module) {
  kernelverify::Module shown{&module};
  kernelverify_define(shown);
}

void* kernelverify::initialise() {
  return PyInit_kernelverify_module();
}
