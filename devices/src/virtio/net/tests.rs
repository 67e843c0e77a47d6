use super::*;
use crate::conformance::{Bench, Socket, conformance};
use crate::pci::{CONFIG_ADDRESS, MEMORY_WINDOW, PciHost};
use crate::virtio::VirtioPci;
use crate::wiring::PCI_INTB;
use gemel_machine::bus::PortWidth;

const BASE: u64 = MEMORY_WINDOW.start;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// Rings of a queue, from here on by queue.
const RING: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x5000;
const QUEUE: u64 = 0x8000;
const DATA: u64 = 0x3_0000;

fn host() -> PciHost {
    let mut host = PciHost::new();
    assert!(host.nic(VirtioPci::new(Net::new(0, MAC))));
    host
}

fn socket() -> Socket {
    let frame = |length| Input::Frame { nic: 0, bytes: (0..length).map(|i| i as u8).collect() };
    Socket {
        ports: vec![(CONFIG_ADDRESS..=CONFIG_ADDRESS + 7, PortWidth::Any)],
        windows: vec![(BASE, 0x40), (BASE + 0x1000, 4), (BASE + 0x2000, 12), (BASE + 0x3000, 8)],
        inputs: vec![frame(60), frame(1514), frame(13), frame(2000)],
        ..Socket::default()
    }
}

/// A bench with a driver that has negotiated with an interface.
struct Driver {
    bench: Bench,
    chains: [u16; 2],
}

impl Driver {
    fn new() -> Self {
        let mut driver = Self { bench: Bench::new(host(), &socket()), chains: [0; 2] };
        driver.bench.bus.port_write(driver.bench.now, 0xcf8, 4, 1 << 31 | 1 << 11 | 4);
        driver.bench.bus.port_write(driver.bench.now, 0xcfc, 4, 6);
        driver.set(8, 4, 1);
        driver.set(12, 4, 1);
        driver.set(20, 1, 0xb);
        for queue in 0..2 {
            let at = RING + QUEUE * queue;
            for (offset, size, value) in
                [(22, 2, queue), (32, 4, at), (40, 4, at + AVAILABLE), (48, 4, at + USED), (28, 2, 1)]
            {
                driver.set(offset, size, value);
            }
        }
        driver.set(20, 1, 0xf);
        driver
    }

    fn set(&mut self, offset: u64, size: u8, value: u64) {
        self.bench.bus.mmio_write(self.bench.now, BASE + offset, size, value);
    }

    fn get(&mut self, offset: u64, size: u8) -> u64 {
        self.bench.bus.mmio_read(self.bench.now, BASE + offset, size)
    }

    /// Makes a chain of buffers available in a queue.
    fn queue(&mut self, queue: usize, buffers: &[(u64, u32)]) -> u32 {
        let at = RING + QUEUE * queue as u64;
        let n = self.chains[queue];
        let (first, flags) = (n * 8 % 256, if queue == RECEIVE { 2u16 } else { 0 });
        for (i, (address, len)) in buffers.iter().enumerate() {
            let index = first + i as u16;
            let more = u16::from(i + 1 < buffers.len());
            let bytes = [
                &address.to_le_bytes()[..],
                &len.to_le_bytes(),
                &(flags | more).to_le_bytes(),
                &(index + 1).to_le_bytes(),
            ];
            self.bench.ram.write(at + 16 * u64::from(index), &bytes.concat()).unwrap();
        }
        let slot = u64::from(n % 256);
        self.bench.ram.write(at + AVAILABLE + 4 + 2 * slot, &first.to_le_bytes()).unwrap();
        self.chains[queue] += 1;
        self.bench.ram.write(at + AVAILABLE + 2, &self.chains[queue].to_le_bytes()).unwrap();
        first.into()
    }

    fn notify(&mut self, queue: usize) -> Vec<Output> {
        self.set(0x3000 + 4 * queue as u64, 2, queue as u64);
        self.bench.outputs()
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.bench.input(Input::Frame { nic: 0, bytes: bytes.to_vec() });
    }

    /// Used entries of a queue: head and length.
    fn used(&self, queue: usize) -> Vec<(u32, u32)> {
        let at = RING + QUEUE * queue as u64 + USED;
        let count = u16::from_le_bytes(self.bench.ram.read_array(at + 2).unwrap());
        let word = |at| u32::from_le_bytes(self.bench.ram.read_array(at).unwrap());
        (0..u64::from(count)).map(|i| (word(at + 4 + 8 * i), word(at + 8 + 8 * i))).collect()
    }
}

fn frame(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i / 3) as u8).collect()
}

#[test]
fn keeps_the_rules_of_saving() {
    conformance(host, &socket());
}

#[test]
fn a_driver_finds_an_ethernet_card_with_its_address_and_a_link() {
    let mut d = Driver::new();
    d.bench.bus.port_write(d.bench.now, 0xcf8, 4, 1 << 31 | 1 << 11);
    assert_eq!(d.bench.bus.port_read(d.bench.now, 0xcfc, 4), 0x1041_1af4);
    assert_eq!((d.get(0x2000, 4), d.get(0x2004, 2), d.get(0x2006, 2)), (0x1200_5452, 0x5634, 1));
    d.set(0, 4, 0);
    assert_eq!(d.get(4, 4) & 0xff_ffff, F_MAC | F_STATUS);
    assert_eq!(d.get(18, 2), 2);
}

