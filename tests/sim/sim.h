// The control interface of the simulated CUDA driver: what a test may set, watch and do besides
// calling the driver itself. Plain C, for dlsym and for ctypes.
//
// Pointers to device memory, streams and gates are numbers. Functions that return `int` return 0,
// or the driver's error code, or -1 for an argument that makes no sense. All may be called from any
// thread; none counts as a call of the driver. In a forked child they do nothing and return -1.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DLFERRY_SIM_API __attribute__((visibility("default")))

// ---- settings and state ----

// Changes settings: "version=12.4,devices=2,delay_us=0". The names are in settings.cpp. The
// variable DLFERRY_SIM, of the same form, is read when the library is loaded. -1, with nothing
// changed, for an unknown name or a malformed value.
DLFERRY_SIM_API int dlferry_sim_configure(const char* text);

// Opens all gates, lets the engines go on, waits for all work, ends the threads; then settings,
// faults, log, counts, captures and sticky errors are as after loading. What the program under test
// still holds stays valid. Returns how many objects that is: streams, events, host allocations,
// registrations and device allocations. Only while no other thread is in a call.
DLFERRY_SIM_API int64_t dlferry_sim_reset(void);

// The same, and all objects are destroyed, the contexts' references and cuInit included.
DLFERRY_SIM_API void dlferry_sim_abandon(void);

// ---- watching ----

// One of the counters below by name; -1 for an unknown one.
//   live objects   streams events host_allocations host_bytes registrations registered_bytes
//                  device_allocations device_bytes context_retains
//   work           pending threads h2d_copies h2d_bytes d2h_copies d2h_bytes d2d_copies
//                  inline_copies captured_copies dropped_tasks
//                  h2d_at_engine d2h_at_engine: copies that wait for an engine or are on it
//   misuse         pageable_copies pageable_bytes calls_in_child calls_after_exit freed_in_use
//                  invalid_handles foreign_streams
//   other          calls faults_fired log_dropped
DLFERRY_SIM_API int64_t dlferry_sim_counter(const char* name);

// All of them as one JSON object. Like snprintf: writes what fits, returns the length of the whole.
DLFERRY_SIM_API size_t dlferry_sim_counters(char* buffer, size_t capacity);

// How often a driver function was called since the last reset, by its name or its symbol.
DLFERRY_SIM_API int64_t dlferry_sim_calls(const char* function);

// All calls and transfers as JSON, one object a line, in the order in which they ended; times are
// CLOCK_MONOTONIC in ns. Like snprintf.
//   {"what":"call","name":...,"result":0,"stream":..,"object":..,"destination":..,"source":..,
//    "bytes":..,"thread":..,"begin":..,"end":..}
//   {"what":"transfer","name":"H2D",...}: on its engine from `begin` to `end`; "landed" is when the
//    bytes were there
DLFERRY_SIM_API size_t dlferry_sim_log(char* buffer, size_t capacity);
DLFERRY_SIM_API void dlferry_sim_log_clear(void);

// ---- faults ----

// The nth call from now (1 is the next) of a function, named as in dlferry_sim_calls, returns
// `code`; nth 0: every call. A call that fails does nothing, unless it releases something: then it
// does so all the same. Sticky: the context is lost, with that code from all later calls. "H2D" and
// "D2H" name the engines' copies: the nth one to come to its engine loses the context.
DLFERRY_SIM_API int dlferry_sim_fail(const char* function, unsigned nth, int code, int sticky);

// A device's context is lost now, as by a kernel that faults.
DLFERRY_SIM_API int dlferry_sim_poison(int device, int code);

// ---- memory ----

// Device memory: the host faults when it touches it. It is poisoned when allocated and when freed;
// a copy that comes to it after it was freed loses the context with 700. 0 when there is none left.
DLFERRY_SIM_API uint64_t dlferry_sim_device_alloc(int device, size_t bytes);
DLFERRY_SIM_API int dlferry_sim_device_free(uint64_t pointer);

// Reads and writes device memory at once, whatever is queued.
DLFERRY_SIM_API int dlferry_sim_peek(void* host, uint64_t device_pointer, size_t bytes);
DLFERRY_SIM_API int dlferry_sim_poke(uint64_t device_pointer, const void* host, size_t bytes);

// Pinned memory of somebody else, such as torch's allocator: in no counter.
DLFERRY_SIM_API void* dlferry_sim_pinned_alloc(size_t bytes);
DLFERRY_SIM_API int dlferry_sim_pinned_free(void* pointer);

// ---- streams of somebody else ----

// A stream of the device's primary context, which lives from then on; in no counter.
DLFERRY_SIM_API uint64_t dlferry_sim_stream_create(int device, int non_blocking);
DLFERRY_SIM_API int dlferry_sim_stream_destroy(uint64_t stream);
DLFERRY_SIM_API int dlferry_sim_stream_wait(uint64_t stream);  // for all work in it
DLFERRY_SIM_API int dlferry_sim_stream_is_idle(uint64_t stream);

// Kernels. Streams 0, 1 and 2 are those of the thread's current context, or else of device 0.
DLFERRY_SIM_API int dlferry_sim_kernel(uint64_t stream, uint64_t microseconds);
DLFERRY_SIM_API uint64_t dlferry_sim_gate(uint64_t stream);  // runs until it is opened
DLFERRY_SIM_API int dlferry_sim_open(uint64_t gate);
DLFERRY_SIM_API int dlferry_sim_fill(uint64_t stream, uint64_t device_pointer, int value,
                                     size_t bytes);
DLFERRY_SIM_API int dlferry_sim_copy(uint64_t stream, uint64_t destination, uint64_t source,
                                     size_t bytes);  // both on the device

// Stops a device's engine for copies to the device (direction 0) or to the host (1), or lets it go
// on: meanwhile copies come to it, and none of their bytes move.
DLFERRY_SIM_API int dlferry_sim_stall(int device, int direction, int stalled);

// ---- capture ----

// As cuStreamBeginCapture by this thread; mode 0 global, 1 thread, 2 relaxed.
DLFERRY_SIM_API int dlferry_sim_capture_begin(uint64_t stream, int mode);
// As cuStreamEndCapture: 0, or 901 where a call has invalidated it. `copies` may be null.
DLFERRY_SIM_API int dlferry_sim_capture_end(uint64_t stream, int* copies);
// 0 none, 1 active, 2 invalidated.
DLFERRY_SIM_API int dlferry_sim_capture_status(uint64_t stream);

#ifdef __cplusplus
}  // extern "C"
#endif
