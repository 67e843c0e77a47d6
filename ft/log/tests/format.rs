//! The format stays as it is (golden file), and nothing that happens to a log's bytes goes unnoticed.

#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line

use gemel_log::{
    Body, ClockKind, Damage, EndReason, Entry, FORMAT, Header, Item, LogError, LogReader, LogWriter,
    MAX_ENTRY, OutputSummary, ReadPolicy, data_check,
};
use gemel_machine::bus::PowerEvent;
use gemel_machine::{
    At, BootSpec, Digest, DiskSpec, DiskStatus, Input, MachineSpec, NicSpec, Pause, Position, Reckoning,
    TimeBase, VirtTime,
};

fn header() -> Header {
    let machine = MachineSpec {
        board: 1,
        ram: 64 << 20,
        cpu: "x86-64-v2".into(),
        reckoning: Reckoning::Instructions(TimeBase { num: 4, den: 1 }),
        rtc_base: 1_700_000_000,
        seed: 7,
        disks: vec![DiskSpec { sectors: 2048, read_only: false, digest: 5 }],
        nics: vec![NicSpec { mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56] }],
        boot: BootSpec { kernel: 1, initrd: 2, append: "console=ttyS0".into(), reboots: true },
    };
    let mut header = Header::new(machine, ClockKind::Paced);
    header.reads = vec![ReadPolicy::FromImage];
    header.images.kernel = Some("vmlinuz".into());
    header.creator = "gemel golden".into();
    header
}

fn at(count: u64, rip: u64, rcx: u64, time: u64) -> At {
    At { position: Position { count, rip, rcx }, time: VirtTime(time) }
}

/// The same machine, counting exits.
fn sampled_header() -> Header {
    let mut header = header();
    header.machine.reckoning = Reckoning::Exits;
    header.epoch = 4096;
    header
}

fn input(input: Input) -> Body {
    Body::Input { input, number: None }
}

/// One entry of each kind, with times that follow from the count and times that do not.
fn entries() -> Vec<Entry> {
    let digest = Digest { cpu: 0x1111, devices: 0x2222, ram: 0x3333 };
    let rip = 0xffff_ffff_8100_1234;
    let serial = Input::Serial { port: 0, bytes: b"ls\r".to_vec() };
    let done = Input::DiskDone { disk: 0, tag: 300, status: DiskStatus::Ok, data: vec![0xab; 512] };
    let frame = Input::Frame { nic: 0, bytes: [[0xff; 6], [0x52, 0x54, 0, 0x12, 0x34, 0x57]].concat() };
    let re_read = Body::ReRead {
        disk: 0,
        tag: 301,
        status: DiskStatus::Error,
        length: 512,
        check: data_check(b"sector"),
    };
    let outputs = OutputSummary { count: 77, hash: 0x4444 };
    let reason = EndReason::Guest(Pause::Power(PowerEvent::DebugExit(0x31)));
    [
        (at(1000, 0x7c00, 3, 4000), input(serial.clone())),
        (at(1000, 0x7c00, 3, 9000), Body::Input { input: serial, number: Some(129) }),
        (at(1000, 0x7c00, 3, 9000), input(Input::Key(vec![0xf0, 0x1c]))),
        (at(2000, rip, u64::MAX, 13_000), input(Input::Mouse { dx: -300, dy: 2, buttons: 1 })),
        (at(2001, rip + 2, 0, 13_004), input(done)),
        (at(2002, rip, 0, 13_008), re_read),
        (at(2002, rip, 0, 13_008), input(Input::PowerButton)),
        (at(2010, rip, 0, 13_040), Body::Answer(0x0123_4567_89ab_cdef)),
        (at(2011, rip, 0, 13_044), Body::Input { input: frame, number: Some(7) }),
        (at(2011, rip, 0, 13_044), input(Input::Media { disk: 0, sectors: 4096 })),
        (at(2012, rip, 0, 13_048), input(Input::Reset)),
        (at(2013, rip, 0, 13_052), input(Input::PowerOff)),
        (at(1 << 24, rip, 0, 99_000_000), Body::Digest(digest)),
        (at((1 << 24) + 5, rip, 0, 99_000_020), Body::End { reason, digest, outputs }),
    ]
    .map(|(at, body)| Entry { at, body })
    .to_vec()
}

