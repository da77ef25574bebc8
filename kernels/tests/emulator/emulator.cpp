// Runs launches of the kernels on the host: see emulator.h. Built by the tests of kernels/src/cuda.
#include "emulator.h"

#include <set>
#include <ucontext.h>
#include <utility>
#include <vector>

Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {
constexpr uint32_t WARP = 32;
constexpr size_t STACK_BYTES = 128 * 1024;

enum class Wait { None, Block, Warp, Ended };

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    Wait wait;
};

struct Launch {
    const char *trouble = nullptr;
    std::vector<Fiber> fibers;
    std::vector<uint64_t> words;
    std::set<void *> shared;
    ucontext_t scheduler;
    uint32_t current = 0;
    void (*run)(void **) = nullptr;
    void **args = nullptr;
};
static Launch launch;

static void fail(const char *trouble) {
    if (!launch.trouble) {
        launch.trouble = trouble;
    }
}

static void wait(Wait wait) {
    Fiber &fiber = launch.fibers[launch.current];
    fiber.wait = wait;
    swapcontext(&fiber.context, &launch.scheduler);
}

uint32_t lane() { return threadIdx.x % WARP; }

void share(void *variable, size_t n_bytes) {
    if (launch.shared.insert(variable).second) {
        memset(variable, 0xff, n_bytes);
    }
}

void wait_for_block() { wait(Wait::Block); }

uint64_t exchange(uint32_t mask, uint64_t word, uint32_t from) {
    if (mask != 0xffffffffu) {
        fail("a shuffle names some lanes only, which the emulator does not know");
    }
    uint32_t first = launch.current / WARP * WARP;
    if (first + WARP > launch.fibers.size()) {
        fail("a shuffle names lanes that the block does not have");
    }
    launch.words[launch.current] = word;
    wait(Wait::Warp);
    uint64_t taken = launch.words[first + from];
    // Nobody may put the next word there before all have taken this one.
    wait(Wait::Warp);
    return taken;
}

static void begin() {
    launch.run(launch.args);
    launch.fibers[launch.current].wait = Wait::Ended;
}

// Whether the fibers of a range all wait alike and can go on together; those that ended count for a block
// only.
static bool all(uint32_t first, uint32_t end, Wait wait) {
    bool any = false;
    for (uint32_t i = first; i < end; ++i) {
        Wait is = launch.fibers[i].wait;
        if (is != wait && !(is == Wait::Ended && wait == Wait::Block)) {
            return false;
        }
        any = any || is == wait;
    }
    return any;
}

static bool release(uint32_t first, uint32_t end, Wait wait) {
    if (!all(first, end, wait)) {
        return false;
    }
    for (uint32_t i = first; i < end; ++i) {
        Fiber &fiber = launch.fibers[i];
        fiber.wait = fiber.wait == Wait::Ended ? Wait::Ended : Wait::None;
    }
    return true;
}

static void run_block() {
    uint32_t n = (uint32_t)launch.fibers.size();
    launch.shared.clear();
    for (Fiber &fiber : launch.fibers) {
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &launch.scheduler;
        makecontext(&fiber.context, begin, 0);
        fiber.wait = Wait::None;
    }
    for (;;) {
        bool has_run = false, has_ended = true;
        for (uint32_t i = 0; i < n; ++i) {
            if (launch.fibers[i].wait == Wait::None) {
                launch.current = i;
                threadIdx = Index{i, 0, 0};
                swapcontext(&launch.scheduler, &launch.fibers[i].context);
                has_run = true;
            }
            has_ended = has_ended && launch.fibers[i].wait == Wait::Ended;
        }
        if (has_ended || launch.trouble) {
            return;
        }
        bool is_released = release(0, n, Wait::Block);
        for (uint32_t first = 0; first < n; first += WARP) {
            is_released = release(first, first + WARP < n ? first + WARP : n, Wait::Warp) || is_released;
        }
        if (!has_run && !is_released) {
            fail("threads wait for others that ended or wait elsewhere: on a device this hangs");
            return;
        }
    }
}

template <typename... Args, size_t... I> static void call(void (*kernel)(Args...), void **args, std::index_sequence<I...>) {
    kernel(*static_cast<Args *>(args[I])...);
}

template <auto KERNEL> struct Entry;
template <typename... Args, void (*KERNEL)(Args...)> struct Entry<KERNEL> {
    static void run(void **args) { call(KERNEL, args, std::index_sequence_for<Args...>{}); }
};
} // namespace emulator

#include "../../cuda/kernels.cu"

#define ENTRY(kernel) {#kernel, emulator::Entry<kernel>::run},
static const struct {
    const char *name;
    void (*run)(void **);
} ENTRIES[] = {KERNELS(ENTRY)};

// Runs a kernel on a grid of blocks of `n_threads`. Null, or what went wrong.
extern "C" const char *emulate(const char *name, const uint32_t *grid, uint32_t n_threads, void **args) {
    using namespace emulator;
    launch.trouble = nullptr;
    launch.run = nullptr;
    for (const auto &entry : ENTRIES) {
        launch.run = strcmp(entry.name, name) == 0 ? entry.run : launch.run;
    }
    if (!launch.run) {
        return "there is no such kernel";
    }
    if (grid[1] > 65535 || grid[2] > 65535 || n_threads == 0 || n_threads > 1024 || grid[0] == 0 || grid[1] == 0 || grid[2] == 0) {
        return "a device refuses this geometry";
    }
    launch.args = args;
    launch.fibers.resize(n_threads);
    launch.words.resize(n_threads);
    for (Fiber &fiber : launch.fibers) {
        fiber.stack.resize(STACK_BYTES);
    }
    gridDim = Index{grid[0], grid[1], grid[2]};
    blockDim = Index{n_threads, 1, 1};
    for (uint32_t z = 0; z < grid[2]; ++z) {
        for (uint32_t y = 0; y < grid[1]; ++y) {
            for (uint32_t x = 0; x < grid[0] && !launch.trouble; ++x) {
                blockIdx = Index{x, y, z};
                run_block();
            }
        }
    }
    return launch.trouble;
}
