//! A virtio driver that gets most of it right (Virtio 1.2, 2.7 and 4.1): rings that work, with chains that loop, end nowhere, or have
//! lengths that nobody has.
//!
//! Not responsible for: accesses without any plan (`script`).

use super::Bench;
use super::script::target;
use super::socket::NIC_SLOT;
use crate::rng::Rng;
use gemel_devices::pci;

/// Where a driver that means well puts what, from a slot's memory on.
const TABLE: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const HEADERS: u64 = 0x3000;
const INDIRECT: u64 = 0x4000;

/// The memory of a slot's driver.
fn memory(slot: u8) -> u64 {
    0x1_0000 * u64::from(slot)
}

fn config(bench: &mut Bench, slot: u8, register: u32) -> u32 {
    bench.bus.port_write(bench.now, pci::CONFIG_ADDRESS, 4, 1 << 31 | u32::from(slot) << 11 | register);
    bench.bus.port_read(bench.now, pci::CONFIG_ADDRESS + 4, 4)
}

fn set_config(bench: &mut Bench, slot: u8, register: u32, value: u32) {
    bench.bus.port_write(bench.now, pci::CONFIG_ADDRESS, 4, 1 << 31 | u32::from(slot) << 11 | register);
    bench.bus.port_write(bench.now, pci::CONFIG_ADDRESS + 4, 4, value);
}

/// Where BAR 0 is.
fn base(bench: &mut Bench, slot: u8) -> u64 {
    u64::from(config(bench, slot, 0x10) & !15)
}

/// An access to a register of the common configuration, or to configuration space.
pub fn registers(rng: &Rng, bench: &mut Bench, slot: u8) -> u64 {
    if rng.once_in(4) {
        let register = rng.below(0x100) as u32 & !3;
        // Mostly kept in place: a BAR that moved away hides the device.
        if register != 0x10 && register != 4 || rng.once_in(8) {
            set_config(bench, slot, register, rng.value() as u32);
        }
        return config(bench, slot, register).into();
    }
    let offset = rng.pick(&[
        0, 4, 8, 12, 16, 18, 20, 21, 22, 24, 26, 28, 30, 32, 36, 40, 44, 48, 52, 0x1000, 0x2000, 0x3000,
    ]);
    let address = base(bench, slot) + offset;
    let size = rng.pick(&[1, 2, 4, 8]);
    if rng.once_in(2) {
        return bench.bus.mmio_read(bench.now, address, size);
    }
    bench.bus.mmio_write(bench.now, address, size, rng.value());
    0
}

/// The way to DRIVER_OK (3.1.1), now and then with something else in it.
pub fn bring_up(rng: &Rng, bench: &mut Bench, slot: u8) -> u64 {
    set_config(bench, slot, 4, if rng.once_in(16) { rng.next() as u32 } else { 6 });
    if rng.once_in(4) {
        // MSI-X: an entry of the table in BAR 1, and the enable bit in its capability.
        let table = u64::from(config(bench, slot, 0x14) & !15);
        for (word, value) in [(0, 0xfee0_0000), (1, 0), (2, rng.below(256)), (3, rng.below(2))] {
            bench.bus.mmio_write(bench.now, table + 16 * rng.below(2) + 4 * word, 4, value);
        }
        let mut capability = config(bench, slot, 0x34) & 0xfc;
        for _ in 0..16 {
            let head = config(bench, slot, capability);
            if head & 0xff == 0x11 {
                set_config(bench, slot, capability, head | rng.pick(&[0x8000_0000, 0xc000_0000]));
            }
            capability = head >> 8 & 0xfc;
        }
    }
    let base = base(bench, slot);
    // New rings are empty.
    let _ = bench.ram.write(memory(slot) + AVAILABLE, &[0; 4]);
    let _ = bench.ram.write(memory(slot) + USED, &[0; 4]);
    let mut set = |offset: u64, size: u8, value: u64| {
        let value = if rng.once_in(200) { rng.value() } else { value };
        bench.bus.mmio_write(bench.now, base + offset, size, value);
    };
    for status in [0, 1, 3] {
        set(20, 1, status);
    }
    set(8, 4, 0);
    set(12, 4, rng.pick(&[0, 1 << 28, 1 << 28, 1 << 28 | rng.next() & 0x3ff]));
    set(8, 4, 1);
    set(12, 4, 1);
    set(20, 1, 0xb);
    // A network interface has two queues; here they work on the same rings.
    let queues: &[u64] = if slot == NIC_SLOT { &[1, 0] } else { &[0] };
    for queue in queues.iter().copied() {
        set(22, 2, queue);
        set(24, 2, rng.pick(&[64, 128, 256, 256, 1, 2, 16]));
        set(26, 2, rng.pick(&[0, 1, 0xffff]));
        for (offset, place) in [(32, TABLE), (40, AVAILABLE), (48, USED)] {
            let place = if rng.once_in(32) { target(rng) & !15 } else { memory(slot) + place };
            set(offset, 4, place & 0xffff_ffff);
            set(offset + 4, 4, place >> 32);
        }
        set(28, 2, 1);
    }
    set(20, 1, 0xf);
    bench.bus.mmio_read(bench.now, base + 20, 1)
}