/// The way of a machine that counts exits: it asks for the time, is stopped at an exit, and where it computes.
fn sampled_entries() -> Vec<Entry> {
    let (clock, port) = (0xffff_ffff_8101_0f35, 0xffff_ffff_8140_0720);
    let digest = Digest { cpu: 0x1111, devices: 0x2222, ram: 0x3333 };
    let outputs = OutputSummary { count: 2, hash: 0x4444 };
    [
        (at(0, port, 0, 1500), Body::Time),
        (at(1, port, 0, 2600), Body::Time),
        (at(2, clock, 0, 2700), Body::Time),
        (at(2, port, 0, 19_000), Body::Time),
        (at(3, port + 1, 7, 19_000), Body::Wake(VirtTime(1_000_250))),
        (at(3, clock, 0, 1_000_300), Body::Time),
        (at(3, 0x40_1000, 9, 1_000_300), Body::Landing { digest, linear: 0x40_1000, within: 2_000_000 }),
        (at(3, 0x40_1000, 9, 1_000_300), Body::Wake(VirtTime(2_000_250))),
        (at(3, 0x40_1000, 9, 2_000_250), input(Input::Key(vec![0x1c]))),
        (at(5, port, 0, 9_000_000), Body::Time),
        (at(4096, port + 1, 0, 9_000_000), Body::Digest(digest)),
        (at(4097, port + 1, 0, 9_100_000), Body::End { reason: EndReason::Stopped, digest, outputs }),
    ]
    .map(|(at, body)| Entry { at, body })
    .to_vec()
}

/// Both kinds of log.
fn both() -> [(Header, Vec<Entry>); 2] {
    [(header(), entries()), (sampled_header(), sampled_entries())]
}

fn written(header: &Header, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = LogWriter::new(&mut out, header).unwrap();
    entries.iter().for_each(|e| writer.append(e).unwrap());
    assert_eq!(writer.entries(), entries.len() as u64);
    let total = writer.counts().total();
    drop(writer);
    assert_eq!(out.len() as u64, total);
    out
}

/// The entries up to whatever stops the reader, and that.
fn read(bytes: &[u8]) -> (Vec<Entry>, Result<Item, LogError>) {
    let mut out = Vec::new();
    let mut reader = match LogReader::new(bytes) {
        Ok(reader) => reader,
        Err(e) => return (out, Err(e)),
    };
    loop {
        match reader.next_item() {
            Ok(Item::Entry(entry)) => out.push(entry),
            end => return (out, end),
        }
    }
}

/// Where each entry's frame begins, then the end.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut reader = LogReader::new(bytes).unwrap();
    let mut out = vec![reader.offset() as usize];
    while let Item::Entry(_) = reader.next_item().unwrap() {
        out.push(reader.offset() as usize);
    }
    out
}

#[test]
fn the_format_is_what_it_was() {
    for (name, (header, entries)) in ["", "-exits"].into_iter().zip(both()) {
        let bytes = written(&header, &entries);
        let mut pieces = vec![0];
        pieces.extend(boundaries(&bytes));
        let hex = |piece: &[u8]| piece.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
        let text: String = pieces.windows(2).map(|w| hex(&bytes[w[0]..w[1]])).collect();
        let path = format!("{}/tests/golden/format-{FORMAT}{name}.hex", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "any change here is a new FORMAT");
        let (back, end) = read(&bytes);
        assert_eq!(back, entries);
        assert_eq!(end.unwrap(), Item::Complete);
        assert_eq!(LogReader::new(bytes.as_slice()).unwrap().header(), &header);
    }
}

