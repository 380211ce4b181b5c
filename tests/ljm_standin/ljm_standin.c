/* A stand-in for LabJack's library LJM, for tests only: the few functions that collectors/transports/ljm.py calls
 * through the wrapper labjack-ljm, forwarded by Modbus TCP to the T7 fake. It is written from the wrapper's calls and
 * the docs/protocols/labjack_t7.md; it is not the vendor's code and proves nothing about it.
 *
 * Where the fake is: $LJM_STANDIN_PORT (Modbus) and $LJM_STANDIN_STREAM_PORT (stream packets), on 127.0.0.1.
 * $LJM_STANDIN_OPEN_ERROR: LJM_OpenS fails with this code.
 *
 *     cc -shared -fPIC -o libLabJackM.so ljm_standin.c
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    NO_ERROR = 0, MODBUS_ERROR = 1200, NOT_OPEN = 1224, NOT_FOUND = 1227, NO_RESPONSE = 1263,
    NOT_RUNNING = 1303, NO_SCANS = 1309, STREAM_IS_ACTIVE = 2605, DEVICE_ERRORS = 2000
};
enum { ENABLE = 4990, ACTUAL_RATE = 4494, LAST_ERR_DETAIL = 55000, RECOVERED = 2941, MOST_SAMPLES = 512 };
#define LOST -9999.0
#define HANDLE 1

static int control = -1, packets = -1, channels, scans_per_read, is_binary;
static uint16_t transaction;
static double *scans;          /* what came from the device and was not read yet, MOST_SCANS scans at most */
static int waiting;            /* scans in it */
#define MOST_SCANS 400000

static int connect_to(const char *variable)
{
    const char *port = getenv(variable);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 2};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_port = htons(port ? atoi(port) : 0);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(s, (struct sockaddr *)&to, sizeof to) == 0)
        return s;
    close(s);
    return -1;
}

static int receive(int s, unsigned char *to, int count)
{
    for (int got, at = 0; at < count; at += got)
        if ((got = recv(s, to + at, count - at, 0)) <= 0)
            return NO_RESPONSE;
    return NO_ERROR;
}

static int get16(const unsigned char *p) { return p[0] << 8 | p[1]; }
static void put16(unsigned char *p, int value) { p[0] = value >> 8; p[1] = value; }

/* One request, one answer: `size` bytes of body after the function code go out, `answer` (262 bytes) takes what returns. */
static int converse(int function, const unsigned char *body, int size, unsigned char *answer)
{
    unsigned char frame[262] = {0};
    if (control < 0)
        return NOT_OPEN;
    put16(frame, ++transaction);
    put16(frame + 4, size + 2);
    frame[6] = 1;
    frame[7] = function;
    memcpy(frame + 8, body, size);
    send(control, frame, size + 8, MSG_NOSIGNAL);
    if (receive(control, answer, 6) || receive(control, answer + 6, get16(answer + 4)))
        return NO_RESPONSE;
    return answer[7] & 0x80 ? MODBUS_ERROR + answer[8] : NO_ERROR;
}

int LJM_eReadAddressByteArray(int handle, int address, int count, unsigned char *bytes, int *error_address)
{
    unsigned char body[4], answer[262];
    put16(body, address);
    put16(body + 2, count / 2);
    *error_address = address;
    int error = handle == HANDLE ? converse(3, body, 4, answer) : NOT_OPEN;
    if (!error)
        memcpy(bytes, answer + 9, count);
    return error;
}

int LJM_eWriteAddressByteArray(int handle, int address, int count, unsigned char *bytes, int *error_address)
{
    unsigned char body[262], answer[262];
    put16(body, address);
    put16(body + 2, count / 2);
    body[4] = count;
    memcpy(body + 5, bytes, count);
    *error_address = address;
    return handle == HANDLE ? converse(16, body, count + 5, answer) : NOT_OPEN;
}

static int write32(int address, uint32_t value)
{
    unsigned char bytes[4];
    int where;
    put16(bytes, value >> 16);
    put16(bytes + 2, value);
    return LJM_eWriteAddressByteArray(HANDLE, address, 4, bytes, &where);
}

