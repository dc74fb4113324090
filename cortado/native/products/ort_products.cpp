// The products as operators of ONNX Runtime, in the domain "cortado", and as plain functions for tests.
// No header of ONNX Runtime is needed: its table of functions only ever grows at the end, and an operator says which
// version of its own record it fills, so the few places declared here are the same in every release from 1.17 on.
#include <string>

#include "codebook.hpp"
#include "convolution.hpp"

using namespace cortado;

namespace {

// ---- ONNX Runtime, as far as needed

using Status = void*;  // null: all is well
struct Api { void* function[275]; };
struct ApiBase { const Api* (*get)(uint32_t version); const char* (*version)(); };
constexpr uint32_t API_VERSION = 17, OPERATOR_VERSION = 16;

enum Function {
    CREATE_STATUS = 0, CREATE_DOMAIN = 26, ADD_OPERATOR = 27, ADD_DOMAIN = 28, TENSOR_DATA = 51, ELEMENT_TYPE = 60,
    DIMENSION_COUNT = 61, DIMENSIONS = 62, TYPE_AND_SHAPE = 65, INTEGER_ATTRIBUTE = 86, INPUT = 90, OUTPUT = 91,
    RELEASE_STATUS = 93, RELEASE_TYPE_AND_SHAPE = 99, INTEGER_LIST = 163, CONSTANT_INPUT = 249,
    PARALLEL_FOR = 274,
};
enum Element { ANY = 0, FLOAT = 1, UINT8 = 2, UINT16 = 4, INT32 = 6 };
enum Code { FAIL = 1, INVALID_ARGUMENT = 2 };

struct Operator {
    uint32_t version;
    void* (*create_of_old)(const Operator*, const Api*, const void*);
    const char* (*name)(const Operator*);
    const char* (*provider)(const Operator*);
    int (*input_type)(const Operator*, size_t);
    size_t (*input_count)(const Operator*);
    int (*output_type)(const Operator*, size_t);
    size_t (*output_count)(const Operator*);
    void (*compute_of_old)(void*, void*);
    void (*destroy)(void*);
    int (*input_kind)(const Operator*, size_t);
    int (*output_kind)(const Operator*, size_t);
    int (*input_memory)(const Operator*, size_t);
    int (*variadic[4])(const Operator*);
    Status (*create)(const Operator*, const Api*, const void* info, void** kernel);
    Status (*compute)(void* kernel, void* context);
    void* later[8];  // of later versions, never read
};

const Api* api = nullptr;

template <class... A> Status call(Function function, A... given) {
    return reinterpret_cast<Status (*)(A...)>(api->function[function])(given...);
}
template <class... A> void release(Function function, A... given) {
    reinterpret_cast<void (*)(A...)>(api->function[function])(given...);
}

// A status of ONNX Runtime on its way to ONNX Runtime.
struct Passed { Status status; };
void check(Status status) {
    if (status) throw Passed{status};
}

struct Tensor {
    const void* data = nullptr;
    std::vector<int64_t> shape;
    int type = ANY;

