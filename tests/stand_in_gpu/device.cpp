// A CUDA device that is the CPU: see __init__.py for what it is strict about, and what it cannot tell.
//
// PyTorch looks for an operation's kernel by the device of its tensors. A build without CUDA has none for it, and
// so comes here, to `run`: the CPU's kernel computes, over the same memory.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>

namespace {

using at::Tensor;
using c10::Device, c10::DeviceIndex, c10::DispatchKey, c10::DispatchKeySet, c10::Storage, c10::Stream, c10::SymInt,
    c10::SymIntArrayRef;
using Stack = torch::jit::Stack;
using Operation = c10::OperatorHandle;

const Device CPU(c10::DeviceType::CPU), GPU(c10::DeviceType::CUDA, 0);

bool is_on_gpu(const Tensor& tensor) { return tensor.defined() && tensor.device().type() == GPU.type(); }

// ---- memory

// New memory is no number: 0xff in every byte is nan in a float, and −1 in an integer.
constexpr int NOTHING = 0xff;

struct GpuMemory final : c10::Allocator {
    c10::DataPtr allocate(size_t n_bytes) override {
        c10::DataPtr memory = c10::GetCPUAllocator()->allocate(n_bytes);
        if (n_bytes) std::memset(memory.get(), NOTHING, n_bytes);
        void* data = memory.get();
        return {data, new c10::DataPtr(std::move(memory)), &drop, GPU};
    }
    static void drop(void* memory) { delete static_cast<c10::DataPtr*>(memory); }
    void copy_data(void* to, const void* from, size_t n_bytes) const override { std::memcpy(to, from, n_bytes); }
} gpu_memory;

// Of what all threads share: `pinned`, `underway` and `recordings`. Who holds it may let pinned memory go.
std::recursive_mutex mutex;

// Memory of the CPU that a GPU reads and writes by itself, so that nobody waits for it.
std::set<const void*> pinned;

struct PinnedMemory final : c10::Allocator {
    c10::DataPtr allocate(size_t n_bytes) override {
        c10::DataPtr memory = c10::GetCPUAllocator()->allocate(n_bytes);
        void* data = memory.get();
        std::lock_guard lock(mutex);
        pinned.insert(data);
        return {data, new c10::DataPtr(std::move(memory)), &drop, CPU};
    }
    static void drop(void* it) {
        auto* memory = static_cast<c10::DataPtr*>(it);
        {
            std::lock_guard lock(mutex);
            pinned.erase(memory->get());
        }
        delete memory;
    }
    void copy_data(void* to, const void* from, size_t n_bytes) const override { std::memcpy(to, from, n_bytes); }
} pinned_memory;

// ---- the device

void check_there_is(DeviceIndex index) {
    TORCH_CHECK(index <= 0, "CUDA error: invalid device ordinal");
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
    c10::DeviceType type() const override { return GPU.type(); }
    Device getDevice() const override { return GPU; }
    Device exchangeDevice(Device to) const override {
        check_there_is(to.index());
        return GPU;
    }
    void setDevice(Device to) const override { check_there_is(to.index()); }
    void uncheckedSetDevice(Device) const noexcept override {}
    DeviceIndex deviceCount() const noexcept override { return 1; }
    Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, GPU); }
    Stream getDefaultStream(Device) const override { return Stream(Stream::DEFAULT, GPU); }
    Stream exchangeStream(Stream) const noexcept override { return Stream(Stream::DEFAULT, GPU); }
    void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
    void block(void*, const Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
    void destroyEvent(void*, const DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

struct Hooks final : at::CUDAHooksInterface {
    explicit Hooks(at::CUDAHooksArgs) {}
    void init() const override {}
    bool hasCUDA() const override { return true; }
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasPrimaryContext(DeviceIndex) const override { return true; }
    DeviceIndex deviceCount() const override { return 1; }
    int getNumGPUs() const override { return 1; }
    DeviceIndex current_device() const override { return 0; }
    DeviceIndex getCurrentDevice() const override { return 0; }
    DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
    DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
    void setCurrentDevice(DeviceIndex) const override {}
    bool isPinnedPtr(const void* data) const override {
        std::lock_guard lock(mutex);
        return pinned.count(data);
    }
    c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
    c10::Allocator* getCUDADeviceAllocator() const override { return &gpu_memory; }
    const at::Generator& getDefaultGenerator(DeviceIndex) const override {
        return at::detail::getDefaultCPUGenerator();
    }
};

// ---- waiting

// Copies to the CPU that were asked for without waiting. They arrive when they are waited for, and no sooner.
struct Underway {
    Tensor to, from;
};
std::deque<Underway> underway;
int64_t n_asked = 0, n_arrived = 0;
bool waiting_is_an_error = false;

void arrive(int64_t n) {
    c10::InferenceMode guard;  // in which the copy may have been asked for
    std::lock_guard lock(mutex);
    for (; n_arrived < n; n_arrived++) {
        underway.front().to.copy_(underway.front().from);
        underway.pop_front();
    }
}

struct Recording;
thread_local Recording* recording = nullptr;  // that this thread is making

void wait(const std::string& who) {
    TORCH_CHECK(!recording, "CUDA error: operation not permitted when stream is capturing (", who, ")");
    TORCH_CHECK(!waiting_is_an_error, "called a synchronizing CUDA operation (", who, ")");
    arrive(n_asked);
}

const std::set<std::string> WAITS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::_unique2",
    "aten::unique_dim", "aten::unique_consecutive", "aten::bincount", "aten::repeat_interleave"};
const std::set<std::string> INDEXES = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"};

// A mask's places are counted before they are used, which is waited for.
bool has_mask(const Stack& arguments) {
    for (const auto& value : arguments)
        if (value.isOptionalTensorList())
            for (const std::optional<Tensor> index : value.toOptionalTensorList())
                if (index && index->defined() && index->scalar_type() == at::kBool) return true;
    return false;
}

// ---- the same memory, of either device

c10::DataPtr seen_from(const Device& device, const Storage& storage) {
    return {storage.mutable_data(), new Storage(storage), [](void* it) { delete static_cast<Storage*>(it); }, device};
}

Tensor tensor_over(Storage storage, const Tensor& shaped) {
    const auto key = storage.device() == CPU ? DispatchKey::CPU : DispatchKey::CUDA;
    Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), DispatchKeySet(key), shaped.dtype());
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(shaped.sizes(), shaped.strides(), shaped.storage_offset());
    return tensor;
}