int LJM_OpenS(const char *device, const char *connection, const char *identifier, int *handle)
{
    const char *failure = getenv("LJM_STANDIN_OPEN_ERROR");
    (void)device, (void)connection, (void)identifier;
    if (failure)
        return atoi(failure);
    control = connect_to("LJM_STANDIN_PORT");
    *handle = HANDLE;
    return control < 0 ? NOT_FOUND : NO_ERROR;
}

int LJM_Close(int handle)
{
    if (handle != HANDLE || control < 0)
        return NOT_OPEN;
    close(control);
    if (packets >= 0)
        close(packets);
    control = packets = -1;
    return NO_ERROR;
}

int LJM_WriteLibraryConfigS(const char *name, double value)
{
    if (!strcmp(name, "LJM_STREAM_AIN_BINARY"))
        is_binary = value != 0;
    return NO_ERROR;
}

int LJM_ErrorToString(int code, char *text)
{
    return sprintf(text, "STAND_IN_%d", code), NO_ERROR;
}

int LJM_eStreamStop(int handle)
{
    if (handle != HANDLE || packets < 0)
        return NOT_RUNNING;
    close(packets);
    packets = -1;
    return write32(ENABLE, 0);
}

int LJM_eStreamStart(int handle, int per_read, int count, const int *inputs, double *rate)
{
    float wanted = *rate, actual;
    uint32_t bits;
    unsigned char bytes[4];
    int error, where, per_packet = (int)(wanted / 20) + 1;
    if (handle != HANDLE)
        return NOT_OPEN;
    if (packets >= 0)
        return STREAM_IS_ACTIVE;
    if (!is_binary)
        return NOT_RUNNING; /* this stand-in only streams raw codes */
    channels = count, scans_per_read = per_read, waiting = 0;
    if (per_packet > MOST_SAMPLES / count)
        per_packet = MOST_SAMPLES / count;
    memcpy(&bits, &wanted, 4);
    if ((error = write32(4002, bits)) || (error = write32(4004, count)) || (error = write32(4006, per_packet * count))
        || (error = write32(4016, 1)) || (error = write32(4020, 0)))
        return error;
    for (int i = 0; i < count; i++)
        if ((error = write32(4100 + 2 * i, inputs[i])))
            return error;
    scans = realloc(scans, sizeof *scans * count * MOST_SCANS);
    if ((packets = connect_to("LJM_STANDIN_STREAM_PORT")) < 0)
        return NOT_FOUND;
    if ((error = write32(ENABLE, 1)) || (error = LJM_eReadAddressByteArray(HANDLE, ACTUAL_RATE, 4, bytes, &where)))
        return error;
    bits = (uint32_t)get16(bytes) << 16 | get16(bytes + 2);
    memcpy(&actual, &bits, 4);
    *rate = actual;
    return NO_ERROR;
}

/* Take one packet: its scans, with -9999 for each scan that was lost before the mark. */
static int take_packet(void)
{
    static unsigned char packet[70000];
    int error = receive(packets, packet, 6);
    if (error || (error = receive(packets, packet + 6, get16(packet + 4))))
        return NO_SCANS;
    int status = get16(packet + 12), lost = get16(packet + 14), samples = (get16(packet + 4) - 10) / 2;
    if (status > RECOVERED)
        return status;
    for (int at = 0; at < samples; at += channels) {
        int is_mark = status == RECOVERED && get16(packet + 16 + 2 * at) == 0xFFFF;
        for (int n = is_mark ? lost : 1; n; n--, waiting++)
            for (int c = 0; c < channels; c++)
                scans[waiting * channels + c] = is_mark ? LOST : get16(packet + 16 + 2 * (at + c));
    }
    return NO_ERROR;
}

int LJM_eStreamRead(int handle, double *data, int *device_backlog, int *library_backlog)
{
    int error;
    if (handle != HANDLE || packets < 0)
        return NOT_RUNNING;
    while (waiting < scans_per_read)
        if ((error = take_packet()))
            return error;
    memcpy(data, scans, sizeof *data * scans_per_read * channels);
    waiting -= scans_per_read;
    memmove(scans, scans + scans_per_read * channels, sizeof *scans * waiting * channels);
    *device_backlog = 0;
    *library_backlog = waiting;
    return NO_ERROR;
}