    int64_t count() const {
        int64_t all = 1;
        for (int64_t size : shape) all *= size;
        return all;
    }
    template <class T> const T* as() const { return static_cast<const T*>(data); }
};

Tensor tensor_of(const void* value) {
    void *info, *data;
    size_t rank = 0;
    Tensor found;
    check(call(TYPE_AND_SHAPE, value, &info));
    check(call(DIMENSION_COUNT, info, &rank));
    found.shape.resize(rank);
    check(call(DIMENSIONS, info, found.shape.data(), rank));
    check(call(ELEMENT_TYPE, info, &found.type));
    release(RELEASE_TYPE_AND_SHAPE, info);
    check(call(TENSOR_DATA, const_cast<void*>(value), &data));
    found.data = data;
    return found;
}

int64_t attribute(const void* info, const char* name) {
    int64_t value = 0;
    check(call(INTEGER_ATTRIBUTE, info, name, &value));
    return value;
}
void attributes(const void* info, const char* name, int64_t* to, size_t count) {
    size_t size = count;
    check(call(INTEGER_LIST, info, name, to, &size));
    if (size != count) throw Misfit(std::string(name) + " must have " + std::to_string(count) + " numbers");
}

// The constants of a node; copies of those that are read faster from a place of our own.
class Constants {
    std::vector<Copy> copies;

public:
    Tensor take(const void* info, size_t number, int type) {
        int constant = 0;
        const void* value = nullptr;
        check(call(CONSTANT_INPUT, info, number, &constant, &value));
        if (!constant) throw Misfit("input " + std::to_string(number) + " must be a constant of the file");
        const Tensor found = tensor_of(value);
        if (found.type != type && type != ANY) throw Misfit("input " + std::to_string(number) + " has the wrong type");
        return found;
    }
    Tensor take_for_reading(const void* info, size_t number, int type) {
        Tensor found = take(info, number, type);
        const size_t bytes = size_t(found.count()) * (type == UINT8 ? 1 : type == UINT16 ? 2 : 4);
        if (Copy::pays(found.data, bytes)) {
            copies.emplace_back(found.data, bytes);
            found.data = copies.back().data();
        }
        return found;
    }
};

float* output(void* context, const std::vector<int64_t>& shape) {
    void *value, *data;
    check(call(OUTPUT, context, size_t(0), shape.data(), shape.size(), &value));
    check(call(TENSOR_DATA, value, &data));
    return static_cast<float*>(data);
}

// The host's threads share the pieces; the calling thread works too.
Workers workers_of(void* context, Status& failed) {
    struct Host { void* context; Status* failed; };
    thread_local Host host;
    host = {context, &failed};
    Workers workers;
    workers.host = &host;
    workers.share = [](void* on, Workers::Task task, size_t tasks, void* work) {
        const Host* here = static_cast<Host*>(on);
        Status status = call(PARALLEL_FOR, here->context, task, tasks, size_t(0), work);
        if (!*here->failed) *here->failed = status;
        else if (status) release(RELEASE_STATUS, status);
    };
    return workers;
}

struct Kernel {
    Constants constants;
    virtual void compute(const Tensor& x, void* context, const Workers& workers) = 0;
    virtual ~Kernel() = default;
};

// x with a last axis of `columns`, and how many rows it has.
int64_t samples_of(const Tensor& x, int64_t columns) {
    if (x.shape.empty() || x.shape.back() != columns)
        throw Misfit("the last axis of the input has " + std::to_string(x.shape.empty() ? 0 : x.shape.back()) +
                     " numbers, and the weight " + std::to_string(columns) + " columns");
    int64_t samples = 1;
    for (size_t axis = 0; axis + 1 < x.shape.size(); axis++) samples *= x.shape[axis];
    return samples;
}

// ---- the operators

struct Taken { int64_t starts, places, values; };

template <class Place> Entries<Place> entries_of(Constants& constants, const void* info, Taken& counts) {
    Entries<Place> w;
    const Tensor starts = constants.take(info, 1, INT32), bias = constants.take(info, 4, FLOAT);
    const Tensor places = constants.take_for_reading(info, 2, sizeof(Place) == 2 ? UINT16 : INT32);
    const Tensor values = constants.take_for_reading(info, 3, FLOAT);
    w.rows = bias.count(), w.relu = attribute(info, "relu") != 0;
    w.starts = starts.as<int32_t>(), w.places = places.as<Place>(), w.values = values.as<float>(), w.bias = bias.as<float>();
    counts = {starts.count(), places.count(), values.count()};
    if (counts.starts < 1) throw Misfit("starts must not be empty");
    return w;
}

template <class Place> struct SparseProductKernel : Kernel {
    int64_t columns;
    std::unique_ptr<SparseProduct<Place>> product;

    explicit SparseProductKernel(const void* info) : columns(attribute(info, "columns")) {
        Taken counts;
        const Entries<Place> w = entries_of<Place>(constants, info, counts);
        rows = w.rows;
        product = std::make_unique<SparseProduct<Place>>(w, columns, attribute(info, "block"), counts.starts, counts.places, counts.values, isa());
    }
    int64_t rows;
    void compute(const Tensor& x, void* context, const Workers& workers) override {
        const int64_t samples = samples_of(x, columns);
        std::vector<int64_t> shape = x.shape;
        shape.back() = rows;
        product->run(x.as<float>(), samples, output(context, shape), workers);
    }
};

template <class Place> struct SparseConvKernel : Kernel {
    int64_t rows;
    std::unique_ptr<SparseConv<Place>> product;

    explicit SparseConvKernel(const void* info) {
        Taken counts;
        const Entries<Place> w = entries_of<Place>(constants, info, counts);
        Geometry g;
        attributes(info, "kernel_shape", g.kernel, 2), attributes(info, "strides", g.stride, 2);
        attributes(info, "pads", g.padding, 4), attributes(info, "dilations", g.dilation, 2);
        rows = w.rows;
        product = std::make_unique<SparseConv<Place>>(w, attribute(info, "columns"), g, counts.starts, counts.places, counts.values, isa());
    }
    void compute(const Tensor& x, void* context, const Workers& workers) override {
        if (x.shape.size() != 4 || x.shape[1] != product->channels())
            throw Misfit("the input must have the axes samples, channels, height, width and " + std::to_string(product->channels()) + " channels");
        const Geometry& g = product->geometry();
        const int64_t height = g.output(0, x.shape[2]), width = g.output(1, x.shape[3]);
        if (height < 1 || width < 1) throw Misfit("the kernel is larger than the padded input");
        product->run(x.as<float>(), x.shape[0], x.shape[2], x.shape[3], output(context, {x.shape[0], rows, height, width}), workers);
    }
};

struct CodebookKernel : Kernel {
    int64_t rows, columns;
    std::unique_ptr<CodebookProduct> product;