Tensor alias_on(const Device& device, const Tensor& tensor) {
    const auto& storage = tensor.storage();
    auto* allocator = device == CPU ? c10::GetCPUAllocator() : &gpu_memory;
    Storage seen({}, storage.nbytes(), seen_from(device, storage), allocator, /*resizable=*/true);
    return tensor_over(std::move(seen), tensor);
}

bool share_memory(const Tensor& one, const Tensor& other) {
    return one.storage().nbytes() && one.storage().data() == other.storage().data();
}

using Pairs = std::vector<std::pair<Tensor, Tensor>>;  // of the GPU, and the same of the CPU

// An operation may give its `out` another shape, and new memory where that needs more.
void take_shape_and_memory(const Tensor& gpu, const Tensor& cpu) {
    if (gpu.storage().data() != cpu.storage().data()) {
        gpu.storage().set_data_ptr_noswap(seen_from(GPU, cpu.storage()));
        gpu.storage().set_nbytes(cpu.storage().nbytes());
    }
    if (gpu.sizes() != cpu.sizes() || gpu.strides() != cpu.strides())
        gpu.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
}

Tensor back_on_gpu(const Tensor& tensor, const Pairs& pairs) {
    if (!tensor.defined() || is_on_gpu(tensor)) return tensor;
    for (const auto& [gpu, cpu] : pairs)
        if (cpu.is_same(tensor)) return gpu;
    for (const auto& [gpu, cpu] : pairs)
        if (share_memory(cpu, tensor)) return tensor_over(gpu.storage(), tensor);
    return alias_on(GPU, tensor);
}

// Applies `f` to each tensor of `values`, in lists too.
template <typename F>
void for_each_tensor(Stack& values, F f) {
    for (auto& value : values) {
        if (value.isTensor()) {
            value = f(value.toTensor());
        } else if (value.isTensorList()) {
            c10::List<Tensor> list;
            for (const Tensor& tensor : value.toTensorVector()) list.push_back(f(tensor));
            value = std::move(list);
        } else if (value.isOptionalTensorList()) {
            c10::List<std::optional<Tensor>> list;
            for (const std::optional<Tensor> tensor : value.toOptionalTensorList())
                list.push_back(tensor ? std::optional<Tensor>(f(*tensor)) : std::nullopt);
            value = std::move(list);
        }
    }
}

