// Tells PyTorch that CUDA is there, with one device.
//
// Without a GPU it stops the process where autograd or a factory meets a CUDA tensor, because nobody
// registered the three things that the CUDA library brings: a guard (which device is current), hooks
// (is there a device, which generator is its default) and a generator. Here they are, and they do
// nothing: the numbers are computed elsewhere, on the CPU (tensors.py). PyTorch asks for the hooks
// once, so this library has to be loaded before torch is imported. A build for CUDA brings its own: these
// hooks come first by their priority, and the guard by being registered last.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;

static const Device CUDA0(DeviceType::CUDA, 0);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::CUDA; }
  Device exchangeDevice(Device) const override { return CUDA0; }
  Device getDevice() const override { return CUDA0; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return Stream(Stream::DEFAULT, CUDA0); }
  Stream getDefaultStream(Device) const override { return Stream(Stream::DEFAULT, CUDA0); }
  Stream exchangeStream(Stream) const override { return Stream(Stream::DEFAULT, CUDA0); }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void synchronizeDevice(const DeviceIndex) const override {}
};

// Added to every seed: the same seed gives other numbers than on the CPU, as with CUDA's generator.
extern "C" uint64_t simdevice_seed_offset;
uint64_t simdevice_seed_offset = 0;

struct Generator final : at::CPUGeneratorImpl {
  Generator() { device_ = CUDA0; }
  void set_current_seed(uint64_t seed) override {
    at::CPUGeneratorImpl::set_current_seed(seed + simdevice_seed_offset);
  }
};

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  void deviceSynchronize(DeviceIndex) const override {}
  // Asked where attention's kernel is chosen; without `override`, since PyTorch 2.8 has one of them.
  long versionCuDNN() const { return 0; }
  long versionRuntimeCuDNN() const { return 0; }
  const at::Generator& getDefaultGenerator(DeviceIndex) const override {
    static at::Generator generator = at::make_generator<Generator>();
    return generator;
  }
  at::Generator getNewGenerator(DeviceIndex) const override {
    return at::make_generator<Generator>();
  }
};

static c10::Registerer<std::string, std::unique_ptr<at::CUDAHooksInterface>, at::CUDAHooksArgs>
    hooks("CUDAHooks", c10::REGISTRY_PREFERRED, at::CUDAHooksRegistry(),
          [](at::CUDAHooksArgs arguments) -> std::unique_ptr<at::CUDAHooksInterface> {
            return std::make_unique<Hooks>(arguments);
          });

// Called after torch is imported.
extern "C" void simdevice_register_guard() {
  static c10::impl::DeviceGuardImplRegistrar registrar(DeviceType::CUDA, new Guard());
}
