use super::*;
use crate::conformance::Rng;

const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const TABLE: u64 = 0x4000;

fn ram() -> GuestRam {
    GuestRam::new(1 << 20).unwrap()
}

fn queue(size: u16) -> Queue {
    let (descriptors, available, used) = (DESCRIPTORS, AVAILABLE, USED);
    Queue { size, enabled: true, descriptors, available, used, ..Queue::new() }
}

fn descriptor(ram: &GuestRam, table: u64, index: u64, address: u64, len: u32, flags: u16, next: u16) {
    ram.write(table + index * 16, &address.to_le_bytes()).unwrap();
    ram.write(table + index * 16 + 8, &len.to_le_bytes()).unwrap();
    ram.write(table + index * 16 + 12, &flags.to_le_bytes()).unwrap();
    ram.write(table + index * 16 + 14, &next.to_le_bytes()).unwrap();
}

fn make_available(ram: &GuestRam, heads: &[u16]) {
    ram.write(AVAILABLE + 4, &heads.iter().flat_map(|h| h.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    ram.write(AVAILABLE + 2, &(heads.len() as u16).to_le_bytes()).unwrap();
}

fn buffer(address: u64, len: u32) -> Buffer {
    Buffer { address, len }
}

#[test]
fn a_chain_is_what_is_read_then_what_is_written() {
    let (ram, mut q) = (ram(), queue(8));
    assert_eq!(q.pop(&ram), Ok(None));
    descriptor(&ram, DESCRIPTORS, 3, 0x5000, 16, NEXT, 1);
    descriptor(&ram, DESCRIPTORS, 1, 0x6000, 512, NEXT | WRITE, 7);
    descriptor(&ram, DESCRIPTORS, 7, 0x7000, 1, WRITE, 0);
    make_available(&ram, &[3]);
    let chain = q.pop(&ram).unwrap().unwrap();
    assert_eq!((chain.head, chain.readable), (3, vec![buffer(0x5000, 16)]));
    assert_eq!(chain.writable, [buffer(0x6000, 512), buffer(0x7000, 1)]);
    assert_eq!(q.pop(&ram), Ok(None));
    q.push(&ram, 3, 513).unwrap();
    assert_eq!(ram.read_array(USED).unwrap(), [0, 0, 1, 0, 3, 0, 0, 0, 1, 2, 0, 0]);
    assert!(q.interrupt);
}

#[test]
fn an_indirect_table_is_followed_once() {
    let (ram, mut q) = (ram(), queue(4));
    descriptor(&ram, DESCRIPTORS, 0, TABLE, 32, INDIRECT, 0);
    descriptor(&ram, TABLE, 0, 0x5000, 16, NEXT, 1);
    descriptor(&ram, TABLE, 1, 0x6000, 1, WRITE, 0);
    make_available(&ram, &[0, 0]);
    let chain = q.pop(&ram).unwrap().unwrap();
    assert_eq!((chain.readable, chain.writable), (vec![buffer(0x5000, 16)], vec![buffer(0x6000, 1)]));
    descriptor(&ram, TABLE, 1, TABLE, 32, INDIRECT, 0);
    assert_eq!(q.pop(&ram), Err(RingError), "a table in a table");
}

#[test]
fn broken_rings_are_errors() {
    type Break = dyn Fn(&GuestRam);
    let rules: [(&str, &Break); 7] = [
        ("a loop", &|ram| descriptor(ram, DESCRIPTORS, 0, 0x5000, 1, NEXT, 0)),
        ("a next beyond the table", &|ram| descriptor(ram, DESCRIPTORS, 0, 0x5000, 1, NEXT, 4)),
        ("a head beyond the table", &|ram| make_available(ram, &[4])),
        ("an index that jumps", &|ram| ram.write(AVAILABLE + 2, &[5, 0]).unwrap()),
        ("a table of odd size", &|ram| descriptor(ram, DESCRIPTORS, 0, TABLE, 17, INDIRECT, 0)),
        ("an empty table", &|ram| descriptor(ram, DESCRIPTORS, 0, TABLE, 0, INDIRECT, 0)),
        ("a table at the end of the world", &|ram| {
            descriptor(ram, DESCRIPTORS, 0, u64::MAX - 3, 32, INDIRECT, 0)
        }),
    ];
    for (name, rule) in rules {
        let (ram, mut q) = (ram(), queue(4));
        make_available(&ram, &[0]);
        rule(&ram);
        assert_eq!(q.pop(&ram), Err(RingError), "{name}");
    }
    let ram = ram();
    descriptor(&ram, DESCRIPTORS, 0, 0x5000, 1, NEXT | WRITE, 1);
    descriptor(&ram, DESCRIPTORS, 1, 0x5000, 1, 0, 0);
    make_available(&ram, &[0]);
    assert_eq!(queue(4).pop(&ram), Err(RingError), "readable after writable");
    for outside in [0xa_0000, 1 << 20, u64::MAX, u64::MAX - 1] {
        assert_eq!(Queue { available: outside, ..queue(4) }.pop(&ram), Err(RingError));
        assert_eq!(Queue { used: outside, ..queue(4) }.push(&ram, 0, 0), Err(RingError));
    }
}

#[test]
fn indexes_wrap_at_16_bits_and_slots_at_the_size() {
    let (ram, mut q) = (ram(), queue(2));
    descriptor(&ram, DESCRIPTORS, 1, 0x5000, 1, WRITE, 0);
    ram.write(AVAILABLE + 4, &[1, 0, 1, 0]).unwrap();
    for index in 1..=70_000u32 {
        ram.write(AVAILABLE + 2, &(index as u16).to_le_bytes()).unwrap();
        assert_eq!(q.pop(&ram).unwrap().map(|chain| chain.head), Some(1), "{index}");
        q.push(&ram, 1, index).unwrap();
    }
    assert_eq!(ram.read_array(USED + 2).unwrap(), (70_000u32 as u16).to_le_bytes());
}

#[test]
fn the_driver_can_ask_for_silence() {
    let (ram, mut q) = (ram(), queue(4));
    ram.write(AVAILABLE, &NO_INTERRUPT.to_le_bytes()).unwrap();
    q.push(&ram, 0, 0).unwrap();
    assert!(!q.interrupt);
}

#[test]
fn bytes_are_gathered_and_scattered_across_buffers() {
    let ram = ram();
    ram.write(0x5000, b"abcdef").unwrap();
    ram.write(0x6000, b"ghi").unwrap();
    let buffers = [buffer(0x5000, 6), buffer(0x7000, 0), buffer(0x6000, 3)];
    assert_eq!(total(&buffers), 9);
    assert_eq!(gather(&ram, &buffers, 4, 4).unwrap(), b"efgh");
    assert_eq!(gather(&ram, &buffers, 0, 100).unwrap(), b"abcdefghi");
    assert_eq!(gather(&ram, &buffers, 9, 4).unwrap(), b"");
    scatter(&ram, &buffers, 5, b"XYZ and more").unwrap();
    assert_eq!(gather(&ram, &buffers, 0, 9).unwrap(), b"abcdeXYZ ");
    assert!(gather(&ram, &[buffer(u64::MAX, 2)], 1, 1).is_err());
}

/// Whatever a ring holds, a walk ends, and what it finds is bounded by the queue's size.
#[test]
fn random_rings_end() {
    let mut rng = Rng(3);
    let ram = ram();
    let (mut chains, mut errors) = (0, 0);
    for _ in 0..20_000 {
        for i in 0..16 {
            let address = [DESCRIPTORS, TABLE, 0x5000, rng.next()][rng.below(4) as usize];
            let table = if i < 8 { DESCRIPTORS } else { TABLE };
            descriptor(
                &ram,
                table,
                i % 8,
                address,
                rng.below(129) as u32,
                rng.below(8) as u16,
                rng.below(9) as u16,
            );
        }
        make_available(&ram, &[rng.below(9) as u16]);
        match queue(8).pop(&ram) {
            Ok(Some(chain)) => {
                assert!(chain.readable.len() + chain.writable.len() <= 8 + 1);
                chains += 1;
            }
            Ok(None) => unreachable!("one is available"),
            Err(RingError) => errors += 1,
        }
    }
    assert!(chains > 1000 && errors > 1000, "{chains} chains, {errors} errors");
}
