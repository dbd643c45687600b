/* Records every name that a process looks up and every address that it connects or sends to.
 *
 * Loaded with LD_PRELOAD into every process of the demo, it sits below Python and below gRPC's own
 * C core, both of which call libc. Each call is one line in the file that NETWATCH_LOG names:
 *
 *     <pid> lookup <name>          getaddrinfo, gethostbyname
 *     <pid> connect <address>      connect, sendto: "inet 127.0.0.1:443", "inet6 ::1:443", "unix"
 *
 * It forbids nothing: the test reads the file.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void record(const char *what, const char *detail)
{
    const char *path = getenv("NETWATCH_LOG");
    char line[512];
    int length, handle;

    if (!path)
        return;
    length = snprintf(line, sizeof line, "%d %s %.400s\n", (int)getpid(), what, detail);
    handle = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (handle < 0)
        return;
    if (write(handle, line, (size_t)length) != length)
        abort(); /* a lost line would be a silent pass */
    close(handle);
}

static void record_address(const struct sockaddr *address)
{
    char text[INET6_ADDRSTRLEN] = "", detail[INET6_ADDRSTRLEN + 32];

    if (!address)
        return;
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
        snprintf(detail, sizeof detail, "inet %s:%d", text, ntohs(v4->sin_port));
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
        snprintf(detail, sizeof detail, "inet6 %s:%d", text, ntohs(v6->sin6_port));
    } else if (address->sa_family == AF_UNIX) {
        snprintf(detail, sizeof detail, "unix");
    } else {
        snprintf(detail, sizeof detail, "family-%d", address->sa_family);
    }
    record("connect", detail);
}

int connect(int handle, const struct sockaddr *address, socklen_t length)
{
    static int (*real)(int, const struct sockaddr *, socklen_t);

    if (!real)
        real = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect");
    record_address(address);
    return real(handle, address, length);
}

ssize_t sendto(int handle, const void *data, size_t size, int flags,
               const struct sockaddr *address, socklen_t length)
{
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);

    if (!real)
        real = (ssize_t (*)(int, const void *, size_t, int, const struct sockaddr *,
                            socklen_t))dlsym(RTLD_NEXT, "sendto");
    if (address && address->sa_family != AF_NETLINK)
        record_address(address);
    return real(handle, data, size, flags, address, length);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **result)
{
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

    if (!real)
        real = (int (*)(const char *, const char *, const struct addrinfo *,
                        struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    if (name)
        record("lookup", name);
    return real(name, service, hints, result);
}

struct hostent *gethostbyname(const char *name)
{
    static struct hostent *(*real)(const char *);

    if (!real)
        real = (struct hostent * (*)(const char *)) dlsym(RTLD_NEXT, "gethostbyname");
    record("lookup", name);
    return real(name);
}
