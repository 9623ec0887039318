// Preloaded into every program of a simulated machine: `uname` tells the release that its boot
// program chose. Containers share a kernel, whose release would otherwise show.
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

static const char FILE_NAME[] = "/run/rackhand-simulator/kernel-release";
static char release[sizeof(((struct utsname *)0)->release)];

// Once, before the program confines itself: a filter may forbid to open files later.
__attribute__((constructor)) static void read_release(void) {
    int file = open(FILE_NAME, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    ssize_t length = read(file, release, sizeof release - 1);
    close(file);
    release[length > 0 ? length : 0] = '\0';
    release[strcspn(release, "\n")] = '\0';
}

__attribute__((visibility("default"))) int uname(struct utsname *names) {
    int result = (int)syscall(SYS_uname, names);
    if (result == 0 && release[0] == '\0' && getpid() == 1)
        read_release();  // systemd started before the boot program; units ask it for %v
    if (result == 0 && release[0] != '\0')
        strcpy(names->release, release);
    return result;
}
