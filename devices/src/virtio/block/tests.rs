use super::*;
use crate::conformance::{Bench, Socket};
use crate::pci::{MEMORY_WINDOW, PciHost};
use crate::virtio::VirtioPci;

const BASE: u64 = MEMORY_WINDOW.start;
const RING: u64 = 0x1_0000;
const AVAILABLE: u64 = RING + 0x4000;
const USED: u64 = RING + 0x5000;
const HEADERS: u64 = 0x2_0000;
const STATUS: u64 = 0x2_8000;
const DATA: u64 = 0x3_0000;

/// A bench with a driver that has negotiated with a disk of 1000 sectors.
struct Driver {
    bench: Bench,
    chains: u16,
}

impl Driver {
    fn new(read_only: bool) -> Self {
        Self::with_disk(Block::new(0, 1000, read_only))
    }

    fn with_disk(disk: Block) -> Self {
        let mut host = PciHost::new();
        assert!(host.disk(VirtioPci::new(disk)));
        let socket = Socket {
            ports: vec![(0xcf8..=0xcff, gemel_machine::bus::PortWidth::Any)],
            windows: vec![(BASE, 0x5000)],
            ..Socket::default()
        };
        let mut bench = Bench::new(host, &socket);
        bench.bus.port_write(bench.now, 0xcf8, 4, 1 << 31 | 1 << 11 | 4);
        bench.bus.port_write(bench.now, 0xcfc, 4, 6);
        for (offset, size, value) in [
            (8, 4, 1),
            (12, 4, 1),
            (20, 1, 0xb),
            (32, 4, RING),
            (40, 4, AVAILABLE),
            (48, 4, USED),
            (28, 2, 1),
            (20, 1, 0xf),
        ] {
            bench.bus.mmio_write(bench.now, BASE + offset, size, value);
        }
        Self { bench, chains: 0 }
    }

    /// Queues a request without telling the device: header, data buffers (writable when `kind` reads), status.
    fn queue(&mut self, kind: u32, sector: u64, data: &[(u64, u32)]) -> u16 {
        let n = self.chains;
        let header_at = HEADERS + 16 * u64::from(n);
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.bench.ram.write(header_at, &header).unwrap();
        self.bench.ram.write(STATUS + u64::from(n), &[0xee]).unwrap();
        let flags = if kind == T_OUT { 1u16 } else { 3 };
        let mut chain = vec![(header_at, 16, 1)];
        chain.extend(data.iter().map(|&(address, len)| (address, len, flags)));
        chain.push((STATUS + u64::from(n), 1, 2));
        let first = n * 8;
        for (i, (address, len, flags)) in chain.into_iter().enumerate() {
            let index = first + i as u16;
            let bytes = [
                &address.to_le_bytes()[..],
                &len.to_le_bytes(),
                &flags.to_le_bytes(),
                &(index + 1).to_le_bytes(),
            ];
            self.bench.ram.write(RING + 16 * u64::from(index), &bytes.concat()).unwrap();
        }
        self.bench.ram.write(AVAILABLE + 4 + 2 * u64::from(n), &first.to_le_bytes()).unwrap();
        self.chains += 1;
        self.bench.ram.write(AVAILABLE + 2, &self.chains.to_le_bytes()).unwrap();
        first
    }

    fn notify(&mut self) -> Vec<DiskRequest> {
        self.bench.bus.mmio_write(self.bench.now, BASE + 0x3000, 2, 0);
        self.requests()
    }

    fn requests(&mut self) -> Vec<DiskRequest> {
        let outputs = self.bench.outputs().into_iter();
        outputs.map(|o| if let Output::Disk(request) = o { request } else { panic!("{o:?}") }).collect()
    }

    fn complete(&mut self, tag: u64, status: DiskStatus, data: Vec<u8>) {
        self.bench.input(Input::DiskDone { disk: 0, tag, status, data });
    }

    fn status(&self, n: u64) -> u8 {
        self.bench.ram.read_array::<1>(STATUS + n).unwrap()[0]
    }

    /// Used entries: head and length.
    fn used(&self) -> Vec<(u32, u32)> {
        let count = u16::from_le_bytes(self.bench.ram.read_array(USED + 2).unwrap());
        let word = |at| u32::from_le_bytes(self.bench.ram.read_array(at).unwrap());
        (0..u64::from(count)).map(|i| (word(USED + 4 + 8 * i), word(USED + 8 + 8 * i))).collect()
    }

    fn in_flight(&self) -> Vec<DiskRequest> {
        let functions = crate::pci::host::saved_functions(&self.bench.section()).unwrap();
        crate::virtio::requests_in_flight(0, &functions[0]).unwrap()
    }
}

#[test]
fn a_read_reaches_memory_only_when_it_completes() {
    let mut d = Driver::new(false);
    let head = d.queue(T_IN, 5, &[(DATA, 512), (DATA + 0x1000, 1024)]);
    let requests = d.notify();
    let wanted = DiskRequest { disk: 0, tag: 0, op: DiskOp::Read { sector: 5, sectors: 3 } };
    assert_eq!(requests, std::slice::from_ref(&wanted));
    assert_eq!((d.status(0), d.used().len(), d.in_flight()), (0xee, 0, vec![wanted]));
    let data: Vec<u8> = (0..1536u32).map(|i| (i / 7) as u8).collect();
    d.complete(0, DiskStatus::Ok, data.clone());
    assert_eq!((d.status(0), d.used()), (S_OK, vec![(head.into(), 1537)]));
    assert_eq!(d.bench.ram.read_array::<512>(DATA).unwrap(), data[..512]);
    assert_eq!(d.bench.ram.read_array::<1024>(DATA + 0x1000).unwrap(), data[512..]);
    assert_eq!(d.in_flight(), []);
}