    explicit CodebookKernel(const void* info) : columns(attribute(info, "columns")) {
        const Tensor codes = constants.take_for_reading(info, 1, UINT8), codebook = constants.take(info, 2, FLOAT);
        const Tensor bias = constants.take(info, 3, FLOAT);
        rows = bias.count();
        product = std::make_unique<CodebookProduct>(rows, columns, codes.as<uint8_t>(), codes.count(), codebook.as<float>(), codebook.count(),
                                                    bias.as<float>(), attribute(info, "rounds_inputs") != 0, attribute(info, "relu") != 0, isa());
    }
    void compute(const Tensor& x, void* context, const Workers& workers) override {
        const int64_t samples = samples_of(x, columns);
        std::vector<int64_t> shape = x.shape;
        shape.back() = rows;
        product->run(x.as<float>(), samples, output(context, shape), workers);
    }
};

// 16-bit places have a kernel of their own.
template <template <class> class Of> Kernel* for_places(const void* info) {
    Constants looked;
    const int type = looked.take(info, 2, ANY).type;
    if (type == UINT16) return new Of<uint16_t>(info);
    if (type == INT32) return new Of<int32_t>(info);
    throw Misfit("places must be of uint16 or int32");
}

template <class Work> Status guarded(const char* name, Work work) {
    std::string why;
    try {
        work();
        return nullptr;
    } catch (const Passed& passed) {
        return passed.status;
    } catch (const std::exception& error) {
        why = std::string("cortado.") + name + ": " + error.what() + ".";
    }
    return call(CREATE_STATUS, int(INVALID_ARGUMENT), why.c_str());
}

struct Named : Operator {
    const char* title;
    size_t inputs;
    int types[5];
    Kernel* (*make)(const void* info);
};

const Named& named(const Operator* op) { return *static_cast<const Named*>(op); }

// What ONNX Runtime gets for a kernel: the kernel and its operator.
struct Made {
    std::unique_ptr<Kernel> kernel;
    const char* title;
};

Status create(const Operator* op, const Api*, const void* info, void** kernel) {
    return guarded(named(op).title, [&] { *kernel = new Made{std::unique_ptr<Kernel>(named(op).make(info)), named(op).title}; });
}

Status compute(void* kernel, void* context) {
    const Made& made = *static_cast<Made*>(kernel);
    Status failed = nullptr;
    const Status status = guarded(made.title, [&] {
        const void* value;
        check(call(INPUT, context, size_t(0), &value));
        made.kernel->compute(tensor_of(value), context, workers_of(context, failed));
    });
    return status ? status : failed;
}

Named operator_of(const char* title, size_t inputs, std::initializer_list<int> types, Kernel* (*make)(const void*)) {
    Named op = {};
    op.version = OPERATOR_VERSION;
    op.name = [](const Operator* one) { return named(one).title; };
    op.provider = [](const Operator*) -> const char* { return nullptr; };
    op.input_type = [](const Operator* one, size_t number) { return named(one).types[number]; };
    op.input_count = [](const Operator* one) { return named(one).inputs; };
    op.output_type = [](const Operator*, size_t) { return int(FLOAT); };
    op.output_count = [](const Operator*) { return size_t(1); };
    op.destroy = [](void* kernel) { delete static_cast<Made*>(kernel); };
    op.input_kind = op.output_kind = op.input_memory = [](const Operator*, size_t) { return 0; };
    for (auto& variadic : op.variadic) variadic = [](const Operator*) { return 1; };
    op.create = create, op.compute = compute;
    op.title = title, op.inputs = inputs, op.make = make;
    std::copy(types.begin(), types.end(), op.types);
    return op;
}

const Named OPERATORS[] = {
    operator_of("SparseProduct", 5, {FLOAT, INT32, ANY, FLOAT, FLOAT}, for_places<SparseProductKernel>),
    operator_of("SparseConv", 5, {FLOAT, INT32, ANY, FLOAT, FLOAT}, for_places<SparseConvKernel>),
    operator_of("CodebookProduct", 4, {FLOAT, UINT8, FLOAT, FLOAT}, [](const void* info) -> Kernel* { return new CodebookKernel(info); }),
};

// ---- for tests: facts are whole numbers, in the order they are read

template <class Place> Entries<Place> entries_given(const int64_t* facts, const int32_t* starts, const void* places, const float* values, const float* bias) {
    return {facts[0], starts, static_cast<const Place*>(places), values, bias, facts[3] != 0};
}

template <class Work> int refused(Work work) {
    try {
        work();
        return 0;
    } catch (const std::exception&) {
        return 1;
    }
}

template <class Place> int sparse_product(const int64_t* facts, const int32_t* starts, const void* places, const float* values, const float* bias, const float* x, float* y) {
    return refused([&] {
        const SparseProduct<Place> product(entries_given<Place>(facts, starts, places, values, bias), facts[1], facts[2], facts[4], facts[5], facts[6], isa());
        product.run(x, facts[7], y, Workers());
    });
}

template <class Place> int sparse_conv(const int64_t* facts, const int32_t* starts, const void* places, const float* values, const float* bias, const float* x, float* y) {
    return refused([&] {
        Geometry g;
        std::memcpy(&g, facts + 10, sizeof g);
        const SparseConv<Place> product(entries_given<Place>(facts, starts, places, values, bias), facts[1], g, facts[4], facts[5], facts[6], isa());
        product.run(x, facts[7], facts[8], facts[9], y, Workers());
    });
}

}  // namespace