fn put(bench: &Bench, address: u64, bytes: &[u8]) {
    // What lies outside RAM is lost.
    let _ = bench.ram.write(address, bytes);
}

fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> Vec<u8> {
    [&address.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
}

/// Chains into the table, heads into the available ring, and a notification.
pub fn chains(rng: &Rng, bench: &mut Bench, slot: u8) -> u64 {
    let (base, available) = (base(bench, slot), memory(slot) + AVAILABLE);
    if bench.bus.mmio_read(bench.now, base + 20, 1) & 0xff != 0xf && !rng.once_in(8) {
        // A device that gave up, or was told nonsense in the meantime.
        return bring_up(rng, bench, slot);
    }
    bench.bus.mmio_write(bench.now, base + 22, 2, 0);
    let size = bench.bus.mmio_read(bench.now, base + 24, 2).max(1);
    let mut index = u64::from(u16::from_le_bytes(bench.ram.read_array(available + 2).unwrap_or_default()));
    for _ in 0..1 + rng.below(3) {
        // Chains that seldom run into each other.
        let head = if rng.once_in(8) { rng.below(size) } else { 8 * rng.below(size / 8) };
        if rng.once_in(6) {
            garbage(rng, bench, memory(slot), size);
        } else {
            request(rng, bench, memory(slot), head, size);
        }
        put(bench, available + 4 + 2 * (index % size), &(head as u16).to_le_bytes());
        index += 1;
    }
    if rng.once_in(16) {
        index = rng.next();
    }
    put(bench, available, &(rng.below(2) as u16).to_le_bytes());
    put(bench, available + 2, &(index as u16).to_le_bytes());
    let second = rng.once_in(if slot == NIC_SLOT { 2 } else { 16 });
    bench.bus.mmio_write(bench.now, base + 0x3000 + 4 * u64::from(second), 2, 0);
    u64::from(bench.bus.interrupt_pending())
}

/// A request of the block device (5.2.6): header, data, status; some of it wrong.
fn request(rng: &Rng, bench: &Bench, memory: u64, head: u64, size: u64) {
    let kind = rng.pick(&[0, 0, 1, 1, 4, 8, 11, 13, rng.next() as u32]);
    let sector = if rng.once_in(8) { rng.value() } else { rng.below(70) };
    let header = memory + HEADERS + 32 * rng.below(16);
    put(bench, header, &[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat());
    let length =
        rng.pick(&[512, 512, 512, 1024, 4096, 512, 1, 0, 513, 0x1_0000, u32::MAX, rng.value() as u32]);
    let to_device = if kind == 1 { 1 } else { 3 };
    let mut chain = vec![(header, if rng.once_in(8) { rng.pick(&[15, 0, 64]) } else { 16 }, 1)];
    for _ in 0..rng.pick(&[1, 1, 1, 0, 2, 5]) {
        chain.push((target(rng), length, to_device));
    }
    chain.push((target(rng), if rng.once_in(8) { rng.pick(&[0, 512]) } else { 1 }, 2));
    let indirect = rng.once_in(4);
    let table = if indirect { memory + INDIRECT + 0x100 * rng.below(8) } else { memory + TABLE };
    let mut at = if indirect { 0 } else { head };
    let length = chain.len() as u32;
    for (place, len, flags) in chain {
        let next = if rng.once_in(60) { rng.next() } else { (at + 1) % if indirect { 64 } else { size } };
        let flags = if rng.once_in(60) { rng.next() as u16 & 7 } else { flags };
        put(bench, table + 16 * at, &descriptor(place, len, flags, next as u16));
        at = next & 0xff;
    }
    if indirect {
        let bytes = rng.pick(&[16 * length, 16 * length, 16 * length + 1, 0, u32::MAX]);
        put(bench, memory + TABLE + 16 * head, &descriptor(table, bytes, 4, 0));
    }
}

/// Descriptors of anything.
fn garbage(rng: &Rng, bench: &Bench, memory: u64, size: u64) {
    for _ in 0..1 + rng.below(6) {
        let len = rng.pick(&[0, 1, 512, u32::MAX, rng.value() as u32]);
        let next = if rng.once_in(4) { rng.next() } else { rng.below(size) };
        put(
            bench,
            memory + TABLE + 16 * rng.below(size),
            &descriptor(target(rng), len, rng.next() as u16 & 7, next as u16),
        );
    }
}
