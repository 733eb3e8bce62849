/* A stand-in of libnvidia-ml.so.1 that says what a file says. Read anew at each nvmlInit:
 *
 *   init RC | count RC | shutdown RC | hang            what goes wrong before any card
 *   v1only                                             a driver without the second memory call
 *   card UUID USED_MIB TOTAL_MIB HANDLE_RC MEMORY_RC   one line for each card; RESERVED is 512 MiB
 *   part CARD UUID USED_MIB TOTAL_MIB                  a MIG part of the card
 *   process CARD PID USED_MIB                          -1: the driver does not say
 *   processes RC                                       the list can not be had
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB 1048576ULL
#define RESERVED (512 * MIB)
enum { MAX = 16 };

typedef struct { char uuid[96]; unsigned long long used, total; int handle_rc, memory_rc, parent; } card_t;
typedef struct { unsigned long long total, free_, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free_, used; } memory2_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;

static card_t cards[MAX];
static struct { int card; unsigned pid; long long used; } listed[MAX];
static int count, parts, processes, init_rc, count_rc, shutdown_rc, processes_rc, v1only;

static void load(void) {
    char line[256];
    FILE *file = fopen(getenv("NVML_SCRIPT"), "r");
    count = parts = processes = init_rc = count_rc = shutdown_rc = processes_rc = v1only = 0;
    memset(cards, 0, sizeof cards);
    while (file && fgets(line, sizeof line, file)) {
        card_t *c = &cards[count + parts];
        sscanf(line, "init %d", &init_rc);
        sscanf(line, "count %d", &count_rc);
        sscanf(line, "shutdown %d", &shutdown_rc);
        sscanf(line, "processes %d", &processes_rc);
        if (!strncmp(line, "v1only", 6)) v1only = 1;
        if (!strncmp(line, "hang", 4)) pause();
        if (sscanf(line, "card %95s %llu %llu %d %d", c->uuid, &c->used, &c->total, &c->handle_rc, &c->memory_rc) == 5) {
            c->parent = -1;
            count++;
        } else if (sscanf(line, "part %d %95s %llu %llu", &c->parent, c->uuid, &c->used, &c->total) == 4) {
            parts++;
        } else if (sscanf(line, "process %d %u %lld", &listed[processes].card, &listed[processes].pid,
                          &listed[processes].used) == 3) {
            processes++;
        }
    }
    if (file) fclose(file);
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; load(); return init_rc; }
int nvmlShutdown(void) { return shutdown_rc; }
int nvmlDeviceGetCount_v2(unsigned *out) { *out = count; return count_rc; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) {
    *out = &cards[index];
    return cards[index].handle_rc;
}
int nvmlDeviceGetUUID(void *handle, char *out, unsigned size) {
    snprintf(out, size, "%s", ((card_t *)handle)->uuid);
    return 0;
}
int nvmlDeviceGetName(void *handle, char *out, unsigned size) {
    (void)handle;
    snprintf(out, size, "Stand-in card");
    return 0;
}
int nvmlSystemGetDriverVersion(char *out, unsigned size) { snprintf(out, size, "580.65.06"); return 0; }
int nvmlSystemGetCudaDriverVersion(int *out) { *out = 13020; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    (void)handle;
    *major = 8;
    *minor = 6;
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *out) {
    card_t *c = handle;
    out->total = c->total * MIB;
    out->used = c->used * MIB + RESERVED;
    return c->memory_rc;
}
int nvmlDeviceGetMemoryInfo_v2(void *handle, memory2_t *out) {
    card_t *c = handle;
    if (v1only) return 3;
    if (out->version != 0x02000028) return 25;
    out->total = c->total * MIB;
    out->reserved = RESERVED;
    out->used = c->used * MIB;
    return c->memory_rc;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *out) { (void)handle; *out = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **out) {
    unsigned seen = 0;
    for (int i = 0; i < count + parts; i++)
        if (cards[i].parent >= 0 && &cards[cards[i].parent] == handle && seen++ == index) {
            *out = &cards[i];
            return 0;
        }
    return 6;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *size, process_t *out) {
    unsigned room = *size, found = 0;
    if (processes_rc) return processes_rc;
    for (int i = 0; i < processes; i++)
        if (&cards[listed[i].card] == handle) {
            if (out && found < room)
                out[found] = (process_t){listed[i].pid, listed[i].used < 0 ? ~0ULL : listed[i].used * MIB, 0, 0};
            found++;
        }
    *size = found;
    return found > room ? 7 : 0;
}
const char *nvmlErrorString(int rc) {
    switch (rc) {
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}
