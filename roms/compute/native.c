/* The same work as a Linux program: native ROUNDS prints its checksum as the kernel does. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t work(uint64_t rounds);

int main(int count, char **arguments)
{
    uint64_t sum = work(count > 1 ? strtoull(arguments[1], NULL, 10) : 20000);
    printf("@OUT compute high %08x\r\n@OUT compute low %08x\r\n", (unsigned)(sum >> 32), (unsigned)sum);
    return 0;
}
