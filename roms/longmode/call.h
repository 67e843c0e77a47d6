/* What ring 3 can ask the kernel for: RAX is the number, RBX the argument; only RAX changes. */
#define CALL_END        0       /* ends ring 3 */
#define CALL_REPORT     1       /* prints EBX */
#define CALL_TICKS      2       /* RAX = ticks of the timer so far */
#define CALL_RESUME     3       /* the next fault goes on at RBX */
#define CALL_NOTHING    4

/* How it asks, chosen by entry=NAME on the command line: an interrupt gate, a fault, or the instruction made for it. A
 * hypervisor may be able to do some of them only. */
#define ENTRY_INT3      0
#define ENTRY_UD2       1
#define ENTRY_PAGE      2
#define ENTRY_INT       3
#define ENTRY_SYSCALL   4

/* Linear addresses that ring 3 has, a page where it touches one */
#define WINDOW          0x10000000000
#define WINDOW_SIZE     0x200000
/* Nothing is here: a load of one byte is a call where ENTRY_PAGE is chosen */
#define CALL_GATE       0x20000000000