// ---- kernels

// Which operations take a number from the CPU, as a tensor without dimensions.
bool takes_numbers(const Operation& op) {
    static const std::set<std::string> others = {"aten::fill_", "aten::masked_fill", "aten::masked_fill_",
                                                 "aten::where"};
    return op.hasTag(at::Tag::pointwise) || others.count(op.schema().name()) || INDEXES.count(op.schema().name());
}

// Puts the results of the CPU's kernel, still of the CPU, in the place of `values`, its arguments.
Pairs compute(const Operation& op, Stack& values) {
    const std::string& name = op.schema().name();
    Pairs pairs;
    const auto alias = [&](const Tensor& tensor) {
        for (const auto& [gpu, cpu] : pairs)
            if (gpu.is_same(tensor)) return cpu;
        return pairs.emplace_back(tensor, alias_on(CPU, tensor)).second;
    };
    for (size_t i = 0; i < values.size(); i++) {
        const auto* how = op.schema().arguments()[i].alias_info();
        const bool is_written = how && how->isWrite();
        const bool is_number = values[i].isTensor() && !is_written && takes_numbers(op);
        const bool is_index = values[i].isOptionalTensorList() && INDEXES.count(name);
        Stack value = {values[i]};
        for_each_tensor(value, [&](const Tensor& tensor) {
            if (is_on_gpu(tensor)) return alias(tensor);
            TORCH_CHECK(!tensor.defined() || is_index || (is_number && tensor.dim() == 0),
                        "Expected all tensors to be on the same device, but found both cuda:0 and cpu (", name, ")");
            return tensor;
        });
        values[i] = value[0];
        if (values[i].isDevice()) values[i] = CPU;
        TORCH_CHECK(!values[i].isGenerator(), "Expected a 'cuda' device type for generator but found 'cpu'");
    }
    op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), &values);
    return pairs;
}

struct Recording {
    // Memory that was there before. A recording does not keep it, and goes on reading where it was.
    struct Before {
        c10::weak_intrusive_ptr<c10::StorageImpl> storage;
        const void* data;
    };
    struct Call {
        Operation op;
        Stack arguments, results;    // tensors over memory from before are of no device: a shape alone
        std::vector<Before> before;  // and this is theirs, in their order
    };
    std::vector<Call> calls;
    using Memory = const c10::StorageImpl*;
    std::map<Memory, Storage> new_memory;                   // of the time of the recording, and kept for it
    std::map<Memory, std::pair<Storage, std::string>> old;  // what was written to, and what was there
    bool has_failed = false;

    bool is_new(const Tensor& tensor) const { return new_memory.count(memory_of(tensor)); }

    static Memory memory_of(const Tensor& tensor) { return tensor.storage().unsafeGetStorageImpl(); }

    void will_write(const Tensor& tensor) {
        const Storage& storage = tensor.storage();
        if (!is_new(tensor) && !old.count(memory_of(tensor)))
            old[memory_of(tensor)] = {storage, {static_cast<const char*>(storage.data()), storage.nbytes()}};
    }

    void note(const Operation& op, Stack arguments, Stack results) {
        Call call{op, std::move(arguments), std::move(results), {}};
        for_each_tensor(call.arguments, [&](const Tensor& tensor) {
            if (!is_on_gpu(tensor)) return tensor;
            if (is_new(tensor)) return tensor_over(tensor.storage(), tensor);
            const auto& storage = tensor.storage();
            call.before.push_back({storage.getWeakStorageImpl(), storage.data()});
            return shape_of(tensor);
        });
        for_each_tensor(call.results, [&](const Tensor& tensor) {
            return is_on_gpu(tensor) && is_new(tensor) ? tensor_over(tensor.storage(), tensor) : Tensor();
        });
        calls.push_back(std::move(call));
    }

    static Tensor shape_of(const Tensor& tensor) {
        Storage nowhere({}, 0, c10::DataPtr(nullptr, Device(c10::DeviceType::Meta)), nullptr, /*resizable=*/false);
        Tensor shape = at::detail::make_tensor<c10::TensorImpl>(std::move(nowhere), DispatchKeySet(DispatchKey::Meta),
                                                               tensor.dtype());
        shape.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
        return shape;
    }