#[test]
fn a_write_takes_its_data_at_the_request() {
    let mut d = Driver::new(false);
    d.bench.ram.write(DATA, &[1; 512]).unwrap();
    d.bench.ram.write(DATA + 0x1000, &[2; 512]).unwrap();
    d.queue(T_OUT, 998, &[(DATA, 512), (DATA + 0x1000, 512)]);
    let requests = d.notify();
    d.bench.ram.write(DATA, &[9; 512]).unwrap();
    assert_eq!(requests[0].op, DiskOp::Write { sector: 998, data: [[1; 512], [2; 512]].concat() });
    assert_eq!(d.in_flight(), requests, "the saved state has the data too");
    d.complete(0, DiskStatus::Ok, vec![]);
    assert_eq!((d.status(0), d.used()[0].1), (S_OK, 1));
}

#[test]
fn requests_complete_in_any_order() {
    let mut d = Driver::new(false);
    let heads: Vec<u32> = (0..3).map(|i| d.queue(T_IN, i, &[(DATA + 512 * i, 512)]).into()).collect();
    d.queue(T_FLUSH, 0, &[]);
    let requests = d.notify();
    assert_eq!(requests.iter().map(|r| r.tag).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(requests[3].op, DiskOp::Flush);
    d.complete(2, DiskStatus::Ok, vec![2; 512]);
    d.complete(0, DiskStatus::Error, vec![]);
    d.complete(3, DiskStatus::Ok, vec![]);
    d.complete(1, DiskStatus::Ok, vec![1; 511]);
    assert_eq!([d.status(0), d.status(1), d.status(2), d.status(3)], [S_IOERR, S_IOERR, S_OK, S_OK]);
    assert_eq!(d.used()[..2], [(heads[2], 513), (heads[0], 1)]);
    d.complete(2, DiskStatus::Ok, vec![7; 512]);
    assert_eq!(d.used().len(), 4, "a second completion of the same request is nobody's");
}

#[test]
fn what_cannot_be_done_is_refused_at_once() {
    let mut d = Driver::new(false);
    let cases = [
        (T_IN, 1000, 512, S_IOERR),
        (T_IN, 999, 1024, S_IOERR),
        (T_IN, u64::MAX, 512, S_IOERR),
        (T_IN, 0, 511, S_IOERR),
        (T_OUT, 0, 0, S_IOERR),
        (99, 0, 512, S_UNSUPP),
    ];
    for (n, (kind, sector, len, status)) in cases.into_iter().enumerate() {
        d.queue(kind, sector, &[(DATA, len)]);
        assert_eq!(d.notify(), []);
        assert_eq!(d.status(n as u64), status, "{kind} {sector} {len}");
    }
    let mut read_only = Driver::new(true);
    read_only.queue(T_OUT, 0, &[(DATA, 512)]);
    assert_eq!((read_only.notify(), read_only.status(0)), (vec![], S_IOERR));
}

#[test]
fn the_id_is_given_without_the_world() {
    let mut d = Driver::new(false);
    d.queue(T_GET_ID, 0, &[(DATA, 20)]);
    assert_eq!(d.notify(), []);
    assert_eq!((d.status(0), d.used()[0].1), (S_OK, 21));
    assert_eq!(&d.bench.ram.read_array::<13>(DATA).unwrap(), b"gemel-disk-0\0");
}

#[test]
fn configuration_space() {
    let mut d = Driver::new(true);
    let mut word = |offset| d.bench.bus.mmio_read(d.bench.now, BASE + 0x2000 + offset, 4);
    assert_eq!([word(0), word(4), word(8), word(12), word(20)], [1000, 0, 128 << 10, 254, 512]);
    d.bench.bus.mmio_write(d.bench.now, BASE, 4, 0);
    assert_ne!(d.bench.bus.mmio_read(d.bench.now, BASE + 4, 4) & F_RO, 0);
}

#[test]
fn a_chain_without_room_for_a_status_breaks_the_ring() {
    let mut d = Driver::new(false);
    d.queue(T_IN, 0, &[]);
    d.bench.ram.write(RING + 12, &[0, 0]).unwrap(); // the header is the whole chain
    d.notify();
    assert_eq!(d.bench.bus.mmio_read(d.bench.now, BASE + 20, 1) & 0x40, 0x40);
}

#[test]
fn what_is_in_flight_is_bounded() {
    // A large disk: 20 MiB a request, all into the same memory.
    let mut d = Driver::with_disk(Block::new(0, 1 << 20, false));
    for _ in 0..6 {
        d.queue(T_IN, 0, &[(DATA, 5 << 20); 4]);
    }
    assert_eq!(d.notify().len(), 4, "the fifth waits: 80 MiB are in flight");
    d.complete(0, DiskStatus::Error, vec![]);
    assert_eq!(d.requests().len(), 1, "a completion goes on with the queue");
}
