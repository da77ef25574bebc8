/* Runs a program that reaches nobody.
 *
 *   alone silent PROGRAM ...   ends it with SIGSYS when it tries to connect to anybody or to send anybody a
 *                              datagram, which is also how names are looked up: by any library, in any way
 *   alone netns PROGRAM ...    in a network namespace of its own, where there is loopback and no route
 *
 * It exits with 77 where the system does not let it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CANNOT = 77 };

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#endif

static int cannot(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return CANNOT;
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define END BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
/* Ends it if the number that was loaded is this one. */
#define END_IF(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), END

static int silent(void) {
#ifndef THIS_ARCH
    errno = ENOSYS;
    return cannot("this processor");
#else
    struct sock_filter filter[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0),
        END,
        LOAD(nr),
        END_IF(__NR_connect),
        END_IF(__NR_sendmsg),
        END_IF(__NR_sendmmsg),
        /* What a ring of requests does is not seen here. */
        END_IF(__NR_io_uring_setup),
        /* sendto without an address is send. */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_sendto, 0, 4),
        LOAD(args[4]),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
        END,
        ALLOW,
        ALLOW,
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return cannot("seccomp");
    return 0;
#endif
}

static int write_to(const char *path, const char *text) {
    int file = open(path, O_WRONLY);
    if (file < 0) return -1;
    ssize_t written = write(file, text, strlen(text));
    close(file);
    return written == (ssize_t)strlen(text) ? 0 : -1;
}

static int netns(void) {
    char uids[64], gids[64];
    snprintf(uids, sizeof uids, "0 %d 1", (int)getuid());
    snprintf(gids, sizeof gids, "0 %d 1", (int)getgid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return cannot("unshare");
    if (write_to("/proc/self/setgroups", "deny") != 0 || write_to("/proc/self/uid_map", uids) != 0 ||
        write_to("/proc/self/gid_map", gids) != 0)
        return cannot("mapping users");
    int any = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    if (any < 0 || ioctl(any, SIOCSIFFLAGS, &loopback) != 0) return cannot("loopback");
    close(any);
    return 0;
}

int main(int argc, char **argv) {
    int code = 2;
    if (argc > 2 && strcmp(argv[1], "silent") == 0) code = silent();
    else if (argc > 2 && strcmp(argv[1], "netns") == 0) code = netns();
    if (code != 0) return code;
    execvp(argv[2], argv + 2);
    fprintf(stderr, "%s: %s\n", argv[2], strerror(errno));
    return 127;
}