    // Asking a GPU for something while it records computes nothing.
    void forget_what_was_computed() {
        for (auto& [_, kept] : old) std::memcpy(kept.first.mutable_data(), kept.second.data(), kept.second.size());
        for (auto& [_, storage] : new_memory) std::memset(storage.mutable_data(), NOTHING, storage.nbytes());
        old.clear();
    }

    // The same kernels, with the numbers that were given then, over the same memory as it is now.
    void replay() const {
        TORCH_CHECK(!has_failed, "CUDA error: this recording failed");
        for (const auto& call : calls) {
            Stack results = call.arguments;
            auto before = call.before.begin();
            for_each_tensor(results, [&](const Tensor& tensor) {
                if (!tensor.defined() || !tensor.is_meta()) return tensor;
                auto storage = before->storage.lock();
                TORCH_CHECK(storage && storage->data() == before->data,
                            "an illegal memory access: what the recording reads (", call.op.schema().name(),
                            ") has been freed, or has moved");
                before++;
                return tensor_over(Storage(std::move(storage)), tensor);
            });
            compute(call.op, results);
            for (size_t i = 0; i < results.size(); i++) put(call.results[i], results[i]);
        }
    }

    static void put(const c10::IValue& place, const c10::IValue& result) {
        if (result.isTensor() && place.toTensor().defined() && !share_memory(place.toTensor(), result.toTensor()))
            alias_on(CPU, place.toTensor()).copy_(result.toTensor());
        if (result.isTensorList())
            for (size_t i = 0; i < result.toTensorVector().size(); i++)
                put(place.toTensorVector()[i], result.toTensorVector()[i]);
    }
};
std::deque<Recording> recordings;

Tensor note_new(Tensor tensor) {
    if (recording) recording->new_memory[Recording::memory_of(tensor)] = tensor.storage();
    return tensor;
}

void run(const Operation& op, DispatchKeySet, Stack* stack) {
    const auto& schema = op.schema();
    const size_t n_arguments = schema.arguments().size();
    Stack values = torch::jit::pop(*stack, n_arguments);
    if (WAITS.count(schema.name()) || (INDEXES.count(schema.name()) && has_mask(values))) wait(schema.name());
    const Stack arguments = values;
    if (recording) {
        for (size_t i = 0; i < n_arguments; i++) {
            Stack written = {arguments[i]};
            const auto* alias = schema.arguments()[i].alias_info();
            if (alias && alias->isWrite())
                for_each_tensor(written, [](const Tensor& tensor) {
                    if (is_on_gpu(tensor)) recording->will_write(tensor);
                    return tensor;
                });
        }
    }
    const Pairs pairs = compute(op, values);
    for (const auto& [gpu, cpu] : pairs) take_shape_and_memory(gpu, cpu);
    for_each_tensor(values, [&](const Tensor& tensor) {
        const auto shares = [&](const auto& pair) { return share_memory(pair.second, tensor); };
        const bool is_new = tensor.defined() && std::none_of(pairs.begin(), pairs.end(), shares);
        const Tensor result = back_on_gpu(tensor, pairs);
        return is_new ? note_new(result) : result;
    });
    if (recording) recording->note(op, arguments, values);
    stack->insert(stack->end(), values.begin(), values.end());
}

// ---- what needs more than the CPU's kernel

const DispatchKeySet KEY(DispatchKey::CUDA);

Tensor empty(SymIntArrayRef sizes, std::optional<at::ScalarType> type, std::optional<at::Layout>,
             std::optional<Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
    check_there_is(device ? device->index() : 0);
    const auto dtype = c10::dtype_or_default(type);
    return note_new(at::detail::empty_generic_symint(sizes, &gpu_memory, KEY, dtype, format));
}

Tensor empty_strided(SymIntArrayRef sizes, SymIntArrayRef strides, std::optional<at::ScalarType> type,
                     std::optional<at::Layout>, std::optional<Device> device, std::optional<bool>) {
    check_there_is(device ? device->index() : 0);
    const auto dtype = c10::dtype_or_default(type);
    return note_new(at::detail::empty_strided_symint_generic(sizes, strides, &gpu_memory, KEY, dtype));
}

at::IntArrayRef ints(SymIntArrayRef numbers) { return C10_AS_INTARRAYREF_SLOW(numbers); }