#[test]
fn the_examples_of_the_documentation_are_right() {
    let text =
        std::fs::read_to_string(format!("{}/../../docs/log-format.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("    ")).filter_map(|line| line.split_once(';'));
    let bytes: Vec<u8> = lines
        .flat_map(|(hex, _)| hex.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()))
        .collect();
    let frames = |(header, entries): &(Header, Vec<Entry>)| {
        let log = written(header, entries);
        let starts = boundaries(&log);
        log[starts[0]..starts[2]].to_vec()
    };
    assert_eq!(bytes, both().iter().flat_map(frames).collect::<Vec<u8>>());
}

#[test]
fn a_log_cut_at_any_byte_gives_its_whole_entries_and_says_so() {
    for (header, entries) in both() {
        let bytes = written(&header, &entries);
        let starts = boundaries(&bytes);
        for cut in 0..bytes.len() {
            let (back, end) = read(&bytes[..cut]);
            let whole = starts[1..].iter().filter(|end| **end <= cut).count();
            assert_eq!(back, entries[..whole], "cut at {cut}");
            match end {
                Ok(Item::Cut { entries, offset, leftover }) => {
                    assert_eq!((entries, offset), (whole as u64, starts[whole] as u64));
                    assert_eq!(offset + leftover, cut as u64);
                }
                Err(LogError::NotALog) => assert_eq!(cut, 0),
                Err(LogError::HeaderCut) => assert!(cut < starts[0]),
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused_at_its_entry() {
    for (header, entries) in both() {
        let bytes = written(&header, &entries);
        let starts = boundaries(&bytes);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (back, end) = read(&damaged);
            let hit = starts.iter().filter(|start| **start <= bit / 8).count();
            match end {
                Err(LogError::Damaged { entry, offset, .. }) => {
                    assert_eq!((entry, offset), (hit as u64 - 1, starts[hit - 1] as u64), "bit {bit}");
                    assert_eq!(back, entries[..hit - 1]);
                }
                Err(
                    LogError::NotALog
                    | LogError::Version { .. }
                    | LogError::HeaderCut
                    | LogError::HeaderDamaged,
                ) => {
                    assert_eq!(hit, 0, "bit {bit}");
                }
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }
}

#[test]
fn entries_removed_repeated_moved_or_from_another_log_are_refused() {
    let bytes = written(&header(), &entries());
    let starts = boundaries(&bytes);
    let frame = |i: usize| &bytes[starts[i]..starts[i + 1]];
    let with = |order: &[usize]| {
        let mut out = bytes[..starts[0]].to_vec();
        order.iter().for_each(|i| out.extend_from_slice(frame(*i)));
        out
    };
    let damaged_at = |bytes: &[u8], wanted: u64| {
        let (_, end) = read(bytes);
        let right =
            matches!(end, Err(LogError::Damaged { entry, damage: Damage::Checksum, .. }) if entry == wanted);
        assert!(right, "{end:?}");
    };
    damaged_at(&with(&[0, 1, 3]), 2);
    damaged_at(&with(&[0, 1, 1]), 2);
    damaged_at(&with(&[1, 0]), 0);
    let mut other = header();
    other.machine.seed += 1;
    let (mut spliced, _) = other.encode().unwrap();
    spliced.extend_from_slice(&bytes[starts[0]..]);
    damaged_at(&spliced, 0);
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(read(&longer).1, Err(LogError::Damaged { entry: 14, damage: Damage::AfterEnd, .. })));
}

#[test]
fn a_header_that_would_stop_the_clock_is_refused() {
    let mut bad = header();
    bad.machine.reckoning = Reckoning::Instructions(TimeBase { num: 4, den: 0 });
    assert!(matches!(bad.encode(), Err(LogError::HeaderInvalid(_))));
    let mut bad = header();
    bad.reads.clear();
    assert!(matches!(bad.encode(), Err(LogError::HeaderInvalid(_))));
    let mut bytes = written(&header(), &[]);
    bytes[8] = 9;
    assert!(matches!(LogReader::new(bytes.as_slice()), Err(LogError::Version { found: 9 })));
}

#[test]
fn entries_go_forward_and_have_a_largest_size() {
    let mut writer = LogWriter::new(Vec::new(), &header()).unwrap();
    let entry = |count, time, body| Entry { at: at(count, 0, 0, time), body };
    writer.append(&entry(10, 40, Body::Answer(1))).unwrap();
    let before = writer.counts();
    assert!(matches!(writer.append(&entry(9, 40, Body::Answer(1))), Err(LogError::Backwards { count: 9 })));
    assert!(matches!(writer.append(&entry(10, 39, Body::Answer(1))), Err(LogError::Backwards { .. })));
    let wake = Body::Wake(VirtTime(43));
    assert!(matches!(writer.append(&entry(11, 44, wake)), Err(LogError::Backwards { .. })));
    let big = input(Input::Key(vec![0; MAX_ENTRY]));
    assert!(matches!(writer.append(&entry(11, 44, big)), Err(LogError::TooLarge(_))));
    assert_eq!(writer.counts(), before);
}

/// Numbers from a seed (xorshift64*), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Numbers of all lengths.
    fn any(&mut self) -> u64 {
        let shift = self.next() % 64;
        self.next() >> shift
    }
}

fn random_entry(n: &mut Numbers, previous: At, sampled: bool) -> Entry {
    let count = previous.position.count + n.any() % (1 << 30);
    let elapsed = if sampled { 0 } else { (count - previous.position.count) * 7 / 3 };
    let predicted = previous.time.0 + elapsed;
    let time = if n.next().is_multiple_of(2) { predicted } else { previous.time.0 + n.any() % (1 << 40) };
    let bytes = (0..n.next() % 40).map(|_| n.next() as u8).collect::<Vec<_>>();
    let number = n.next().is_multiple_of(2).then(|| n.any());
    let digest = Digest { cpu: n.next(), devices: n.next(), ram: n.next() };
    let status = if n.next().is_multiple_of(2) { DiskStatus::Ok } else { DiskStatus::Error };
    if sampled && n.next().is_multiple_of(2) {
        let count = previous.position.count + n.any() % 3;
        return Entry { at: at(count, 0x1000 + n.next() % 40, 0, time), body: Body::Time };
    }
    let body = match n.next() % if sampled { 14 } else { 12 } {
        0 => Body::Input { input: Input::Serial { port: n.next() as u8, bytes }, number },
        1 => Body::Input { input: Input::Key(bytes), number },
        2 => Body::Input {
            input: Input::Mouse { dx: n.next() as i16, dy: n.next() as i16, buttons: n.next() as u8 },
            number,
        },
        3 => Body::Input {
            input: Input::DiskDone { disk: n.next() as u8, tag: n.any(), status, data: bytes },
            number,
        },
        4 => Body::Input { input: Input::PowerButton, number },
        5 => Body::ReRead {
            disk: n.next() as u8,
            tag: n.any(),
            status,
            length: n.any() as u32,
            check: n.next() as u32,
        },
        6 => Body::Answer(n.any()),
        7 => Body::Input { input: Input::Frame { nic: n.next() as u8, bytes }, number },
        8 => Body::Input { input: Input::Media { disk: n.next() as u8, sectors: n.any() }, number },
        9 => {
            let input = if bytes.len().is_multiple_of(2) { Input::Reset } else { Input::PowerOff };
            Body::Input { input, number }
        }
        12 => Body::Wake(VirtTime(time + n.any() % (1 << 40))),
        13 => Body::Landing { digest, linear: n.any(), within: n.any() },
        _ => Body::Digest(digest),
    };
    Entry { at: at(count, n.any(), n.any(), time), body }
}

#[test]
fn random_entries_come_back_and_random_bytes_never_panic() {
    let mut counted = header();
    counted.machine.reckoning = Reckoning::Instructions(TimeBase { num: 7, den: 3 });
    for seed in 1..400 {
        let sampled = seed % 2 == 0;
        let header = if sampled { sampled_header() } else { counted.clone() };
        let mut n = Numbers(seed);
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..50 {
            let previous = entries.last().map_or(header.start, Entry::behind);
            entries.push(random_entry(&mut n, previous, sampled));
        }
        let mut bytes = written(&header, &entries);
        let (back, end) = read(&bytes);
        assert_eq!(back, entries, "seed {seed}");
        assert!(matches!(end, Ok(Item::Cut { leftover: 0, .. })));
        for _ in 0..20 {
            let at = n.next() as usize % bytes.len();
            bytes[at] = n.next() as u8;
            let (back, _) = read(&bytes);
            assert!(back.len() < 2 * entries.len());
        }
        let noise: Vec<u8> = (0..300).map(|_| n.next() as u8).collect();
        let (_, end) = read(&noise);
        assert!(end.is_err());
    }
}

/// A frame around any payload, with right head and CRC.
fn framed(payload: &[u8], before: u32) -> Vec<u8> {
    let length = payload.len() as u32;
    let folded = (0..25).step_by(5).fold(0, |c, s| c ^ (length >> s & 0x1f));
    let mut frame = ((length | (!folded & 0x1f) << 25) << 2).to_le_bytes().to_vec();
    frame.extend_from_slice(payload);
    let crc = chained(&frame, before);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame
}

fn chained(frame: &[u8], before: u32) -> u32 {
    data_check(&[&before.to_le_bytes(), frame].concat())
}

#[test]
fn well_formed_frames_with_nonsense_inside_are_malformed_not_a_panic() {
    // Whoever can compute checksums can write anything.
    for seed in 1..40_000 {
        let header = if seed % 2 == 0 { header() } else { sampled_header() };
        let (_, crc) = header.encode().unwrap();
        let mut n = Numbers(seed);
        let mut payload: Vec<u8> = (0..1 + n.next() % 60).map(|_| n.next() as u8).collect();
        let frame = if seed % 8 < 2 {
            payload[0] |= 3;
            let crc = chained(&payload, crc);
            payload.push(crc.to_le_bytes().into_iter().fold(0, |c, b| c ^ b));
            payload
        } else {
            let kinds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 63];
            payload[0] = kinds[n.next() as usize % kinds.len()] | n.next() as u8 & 0xc0;
            framed(&payload, crc)
        };
        match gemel_log::Decoder::new(&header, crc).decode(&frame) {
            Ok(Some((entry, used))) => {
                assert!(used == frame.len() || entry.body == Body::Time);
                let mut again = Vec::new();
                gemel_log::Encoder::new(&header, crc).encode(&entry, &mut again).unwrap();
                let decoded = gemel_log::Decoder::new(&header, crc).decode(&again);
                assert_eq!(decoded.unwrap().unwrap().0, entry, "seed {seed}");
            }
            Ok(None) => assert_eq!(frame[0] & 3, 3, "seed {seed}: a whole frame is not whole"),
            Err(Damage::Content(_)) => {}
            Err(damage) => assert!(frame[0] & 3 == 3 && damage == Damage::Checksum, "seed {seed}: {damage}"),
        }
    }
}

#[test]
fn sampled_times_do_not_stand_in_a_log_that_counts_instructions() {
    let (_, crc) = header().encode().unwrap();
    let (_, sampled_crc) = sampled_header().encode().unwrap();
    for entry in sampled_entries()
        .into_iter()
        .filter(|e| matches!(e.body, Body::Time | Body::Wake(_) | Body::Landing { .. }))
    {
        let mut frame = Vec::new();
        gemel_log::Encoder::new(&header(), crc).encode(&entry, &mut frame).unwrap();
        let refused = gemel_log::Decoder::new(&header(), crc).decode(&frame);
        assert!(matches!(refused, Err(Damage::Content(_))), "{entry}");
        frame.clear();
        gemel_log::Encoder::new(&sampled_header(), sampled_crc).encode(&entry, &mut frame).unwrap();
        let read = gemel_log::Decoder::new(&sampled_header(), sampled_crc).decode(&frame);
        assert_eq!(read.unwrap().unwrap().0, entry);
    }
}

#[test]
fn numbers_without_end_are_no_reason_to_read_on() {
    let mut log = written(&sampled_header(), &[]);
    log.extend([0xfb; 1000]);
    assert!(matches!(read(&log).1, Err(LogError::Damaged { entry: 0, .. })));
}

#[test]
fn a_quiet_guest_costs_little() {
    // Ten seconds of an idle guest: nothing but a digest each 2^24 instructions.
    let digest = Digest { cpu: u64::MAX, devices: u64::MAX, ram: u64::MAX };
    let entries: Vec<Entry> = (1..=150)
        .map(|i| Entry {
            at: at(i << 24, 0xffff_ffff_8180_0000, 0, i * 70_000_000),
            body: Body::Digest(digest),
        })
        .collect();
    let size = written(&header(), &entries).len();
    assert!(size < 8 << 10, "{size} bytes");
}
