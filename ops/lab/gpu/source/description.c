#include "description.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "library.h"

#define CONFIGURATION "/etc/rackhand-simulator/gpus.conf"
enum { LINE_LENGTH = 8192 };  // room for the longest line: all processes with long names

#define READING(key, kind, unit, meaning) #key,
static const char *const reading_keys[] = {
#include "readings.def"
};
#undef READING
#define TEXT_KEY(key) #key,
static const char *const text_keys[] = {TEXTS(TEXT_KEY)};

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct machine current;
static struct stat read_from;  // the file `current` was read from; all zero: no file

void host_path(char *buffer, size_t size, const char *path) {
    const char *root = getenv("RACKHAND_SIMULATOR_ROOT");
    snprintf(buffer, size, "%s%s", root ? root : "", path);
}

static int find(const char *const *keys, int count, const char *key) {
    for (int i = 0; i < count; i++)
        if (strcmp(keys[i], key) == 0) return i;
    return -1;
}

static int64_t parse_number(const char *value) {
    if (!strcasecmp(value, "yes") || !strcasecmp(value, "enabled")) return 1;
    if (!strcasecmp(value, "no") || !strcasecmp(value, "disabled")) return 0;
    char *end;
    int64_t number = strtoll(value, &end, 0);
    return end != value && *end == '\0' ? number : ABSENT;
}

// pid:mib:name[:kind[:gpu instance]], ...
static void parse_processes(struct gpu *gpu, char *list) {
    char *rest = NULL;
    gpu->process_count = 0;
    for (char *word = strtok_r(list, ", ", &rest); word; word = strtok_r(NULL, ", ", &rest)) {
        struct process *process = &gpu->process[gpu->process_count];
        long long memory;
        *process = (struct process){.kind = 'C', .gpu_instance = NVML_INSTANCE_NONE};
        int fields = sscanf(word, "%u:%lld:%63[^:]:%c:%u", &process->pid, &memory, process->name,
                            &process->kind, &process->gpu_instance);
        process->memory_mib = memory;
        if (fields >= 3 && gpu->process_count < PROCESSES - 1) gpu->process_count++;
    }
}

static void parse_instances(struct gpu *gpu, char *list) {  // profile:start[:c], …
    char *rest = NULL;
    gpu->instance_count = 0;
    for (char *word = strtok_r(list, ", ", &rest); word; word = strtok_r(NULL, ", ", &rest)) {
        struct gpu_instance *instance = &gpu->instance[gpu->instance_count];
        char compute = ' ';
        int fields = sscanf(word, "%u:%u:%c", &instance->profile, &instance->start, &compute);
        instance->compute = compute == 'c';
        if (fields >= 2 && gpu->instance_count < INSTANCES - 1) gpu->instance_count++;
    }
}

static void set_value(struct gpu *gpu, const char *key, char *value) {
    int id = find(reading_keys, READINGS, key);
    if (id >= 0) gpu->reading[id] = parse_number(value);
    if ((id = find(text_keys, TEXT_COUNT, key)) >= 0)
        snprintf(gpu->text[id], TEXT_LENGTH, "%s", value);
    if (!strcmp(key, "processes")) parse_processes(gpu, value);
    if (!strcmp(key, "mig_instances")) parse_instances(gpu, value);
    if (!strcmp(key, "state")) {
        gpu->lost = !strcmp(value, "lost");
        gpu->hung = !strcmp(value, "hang");
    }
}

static char *trim(char *text) {
    text += strspn(text, " \t\r\n");
    size_t length = strlen(text);
    while (length && strchr(" \t\r\n", text[length - 1])) text[--length] = '\0';
    return text;
}

// The number of a `[gpu N]` line, or -1.
static int section_number(const char *line) {
    unsigned number;
    char bracket = 0;
    bool read = sscanf(line, "[gpu %u%c", &number, &bracket) == 2 && bracket == ']';
    return read && number < GPUS ? (int)number : -1;
}

static void add_gpu(struct machine *machine, unsigned index) {
    for (; machine->gpu_count <= index; machine->gpu_count++) {
        struct gpu *gpu = &machine->gpu[machine->gpu_count];
        *gpu = (struct gpu){0};
        for (int i = 0; i < READINGS; i++) gpu->reading[i] = ABSENT;
    }
}

// Instances that this product cannot have: what a hand-written file may hold.
static void drop_impossible_instances(struct gpu *gpu) {
    unsigned kept = 0;
    for (unsigned i = 0; i < gpu->instance_count; i++) {
        const struct mig_profile *profile = mig_profile(gpu, gpu->instance[i].profile);
        unsigned start = gpu->instance[i].start;
        if (profile && start < 8 && (profile->starts >> start & 1))
            gpu->instance[kept++] = gpu->instance[i];
    }
    gpu->instance_count = kept;
}

