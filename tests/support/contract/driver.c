/* A CUDA driver without a GPU, for pycuda's and CUDA's own bindings. Until `devices` is set it refuses everything with
   `answer`. Then device memory is the host's, what is queued is done at once, and what a graph records is done when it
   is launched. The other functions that pycuda links with are generated, and refuse. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int answer = 100;  /* CUDA_ERROR_NO_DEVICE */
int devices = 0;
int broken = 0;    /* An error that every call gives from now on, as a context gives that a kernel broke. */
int live = 0;      /* What was made and not given back: memory of both sides, streams, events, graphs, contexts. */

typedef unsigned long long Pointer;
typedef struct { Pointer to, from; size_t size; } Copy;
typedef struct { int count; Copy copies[64]; } Graph;
typedef struct { Graph *recording; } Stream;

static __thread void *stack[16];
static __thread int depth;
static char primary;

#define INVALID 1
#define NO_CONTEXT 201
#define NOT_PERMITTED 900
#define READY do { if (!devices) return answer; if (broken) return broken; } while (0)
#define CONTEXT do { READY; if (!depth) return NO_CONTEXT; } while (0)
#define MADE(place) do { CONTEXT; *(place) = calloc(1, sizeof **(place)); live++; return 0; } while (0)
#define FREED(what) do { CONTEXT; free(what); live--; return 0; } while (0)

int cuGetErrorString(int code, const char **text) { *text = "said the stub"; return 0; }
int cuInit(unsigned flags) { READY; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { READY; *count = devices; return 0; }
int cuDeviceGet(int *device, int number) { READY; *device = number; return number < devices ? 0 : 101; }
int cuDeviceGetName(char *name, int size, int device) { READY; snprintf(name, size, "No GPU at all"); return 0; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { READY; *major = 9; *minor = 0; return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { READY; *bytes = 1 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int what, int device) { READY; *value = what == 76 ? 0 : 9; return 0; }

int cuDevicePrimaryCtxRetain(void **context, int device) { READY; *context = &primary; live++; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { READY; live--; return 0; }
int cuCtxDetach(void *context) { READY; live--; return 0; }
int cuCtxPushCurrent_v2(void *context) { READY; stack[depth++] = context; return 0; }
int cuCtxPopCurrent_v2(void **context) { CONTEXT; *context = stack[--depth]; return 0; }
int cuCtxGetDevice(int *device) { CONTEXT; *device = 0; return 0; }
int cuCtxSynchronize(void) { CONTEXT; return 0; }

int cuMemGetInfo_v2(size_t *free, size_t *total) { CONTEXT; *free = 1 << 29; *total = 1 << 30; return 0; }
int cuMemAlloc_v2(Pointer *memory, size_t size)
{
    CONTEXT;
    if (!size) return INVALID;
    if (size > 1 << 29) return 2;
    *memory = (Pointer) malloc(size);
    live++;
    return 0;
}
int cuMemFree_v2(Pointer memory) { FREED((void *) memory); }
int cuMemHostAlloc(void **memory, size_t size, unsigned flags)
{
    CONTEXT;
    *memory = malloc(size);
    live++;
    return size ? 0 : INVALID;
}
int cuMemFreeHost(void *memory) { FREED(memory); }

static int copied(Pointer to, Pointer from, size_t size, Stream *stream)
{
    CONTEXT;
    if (stream && stream->recording) {
        if (stream->recording->count == 64) return INVALID;
        stream->recording->copies[stream->recording->count++] = (Copy) {to, from, size};
    } else
        memmove((void *) to, (void *) from, size);
    return 0;
}
int cuMemcpyHtoD_v2(Pointer to, void *from, size_t size) { return copied(to, (Pointer) from, size, 0); }
int cuMemcpyDtoH_v2(void *to, Pointer from, size_t size) { return copied((Pointer) to, from, size, 0); }
int cuMemcpyHtoDAsync_v2(Pointer to, void *from, size_t size, Stream *stream)
{ return copied(to, (Pointer) from, size, stream); }
int cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t size, Stream *stream)
{ return copied((Pointer) to, from, size, stream); }
int cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t size, Stream *stream)
{ return copied(to, from, size, stream); }

int cuStreamCreate(Stream **stream, unsigned flags) { MADE(stream); }
int cuStreamDestroy_v2(Stream *stream) { FREED(stream); }
int cuStreamSynchronize(Stream *stream) { CONTEXT; return stream->recording ? NOT_PERMITTED : 0; }
int cuStreamQuery(Stream *stream) { CONTEXT; return 0; }
int cuStreamWaitEvent(Stream *stream, void *event, unsigned flags) { CONTEXT; return 0; }
int cuEventCreate(int **event, unsigned flags) { MADE(event); }
int cuEventDestroy_v2(int *event) { FREED(event); }
int cuEventRecord(int *event, Stream *stream) { CONTEXT; *event = 1; return 0; }
int cuEventSynchronize(int *event) { CONTEXT; return 0; }
int cuEventQuery(int *event) { CONTEXT; return 0; }
int cuEventElapsedTime_v2(float *milliseconds, int *begin, int *end)
{ CONTEXT; *milliseconds = 0.5f; return *begin && *end ? 0 : 400; }

int cuStreamBeginCapture_v2(Stream *stream, int mode) { MADE(&stream->recording); }
int cuStreamEndCapture(Stream *stream, Graph **graph)
{
    CONTEXT;
    *graph = stream->recording;
    stream->recording = 0;
    return *graph ? 0 : INVALID;
}
int cuGraphInstantiateWithFlags(Graph **launchable, Graph *graph, unsigned long long flags)
{
    CONTEXT;
    *launchable = malloc(sizeof *graph);
    memcpy(*launchable, graph, sizeof *graph);
    live++;
    return 0;
}
int cuGraphLaunch(Graph *launchable, Stream *stream)
{
    CONTEXT;
    for (int index = 0; index < launchable->count; index++) {
        Copy *copy = launchable->copies + index;
        int code = copied(copy->to, copy->from, copy->size, stream);
        if (code) return code;
    }
    return 0;
}
int cuGraphDestroy(Graph *graph) { FREED(graph); }
int cuGraphExecDestroy(Graph *launchable) { FREED(launchable); }

/* How CUDA's own bindings find the functions; a name without its version means the newest. */
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
    Dl_info info;
    char newest[128];
    snprintf(newest, sizeof newest, "%s_v2", name);
    dladdr(&answer, &info);
    void *library = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    *function = dlsym(library, newest);
    if (!*function) *function = dlsym(library, name);
    if (status) *status = *function ? 0 : 1;
    return *function ? 0 : 500;
}