Tensor as_strided(const Tensor& self, SymIntArrayRef sizes, SymIntArrayRef strides, std::optional<SymInt> offset) {
    const auto start = offset ? std::optional(offset->expect_int()) : std::nullopt;
    return at::native::as_strided_tensorimpl(self, ints(sizes), ints(strides), start);
}

Tensor view(const Tensor& self, SymIntArrayRef sizes) { return at::native::view(self, ints(sizes)); }

Tensor reshape_alias(const Tensor& self, SymIntArrayRef sizes, SymIntArrayRef strides) {
    return at::native::_reshape_alias(self, ints(sizes), ints(strides));
}

Tensor& set_storage(Tensor& self, at::Storage storage, SymInt offset, SymIntArrayRef sizes, SymIntArrayRef strides) {
    return at::native::set_storage_cpu_(self, std::move(storage), offset.expect_int(), ints(sizes), ints(strides));
}

const Tensor& resize(const Tensor& self, SymIntArrayRef sizes, std::optional<at::MemoryFormat> format) {
    Tensor cpu = alias_on(CPU, self);
    const auto n_bytes = self.storage().nbytes();
    cpu.resize_(ints(sizes), format);
    if (cpu.storage().nbytes() > n_bytes)
        std::memset(static_cast<char*>(cpu.storage().mutable_data()) + n_bytes, NOTHING,
                    cpu.storage().nbytes() - n_bytes);
    take_shape_and_memory(self, cpu);
    return self;
}

Tensor& copy(Tensor& self, const Tensor& from, bool non_blocking) {
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::copy_", "");
    if (is_on_gpu(self) && is_on_gpu(from)) {
        Stack stack = {self, from, non_blocking};
        run(op, DispatchKeySet(), &stack);
        return self;
    }
    TORCH_CHECK(!recording, "CUDA error: operation not permitted when stream is capturing (a copy)");
    if (!non_blocking || (is_on_gpu(from) && !self.is_pinned())) wait("copy_");
    if (is_on_gpu(self)) {
        alias_on(CPU, self).copy_(from);
    } else if (non_blocking && self.is_pinned()) {
        const Tensor snapshot = alias_on(CPU, from).clone();
        self.fill_(self.is_floating_point() ? std::nan("") : 0x7e);  // what is there until then
        std::lock_guard lock(mutex);
        underway.push_back({self, snapshot});
        n_asked++;
    } else {
        self.copy_(alias_on(CPU, from));
    }
    return self;
}

// Attention in separate operations: CUDA's fused kernels are not there.
int64_t choose_attention(const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, double, bool,
                         std::optional<double>, bool) {
    return static_cast<int64_t>(sdp::SDPBackend::math);
}

}  // namespace

namespace at {
C10_REGISTER_TYPED_CLASS(CUDAHooksRegistry, "CUDAHooks", ::Hooks)
namespace native {
REGISTER_CUDA_DISPATCH(_fused_sdp_choice_stub, &choose_attention)
}
}  // namespace at

TORCH_LIBRARY_IMPL(_, CUDA, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&run>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
    library.impl("empty.memory_format", &empty);
    library.impl("empty_strided", &empty_strided);
    library.impl("as_strided", &as_strided);
    library.impl("view", &view);
    library.impl("_reshape_alias", &reshape_alias);
    library.impl("unfold", &at::native::unfold);
    library.impl("set_.source_Storage_storage_offset", &set_storage);
    library.impl("resize_", &resize);
    library.impl("copy_", &copy);
}

TORCH_LIBRARY(stand_in_gpu, library) {
    library.def("wait", [] { wait("synchronize"); });
    library.def("n_asked", [] { return n_asked; });
    library.def("arrive", &arrive);
    library.def("forbid_waiting", [](bool forbidden) { waiting_is_an_error = forbidden; });
    library.def("begin_recording", [] {
        std::lock_guard lock(mutex);
        recording = &recordings.emplace_back();
        return static_cast<int64_t>(recordings.size()) - 1;
    });
    library.def("end_recording", [](bool has_failed) {
        Recording& made = *std::exchange(recording, nullptr);
        made.forget_what_was_computed();
        made.has_failed = has_failed;
    });
    library.def("replay", [](int64_t number) { recordings.at(number).replay(); });
    library.def("forget_recording", [](int64_t number) { recordings.at(number) = {}; });
}
