// Sparse convolution without a matrix of patches: in a padded plane each entry of the weight reads one shifted copy of its
// channel, so a row of the output is a sum of value x plane[offset + p] over consecutive positions p.  With a stride the
// plane is stored as one smaller plane for each remainder of its rows and columns; positions stay consecutive.
#pragma once
#include "sparse.hpp"

namespace cortado {

struct Geometry {
    int64_t kernel[2], stride[2], padding[4], dilation[2];  // height, width; padding: top, left, bottom, right

    void check() const {
        for (int axis = 0; axis < 2; axis++)
            if (kernel[axis] < 1 || stride[axis] < 1 || dilation[axis] < 1 || padding[axis] < 0 || padding[axis + 2] < 0)
                throw Misfit("kernel, strides and dilations must be at least 1, and pads at least 0");
    }
    int64_t reach(int axis) const { return (kernel[axis] - 1) * dilation[axis] + 1; }
    int64_t padded(int axis, int64_t size) const { return size + padding[axis] + padding[axis + 2]; }
    // The size of the output along an axis; below 1 where the kernel does not fit.
    int64_t output(int axis, int64_t size) const {
        return padded(axis, size) < reach(axis) ? 0 : (padded(axis, size) - reach(axis)) / stride[axis] + 1;
    }
};

// The planes of one channel, for images of one size.
struct Planes {
    Geometry g;
    int64_t size[2], out[2], phases[2], plane[2], channel, run;
    bool bare;  // the image itself serves as its plane

    Planes(const Geometry& geometry, int64_t height, int64_t width) : g(geometry), size{height, width} {
        for (int axis = 0; axis < 2; axis++) {
            out[axis] = g.output(axis, size[axis]);
            phases[axis] = std::min(g.stride[axis], g.reach(axis));
            plane[axis] = (g.padded(axis, size[axis]) + g.stride[axis] - 1) / g.stride[axis];
        }
        channel = phases[0] * phases[1] * plane[0] * plane[1];
        run = out[0] < 1 || out[1] < 1 ? 0 : (out[0] - 1) * plane[1] + out[1];
        bare = run >= 16 && g.stride[0] * g.stride[1] == 1 && plane[0] == height && plane[1] == width;
    }
    // Where position `tap` (row x kernel width + column) of a kernel starts in the planes of a channel.
    int64_t offset(int64_t tap) const {
        const int64_t y = tap / g.kernel[1] * g.dilation[0], x = tap % g.kernel[1] * g.dilation[1];
        const int64_t phase = y % g.stride[0] * phases[1] + x % g.stride[1];
        return (phase * plane[0] + y / g.stride[0]) * plane[1] + x / g.stride[1];
    }
    void fill(const float* image, float* to) const {
        std::memset(to, 0, size_t(channel) * sizeof(float));
        for (int64_t y = 0; y < size[0]; y++) {
            const int64_t row = y + g.padding[0], py = row % g.stride[0];
            if (py >= phases[0]) continue;
            const float* from = image + y * size[1];
            float* line = to + (py * phases[1] * plane[0] + row / g.stride[0]) * plane[1];
            if (g.stride[1] == 1) {
                std::memcpy(line + g.padding[1], from, size_t(size[1]) * sizeof(float));
                continue;
            }
            for (int64_t px = 0; px < phases[1]; px++, line += plane[0] * plane[1])
                for (int64_t x = ((px - g.padding[1]) % g.stride[1] + g.stride[1]) % g.stride[1]; x < size[1]; x += g.stride[1])
                    line[(x + g.padding[1]) / g.stride[1]] = from[x];
        }
    }
};

// y (samples, rows, output height, output width) = convolution of x (samples, channels, height, width), plus bias.
template <class Place> class SparseConv : public Sparse<Place> {
    using Sparse<Place>::w;
    Geometry g;
    Kernels<int32_t> strips;
    struct Offsets {
        Planes planes;
        std::vector<int32_t> held;
    };
    mutable std::shared_ptr<const Offsets> last;
    mutable std::mutex guard;

public:
    SparseConv(Entries<Place> entries, int64_t columns, const Geometry& geometry, int64_t starts, int64_t places, int64_t values,
               int level)
        : Sparse<Place>(entries, columns, 1, starts, places, values, level), g(geometry), strips(kernels_for<int32_t>(level)) {
        g.check();
        if (columns % (g.kernel[0] * g.kernel[1])) throw Misfit("the columns of the weight are no multiple of its kernel");
    }
    int64_t channels() const { return this->columns / (g.kernel[0] * g.kernel[1]); }
    const Geometry& geometry() const { return g; }

    void run(const float* x, int64_t samples, int64_t height, int64_t width, float* y, const Workers& workers) const {
        const std::shared_ptr<const Offsets> offsets = offsets_for(height, width);
        const Planes& p = offsets->planes;
        if (!p.run || !samples) return;
        thread_local Room inputs, outputs;
        const int64_t wide = std::max<int64_t>(p.run, 16), image = height * width, area = p.out[0] * p.out[1];
        const bool straight = p.plane[1] == p.out[1] && wide == p.run;
        // Sixteen floats more, for the positions that round up a short run.
        float* planes = p.bare ? nullptr : inputs.floats(size_t(channels() * p.channel + 16));
        float* found = straight ? nullptr : outputs.floats(size_t(w.rows * wide));
        const Entries<int32_t> moved{w.rows, w.starts, offsets->held.data(), w.values, w.bias, w.relu};
        const int64_t pieces = pieces_for(w.rows, this->entries * wide);
        for (int64_t s = 0; s < samples; s++) {
            const float* from = x + s * channels() * image;
            for (int64_t c = 0; !p.bare && c < channels(); c++) p.fill(from + c * image, planes + c * p.channel);
            float* to = y + s * w.rows * area;
            const auto work = [&](int64_t piece) {
                const int64_t first = w.rows * piece / pieces, end = w.rows * (piece + 1) / pieces;
                sum_positions(strips, moved, first, end, 1, p.bare ? from : planes, wide, straight ? to : found, straight ? area : wide);
                for (int64_t row = first; !straight && row < end; row++)
                    for (int64_t line = 0; line < p.out[0]; line++)
                        std::memcpy(to + row * area + line * p.out[1], found + row * wide + line * p.plane[1],
                                    size_t(p.out[1]) * sizeof(float));
            };
            workers.run(pieces, work);
        }
    }

private:
    // Offsets depend on the image's size only; those of the last size are kept.
    std::shared_ptr<const Offsets> offsets_for(int64_t height, int64_t width) const {
        std::lock_guard<std::mutex> lock(guard);
        if (last && last->planes.size[0] == height && last->planes.size[1] == width) return last;
        const Planes planes(g, height, width);
        if (channels() * planes.channel > INT32_MAX) throw Misfit("the padded input has more than 2 ** 31 numbers");
        std::vector<int64_t> taps(size_t(g.kernel[0] * g.kernel[1]));
        for (size_t tap = 0; tap < taps.size(); tap++) taps[tap] = planes.offset(int64_t(tap));
        std::vector<int32_t> held(size_t(w.starts[w.rows]));
        for (size_t i = 0; i < held.size(); i++) {
            const int64_t place = int64_t(w.places[i]), count = int64_t(taps.size());
            held[i] = int32_t(place / count * planes.channel + taps[size_t(place % count)]);
        }
        last = std::make_shared<const Offsets>(Offsets{planes, std::move(held)});
        return last;
    }
};

}  // namespace cortado
