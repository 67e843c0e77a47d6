/* Where the chips of the board are: devices/MOTHERBOARD.txt. */
#ifndef GEMEL_ROMS_BOARD
#define GEMEL_ROMS_BOARD

/* 8259 pair: command and data ports; ICW1 edge triggered with ICW4, ICW4 8086 mode (8259A datasheet, figure 7) */
#define PIC1_COMMAND    0x20
#define PIC1_DATA       0x21
#define PIC2_COMMAND    0xa0
#define PIC2_DATA       0xa1
#define ICW1_INIT       0x11
#define ICW4_8086       0x01
#define OCW2_EOI        0x20

/* 8254: counter 0 is IRQ 0; 1,193,182 ticks a second; control word: counter 0, both bytes, mode 2 */
#define PIT_COUNTER0    0x40
#define PIT_CONTROL     0x43
#define PIT_RATE        0x34
#define PIT_1KHZ        1193

/* The first 16550A */
#define COM1            0x3f8
#define COM1_IER        0x3f9
#define COM1_FCR        0x3fa
#define COM1_LCR        0x3fb
#define COM1_MCR        0x3fc
#define COM1_LSR        0x3fd
#define COM1_SCRATCH    0x3ff
#define LCR_8N1         0x03
#define LCR_DLAB        0x80
#define FCR_ENABLE      0x07
#define IER_RECEIVED    0x01
#define MCR_CONNECTED   0x0b    /* DTR, RTS, and OUT2, which lets interrupts through */
#define LSR_RECEIVED    0x01
#define LSR_EMPTY       0x20

#define CMOS_INDEX      0x70
#define CMOS_DATA       0x71
#define DEBUG_CONSOLE   0xe9
#define DEBUG_EXIT      0xf4
#define PCI_ADDRESS     0xcf8
#define PCI_DATA        0xcfc
#define PCI_ENABLE      0x80000000

/* Local APIC registers (SDM 3A, table 12-1) and I/O APIC (82093AA datasheet 3.0); IRQ 0 is input 2, the others have their own numbers */
#define LAPIC           0xfee00000
#define LAPIC_EOI       0x0b0
#define LAPIC_SPURIOUS  0x0f0
#define LAPIC_TIMER     0x320
#define LAPIC_LINT0     0x350
#define LAPIC_INITIAL   0x380
#define LAPIC_CURRENT   0x390
#define LAPIC_DIVIDE    0x3e0
#define LAPIC_ENABLED   0x100
#define LVT_MASKED      0x10000
#define LVT_PERIODIC    0x20000
#define IOAPIC          0xfec00000
#define IOAPIC_SELECT   0x00
#define IOAPIC_WINDOW   0x10
#define IOAPIC_TIMER    2
#define IOAPIC_SERIAL   4

#endif