#define SHARED extern "C" __attribute__((visibility("default")))

SHARED void* RegisterCustomOps(void* options, const ApiBase* base) {
    api = base->get(API_VERSION);
    if (!api) {
        api = base->get(1);
        return call(CREATE_STATUS, int(FAIL), "cortado: the products need ONNX Runtime 1.17 or newer.");
    }
    return guarded("products", [&] {
        void* domain;
        check(call(CREATE_DOMAIN, "cortado", &domain));
        for (const Named& op : OPERATORS) check(call(ADD_OPERATOR, domain, static_cast<const Operator*>(&op)));
        check(call(ADD_DOMAIN, options, domain));
    });
}

SHARED int cortado_isa() { return isa(); }

// facts: rows, columns, block, relu, number of starts, places and values, samples
SHARED int cortado_sparse_product(const int64_t* facts, int wide, const int32_t* starts, const void* places, const float* values, const float* bias, const float* x, float* y) {
    return wide ? sparse_product<int32_t>(facts, starts, places, values, bias, x, y) : sparse_product<uint16_t>(facts, starts, places, values, bias, x, y);
}

// facts: as above, then height, width, kernel (2), strides (2), pads (4), dilations (2)
SHARED int cortado_sparse_conv(const int64_t* facts, int wide, const int32_t* starts, const void* places, const float* values, const float* bias, const float* x, float* y) {
    return wide ? sparse_conv<int32_t>(facts, starts, places, values, bias, x, y) : sparse_conv<uint16_t>(facts, starts, places, values, bias, x, y);
}

// facts: rows, columns, bytes of codes, values of the codebook, rounds_inputs, relu, samples
SHARED int cortado_codebook_product(const int64_t* facts, const uint8_t* codes, const float* codebook, const float* bias, const float* x, float* y) {
    return refused([&] {
        const CodebookProduct product(facts[0], facts[1], codes, facts[2], codebook, facts[3], bias, facts[4] != 0, facts[5] != 0, isa());
        product.run(x, facts[6], y, Workers());
    });
}
