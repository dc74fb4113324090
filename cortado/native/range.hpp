// Binary arithmetic coding: an interval of 64 bits narrows with each bit; bytes leave as soon as they are certain.
#pragma once
#include <cstdint>

namespace {

struct Writer {
    uint64_t low = 0, high = ~0ull;
    uint8_t* out;
    int64_t size = 0, room;
    Writer(uint8_t* out_, int64_t room_) : out(out_), room(room_) {}
    void put(uint8_t byte) { if (size < room) out[size] = byte; size++; }
    int code(int bit, uint32_t p) {
        uint64_t middle = low + ((high - low) >> 16) * p;
        if (bit) high = middle; else low = middle + 1;
        while (((low ^ high) >> 56) == 0) { put(uint8_t(high >> 56)); low <<= 8; high = (high << 8) | 255; }
        return bit;
    }
    int64_t finish() {  // the shortest ending; the reader sees zeros after the end
        for (int count = 0; count <= 8; count++) {
            uint64_t mask = count == 8 ? 0 : (~0ull >> (8 * count));
            uint64_t value = (low + mask) & ~mask;
            if (value < low || value > high) continue;  // wrapped round, or too far
            for (int i = 0; i < count; i++) put(uint8_t(value >> (56 - 8 * i)));
            break;
        }
        if (size > room) return -1;
        while (size > 0 && out[size - 1] == 0) size--;
        return size;
    }
};

struct Reader {
    uint64_t low = 0, high = ~0ull, value = 0;
    const uint8_t* body;
    int64_t at = 0, size;
    Reader(const uint8_t* body_, int64_t size_) : body(body_), size(size_) { for (int i = 0; i < 8; i++) take(); }
    void take() { value = (value << 8) | (at < size ? body[at] : 0); at++; }
    int code(int, uint32_t p) {
        uint64_t middle = low + ((high - low) >> 16) * p;
        int bit = value <= middle;
        if (bit) high = middle; else low = middle + 1;
        while (((low ^ high) >> 56) == 0) { low <<= 8; high = (high << 8) | 255; take(); }
        return bit;
    }
};

}  // namespace