#[test]
fn queued_frames_leave_at_the_notification_in_order_without_their_headers() {
    let mut d = Driver::new();
    let long = frame(1514);
    d.bench.ram.write(DATA, &[0xee; 12]).unwrap();
    d.bench.ram.write(DATA + 12, &frame(60)).unwrap();
    d.bench.ram.write(DATA + 0x1000, &long[..1000]).unwrap();
    d.bench.ram.write(DATA + 0x2000, &long[1000..]).unwrap();
    let one = d.queue(TRANSMIT, &[(DATA, 72)]);
    let two = d.queue(TRANSMIT, &[(DATA, 12), (DATA + 0x1000, 1000), (DATA + 0x2000, 514)]);
    assert_eq!(d.bench.outputs(), [], "not before it is told");
    let wanted = [frame(60), long].map(|bytes| Output::Frame { nic: 0, bytes });
    assert_eq!(d.notify(TRANSMIT), wanted);
    assert_eq!(d.used(TRANSMIT), [(one, 0), (two, 0)]);
    assert!(d.bench.wire(PCI_INTB));
    assert_eq!(d.get(0x1000, 1), 1);
    assert!(!d.bench.wire(PCI_INTB));
    assert_eq!(d.notify(TRANSMIT), []);
}

#[test]
fn what_is_no_frame_does_not_leave_and_the_buffer_comes_back() {
    let mut d = Driver::new();
    for length in [0, 11, 12, 25, 1531, u32::MAX] {
        d.queue(TRANSMIT, &[(DATA, length)]);
    }
    assert_eq!(d.notify(TRANSMIT), []);
    assert_eq!(d.used(TRANSMIT).len(), 6);
    d.queue(TRANSMIT, &[(DATA, 26)]);
    d.queue(TRANSMIT, &[(DATA, 1530)]);
    assert_eq!(d.notify(TRANSMIT).len(), 2);
}

#[test]
fn a_frame_that_arrives_is_behind_a_header_in_the_next_buffer() {
    let mut d = Driver::new();
    let one = d.queue(RECEIVE, &[(DATA, 12), (DATA + 0x1000, 1514)]);
    let two = d.queue(RECEIVE, &[(DATA + 0x2000, 1526)]);
    assert_eq!(d.notify(RECEIVE), []);
    d.bench.ram.write(DATA, &[0xee; 12]).unwrap();
    d.arrive(&frame(1514));
    assert!(d.bench.wire(PCI_INTB));
    assert_eq!(d.used(RECEIVE), [(one, 1526)]);
    assert_eq!(d.bench.ram.read_array::<12>(DATA).unwrap(), ONE_BUFFER);
    assert_eq!(d.bench.ram.read_array::<1514>(DATA + 0x1000).unwrap(), frame(1514)[..]);
    d.arrive(&frame(60));
    assert_eq!(d.used(RECEIVE)[1], (two, 72));
    d.arrive(&[7; 60]);
    assert_eq!(d.used(RECEIVE).len(), 2, "nobody has room for the third");
    d.queue(RECEIVE, &[(DATA, 1526)]);
    d.notify(RECEIVE);
    assert_eq!(d.used(RECEIVE).len(), 2, "and it does not come later");
}

#[test]
fn a_frame_that_does_not_fit_is_lost_and_the_buffer_comes_back_empty() {
    let mut d = Driver::new();
    let head = d.queue(RECEIVE, &[(DATA, 100)]);
    d.arrive(&frame(89));
    assert_eq!(d.used(RECEIVE), [(head, 0)]);
    d.queue(RECEIVE, &[(DATA, 1600)]);
    for length in [0, 13, 1519] {
        d.arrive(&frame(length));
    }
    assert_eq!(d.used(RECEIVE).len(), 1, "what is no frame takes no buffer");
}

#[test]
fn nothing_is_received_by_an_interface_without_driver() {
    let mut d = Driver::new();
    d.queue(RECEIVE, &[(DATA, 1526)]);
    d.bench.bus.port_write(d.bench.now, 0xcfc, 4, 2);
    d.arrive(&frame(60));
    assert_eq!(d.used(RECEIVE), [], "it may not write to memory");
    d.bench.bus.port_write(d.bench.now, 0xcfc, 4, 6);
    d.set(20, 1, 0);
    d.arrive(&frame(60));
    assert_eq!((d.used(RECEIVE), d.get(20, 1)), (vec![], 0), "it was reset");
}

#[test]
fn a_used_ring_on_the_available_ring_comes_to_an_end() {
    let mut d = Driver::new();
    d.set(20, 1, 0);
    d.set(8, 4, 1);
    d.set(12, 4, 1);
    d.set(20, 1, 0xb);
    let at = RING + QUEUE;
    for (offset, size, value) in
        [(22, 2, 1), (32, 4, at), (40, 4, at + AVAILABLE), (48, 4, at + AVAILABLE), (28, 2, 1), (20, 1, 0xf)]
    {
        d.set(offset, size, value);
    }
    // The device's used index, 1 after its first push, is the next available index.
    d.queue(TRANSMIT, &[(DATA, 72)]);
    d.bench.ram.write(at + AVAILABLE + 2, &1u16.to_le_bytes()).unwrap();
    assert!(d.notify(TRANSMIT).len() <= 256);
}