static void parse(FILE *file, struct machine *machine) {
    char line[LINE_LENGTH];
    int section = -1;
    *machine = (struct machine){0};
    while (fgets(line, sizeof line, file)) {
        char *key = trim(line), *value = strchr(key, '=');
        if (*key == '#' || *key == ';' || *key == '\0') continue;
        if (*key == '[') {
            section = section_number(key);
            if (section >= 0) add_gpu(machine, (unsigned)section);
        } else if (value) {
            *value++ = '\0';
            key = trim(key), value = trim(value);
            if (section >= 0)
                set_value(&machine->gpu[section], key, value);
            else if (!strcmp(key, "nvswitch"))
                machine->nvswitch = parse_number(value) == 1;
        }
    }
    for (unsigned i = 0; i < machine->gpu_count; i++) drop_impossible_instances(&machine->gpu[i]);
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void refresh(void) {  // with the guard held
    char path[PATH_LENGTH];
    struct stat now = {0};
    host_path(path, sizeof path, CONFIGURATION);
    if (stat(path, &now) == 0 && same_file(&now, &read_from)) return;
    FILE *file = fopen(path, "re");
    if (file && fstat(fileno(file), &now) == 0) {
        parse(file, &current);
        read_from = now;
    } else {
        current = (struct machine){0};
        read_from = (struct stat){0};
    }
    if (file) fclose(file);
}

void read_machine(struct machine *machine) {
    pthread_mutex_lock(&guard);
    refresh();
    *machine = current;
    pthread_mutex_unlock(&guard);
}

bool read_gpu(unsigned index, struct gpu *gpu) {
    pthread_mutex_lock(&guard);
    refresh();
    bool there = index < current.gpu_count;
    if (there) *gpu = current.gpu[index];
    pthread_mutex_unlock(&guard);
    return there;
}

unsigned gpu_count(void) {
    pthread_mutex_lock(&guard);
    refresh();
    unsigned count = current.gpu_count;
    pthread_mutex_unlock(&guard);
    return count;
}

static const char *new_value(const char *line, const struct change *changes, unsigned count,
                             bool *written) {
    for (unsigned i = 0; i < count; i++) {
        size_t length = strlen(changes[i].key);
        const char *start = line + strspn(line, " \t");
        if (strncmp(start, changes[i].key, length)) continue;
        if (start[length + strspn(start + length, " \t")] != '=') continue;
        written[i] = true;
        return changes[i].value;
    }
    return NULL;
}

static void write_missing(FILE *to, const struct change *changes, unsigned count, bool *written) {
    for (unsigned i = 0; i < count; i++) {
        if (!written[i]) fprintf(to, "%s = %s\n", changes[i].key, changes[i].value);
        written[i] = true;
    }
}

// Copies the file; a key that its section lacks goes to the section's end.
static void copy_changed(FILE *from, FILE *to, int index, const struct change *changes,
                         unsigned count) {
    char line[LINE_LENGTH];
    bool written[CHANGES] = {0}, inside = false;
    while (fgets(line, sizeof line, from)) {
        if (*line == '[') {
            if (inside) write_missing(to, changes, count, written);
            inside = section_number(line) == index;
        }
        const char *value = inside ? new_value(line, changes, count, written) : NULL;
        if (value)
            fprintf(to, "%.*s= %s\n", (int)strcspn(line, "="), line, value);
        else
            fputs(line, to);
    }
    if (inside) write_missing(to, changes, count, written);
}

int write_gpu(unsigned index, const struct change *changes, unsigned count) {
    char path[PATH_LENGTH], candidate[PATH_LENGTH + 32], lock_path[PATH_LENGTH + 8];
    host_path(path, sizeof path, CONFIGURATION);
    snprintf(candidate, sizeof candidate, "%s.%d", path, (int)getpid());
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    int lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock < 0) return errno;
    flock(lock, LOCK_EX);
    int problem = 0;
    FILE *from = fopen(path, "re"), *to = from ? fopen(candidate, "we") : NULL;
    if (to) {
        copy_changed(from, to, (int)index, changes, count);
        bool whole = !ferror(to);
        if (fclose(to) || !whole || rename(candidate, path)) problem = errno ? errno : EIO;
    } else {
        problem = errno;
    }
    if (from) fclose(from);
    close(lock);
    return problem;
}
