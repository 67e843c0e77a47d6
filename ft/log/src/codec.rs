//! Entries as bytes.
//!
//! Not responsible for: files and streams (`writer`, `reader`).
//!
//! Frame: head u32, payload, CRC-32. The head holds the payload's length in 25 bits and a check of 5 bits, so that a
//! damaged length is never taken for a log that ends early. The CRC runs over the CRC of the frame before, the head
//! and the payload: a removed, repeated or moved entry does not fit either. Sampled times, of which there are as many as all else
//! together a thousand times, have a frame of their own (`sample`); the lowest two bits of a frame's first byte tell the two apart.
//!
//! Payload: kind byte (bit 7: a time follows; bit 6: a sender's number follows), count as difference to the entry
//! before, RIP and RCX as signed differences, the time (signed difference to what the count alone predicts), the
//! number, and what the kind has.

use crate::entry::{Body, EndReason, Entry, OutputSummary};
use crate::error::{Damage, LogError};
use crate::header::Header;
use crate::sample::{self, Sample, Sites};
use crate::varint::{Taker, put, put_difference};
use crate::writer::Class;
use gemel_machine::{At, Digest, DiskStatus, Input, Pause, Position, TimeBase, VirtTime, bus::PowerEvent};

/// Bytes that an entry's payload may have. The largest is a disk read.
pub const MAX_ENTRY: usize = (1 << LENGTH_BITS) - 1;
const LENGTH_BITS: u32 = 25;
/// Bits of a head before the length: zero.
const MARK_BITS: u32 = 2;
/// Bits of a group of the length, and of its check.
const GROUP: u32 = 5;
const HEAD: usize = 4;
const CRC: usize = 4;

const TIMED: u8 = 0x80;
const NUMBERED: u8 = 0x40;
const KIND: u8 = 0x3f;

const SERIAL: u8 = 1;
const KEY: u8 = 2;
const MOUSE: u8 = 3;
const DISK_DONE: u8 = 4;
const POWER_BUTTON: u8 = 5;
const RE_READ: u8 = 6;
const ANSWER: u8 = 7;
const DIGEST: u8 = 8;
const END: u8 = 9;
const WAKE: u8 = 10;
const LANDING: u8 = 11;
const FRAME: u8 = 12;
const POWER_OFF: u8 = 13;
const RESET: u8 = 14;
const MEDIA: u8 = 15;

/// What an entry's bytes are relative to.
#[derive(Clone, Copy, Debug)]
struct Chain {
    previous: At,
    base: Option<TimeBase>,
    sites: Sites,
    crc: u32,
    ended: bool,
}

impl Chain {
    fn new(header: &Header, crc: u32) -> Self {
        let base = header.machine.reckoning.time_base();
        Self { previous: header.start, base, sites: Sites::default(), crc, ended: false }
    }

    /// Guest time at `count` if the guest does not idle on the way. Where time is sampled, it stands still between samples.
    fn predicted(&self, count: u64) -> VirtTime {
        let Some(base) = self.base else { return self.previous.time };
        let elapsed = u128::from(count.saturating_sub(self.previous.position.count)) * u128::from(base.num)
            / u128::from(base.den.max(1));
        self.previous.time.after(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    fn crc_of(&self, head_and_payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.crc.to_le_bytes());
        hasher.update(head_and_payload);
        hasher.finalize()
    }

    fn moved_to(&mut self, entry: &Entry, crc: u32) {
        let rcx = self.previous.position.rcx;
        self.previous = entry.behind();
        if entry.body == Body::Time {
            self.previous.position.rcx = rcx;
        }
        self.crc = crc;
        self.ended = matches!(entry.body, Body::End { .. });
    }
}

/// The 32 bits of a frame's head: any single damaged bit contradicts the rest, since each bit of the length
/// stands in exactly one bit of the check.
fn head_of(length: u32) -> u32 {
    let ones = (1 << GROUP) - 1;
    let folded =
        (0..LENGTH_BITS).step_by(GROUP as usize).fold(0, |check, shift| check ^ (length >> shift & ones));
    (length | (!folded & ones) << LENGTH_BITS) << MARK_BITS
}

/// Turns entries into bytes, one after the other.
#[derive(Clone, Debug)]
pub struct Encoder {
    chain: Chain,
}

impl Encoder {
    /// Starts after a header; `crc` is what [`Header::encode`] gave with it.
    pub fn new(header: &Header, crc: u32) -> Self {
        Self { chain: Chain::new(header, crc) }
    }

    /// Appends an entry's frame to `out`.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] and [`LogError::Backwards`]; `out` is then unchanged, and the next entry may follow.
    pub fn encode(&mut self, entry: &Entry, out: &mut Vec<u8>) -> Result<Class, LogError> {
        let Self { chain } = self;
        let Entry { at, body } = entry;
        let start = out.len();
        let wakes_before = matches!(body, Body::Wake(time) if *time < at.time);
        if at.position.count < chain.previous.position.count
            || at.time < chain.previous.time
            || wakes_before
            || chain.ended
        {
            return Err(LogError::Backwards { count: at.position.count });
        }
        if *body == Body::Time {
            Sample::between(chain.previous, *at).put(out, &mut chain.sites, chain.previous.position.rip);
            let crc = chain.crc_of(&out[start..]);
            out.push(sample::check(crc));
            chain.moved_to(entry, crc);
            return Ok(Class::Time);
        }
        out.extend_from_slice(&[0; HEAD]);
        let (kind, number, class) = kind_of(body);
        let predicted = chain.predicted(at.position.count);
        let timed = if at.time == predicted { 0 } else { TIMED };
        out.push(kind | timed | if number.is_some() { NUMBERED } else { 0 });
        put(out, at.position.count - chain.previous.position.count);
        put_difference(out, chain.previous.position.rip, at.position.rip);
        put_difference(out, chain.previous.position.rcx, at.position.rcx);
        if timed != 0 {
            put_difference(out, predicted.0, at.time.0);
        }
        if let Some(number) = number {
            put(out, number);
        }
        put_body(out, at, body);
        let length = out.len() - start - HEAD;
        if length > MAX_ENTRY {
            out.truncate(start);
            return Err(LogError::TooLarge(length));
        }
        out[start..start + HEAD].copy_from_slice(&head_of(length as u32).to_le_bytes());
        let crc = chain.crc_of(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        chain.moved_to(entry, crc);
        Ok(class)
    }
}

fn kind_of(body: &Body) -> (u8, Option<u64>, Class) {
    match body {
        Body::Input { input, number } => {
            let (kind, class) = match input {
                Input::Serial { .. } => (SERIAL, Class::Input),
                Input::Key(_) => (KEY, Class::Input),
                Input::Mouse { .. } => (MOUSE, Class::Input),
                Input::DiskDone { .. } => (DISK_DONE, Class::Disk),
                Input::PowerButton => (POWER_BUTTON, Class::Input),
                Input::Frame { .. } => (FRAME, Class::Net),
                Input::PowerOff => (POWER_OFF, Class::Input),
                Input::Reset => (RESET, Class::Input),
                Input::Media { .. } => (MEDIA, Class::Input),
            };
            (kind, *number, class)
        }
        Body::ReRead { .. } => (RE_READ, None, Class::Disk),
        Body::Answer(_) => (ANSWER, None, Class::Answer),
        Body::Time | Body::Wake(_) => (WAKE, None, Class::Time),
        Body::Landing { .. } => (LANDING, None, Class::Time),
        Body::Digest(_) => (DIGEST, None, Class::Digest),
        Body::End { .. } => (END, None, Class::Other),
    }
}

fn put_body(out: &mut Vec<u8>, at: &At, body: &Body) {
    match body {
        Body::Input { input, .. } => match input {
            Input::Serial { port, bytes } => {
                out.push(*port);
                out.extend_from_slice(bytes);
            }
            Input::Key(codes) => out.extend_from_slice(codes),
            Input::Mouse { dx, dy, buttons } => {
                put_difference(out, 0, i64::from(*dx) as u64);
                put_difference(out, 0, i64::from(*dy) as u64);
                out.push(*buttons);
            }
            Input::DiskDone { disk, tag, status, data } => {
                put_disk(out, *disk, *tag, *status);
                out.extend_from_slice(data);
            }
            Input::Frame { nic, bytes } => {
                out.push(*nic);
                out.extend_from_slice(bytes);
            }
            Input::Media { disk, sectors } => {
                out.push(*disk);
                put(out, *sectors);
            }
            Input::PowerButton | Input::PowerOff | Input::Reset => {}
        },
        Body::ReRead { disk, tag, status, length, check } => {
            put_disk(out, *disk, *tag, *status);
            put(out, u64::from(*length));
            out.extend_from_slice(&check.to_le_bytes());
        }
        Body::Answer(value) => out.extend_from_slice(&value.to_le_bytes()),
        Body::Time => {}
        Body::Wake(time) => put(out, time.0.saturating_sub(at.time.0)),
        Body::Landing { digest, linear, within } => {
            put_digest(out, digest);
            put_difference(out, at.position.rip, *linear);
            put(out, *within);
        }
        Body::Digest(digest) => put_digest(out, digest),
        Body::End { reason, digest, outputs } => {
            let (code, detail) = match reason {
                EndReason::Stopped => (0, 0),
                EndReason::Guest(Pause::Power(PowerEvent::Off)) => (1, 0),
                EndReason::Guest(Pause::Power(PowerEvent::Reset)) => (2, 0),
                EndReason::Guest(Pause::Power(PowerEvent::DebugExit(value))) => (3, *value),
                EndReason::Guest(Pause::Halted) => (4, 0),
                EndReason::Guest(Pause::TripleFault) => (5, 0),
            };
            out.push(code);
            put(out, u64::from(detail));
            put_digest(out, digest);
            put(out, outputs.count);
            out.extend_from_slice(&outputs.hash.to_le_bytes());
        }
    }
}

fn put_disk(out: &mut Vec<u8>, disk: u8, tag: u64, status: DiskStatus) {
    out.push(disk);
    put(out, tag);
    out.push(match status {
        DiskStatus::Ok => 0,
        DiskStatus::Error => 1,
    });
}

fn put_digest(out: &mut Vec<u8>, digest: &Digest) {
    for part in [digest.cpu, digest.devices, digest.ram] {
        out.extend_from_slice(&part.to_le_bytes());
    }
}

/// Turns bytes back into entries, one after the other.
#[derive(Clone, Debug)]
pub struct Decoder {
    chain: Chain,
}

impl Decoder {
    /// Starts after a header; `crc` is what [`Header::decode`] gave with it.
    pub fn new(header: &Header, crc: u32) -> Self {
        Self { chain: Chain::new(header, crc) }
    }

    /// The entry at the front of `bytes` and the bytes that its frame takes; `None` when the frame is not whole
    /// yet.
    ///
    /// # Errors
    /// See [`Damage`]. Nothing can be decoded after that.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Option<(Entry, usize)>, Damage> {
        if self.chain.ended && !bytes.is_empty() {
            return Err(Damage::AfterEnd);
        }
        if bytes.first().is_some_and(|first| sample::begins_with(*first)) {
            return self.decode_sample(bytes);
        }
        let Some(head) = bytes.first_chunk() else { return Ok(None) };
        let total = HEAD + payload_length(*head)? + CRC;
        match bytes.get(..total) {
            Some(frame) => Ok(Some((self.decode_frame(frame)?, total))),
            None => Ok(None),
        }
    }

    fn decode_sample(&mut self, bytes: &[u8]) -> Result<Option<(Entry, usize)>, Damage> {
        let Some(covered) = sample::extent(bytes) else { return Ok(None) };
        let (covered, rest) = bytes.split_at(covered);
        let Some(check) = rest.first() else { return Ok(None) };
        let crc = self.chain.crc_of(covered);
        if sample::check(crc) != *check {
            return Err(Damage::Checksum);
        }
        if self.chain.base.is_some() {
            return Err(Damage::Content("a sampled time where time follows from the count"));
        }
        let at = Sample::take(covered, &mut self.chain.sites, self.chain.previous.position.rip)?
            .behind(self.chain.previous)
            .ok_or(Damage::Content("a count or a time beyond 64 bits"))?;
        let entry = Entry { at, body: Body::Time };
        self.chain.moved_to(&entry, crc);
        Ok(Some((entry, covered.len() + 1)))
    }

    /// Whether the end entry was decoded.
    pub fn ended(&self) -> bool {
        self.chain.ended
    }

    /// Decodes a whole frame, head to CRC.
    fn decode_frame(&mut self, frame: &[u8]) -> Result<Entry, Damage> {
        let (covered, crc) = frame.split_last_chunk().ok_or(Damage::Length)?;
        let crc = u32::from_le_bytes(*crc);
        if self.chain.crc_of(covered) != crc {
            return Err(Damage::Checksum);
        }
        let payload = covered.get(HEAD..).ok_or(Damage::Length)?;
        let entry = self.entry(Taker(payload))?;
        self.chain.moved_to(&entry, crc);
        Ok(entry)
    }

    fn entry(&self, mut bytes: Taker<'_>) -> Result<Entry, Damage> {
        let previous = self.chain.previous;
        let kind = bytes.byte()?;
        let count = previous.position.count.checked_add(bytes.varint()?);
        let count = count.ok_or(Damage::Content("a count beyond 64 bits"))?;
        let rip = bytes.difference(previous.position.rip)?;
        let rcx = bytes.difference(previous.position.rcx)?;
        let mut time = self.chain.predicted(count);
        if kind & TIMED != 0 {
            time = VirtTime(bytes.difference(time.0)?);
        }
        if time < previous.time {
            return Err(Damage::Content("time goes back"));
        }
        let number = if kind & NUMBERED != 0 { Some(bytes.varint()?) } else { None };
        let body = take_body(&mut bytes, kind & KIND, number)?;
        let body = match body {
            Body::Wake(_) | Body::Landing { .. } if self.chain.base.is_some() => {
                return Err(Damage::Content("a sampled time where time follows from the count"));
            }
            // Read as the difference to the entry's own time.
            Body::Wake(VirtTime(later)) => {
                let woken = time.0.checked_add(later);
                Body::Wake(VirtTime(woken.ok_or(Damage::Content("a time beyond 64 bits"))?))
            }
            // And this as the one to RIP.
            Body::Landing { digest, linear, within } => {
                Body::Landing { digest, linear: rip.wrapping_add(linear), within }
            }
            body => body,
        };
        if !bytes.0.is_empty() {
            return Err(Damage::Content("bytes left over"));
        }
        Ok(Entry { at: At { position: Position { count, rip, rcx }, time }, body })
    }
}

/// The payload's length that a frame's head names.
fn payload_length(head: [u8; HEAD]) -> Result<usize, Damage> {
    let head = u32::from_le_bytes(head);
    let length = head >> MARK_BITS & MAX_ENTRY as u32;
    if head_of(length) == head { Ok(length as usize) } else { Err(Damage::Length) }
}

fn take_body(bytes: &mut Taker<'_>, kind: u8, number: Option<u64>) -> Result<Body, Damage> {
    let input = match kind {
        SERIAL => Input::Serial { port: bytes.byte()?, bytes: bytes.rest() },
        KEY => Input::Key(bytes.rest()),
        MOUSE => Input::Mouse { dx: take_i16(bytes)?, dy: take_i16(bytes)?, buttons: bytes.byte()? },
        DISK_DONE => {
            let (disk, tag, status) = take_disk(bytes)?;
            Input::DiskDone { disk, tag, status, data: bytes.rest() }
        }
        POWER_BUTTON => Input::PowerButton,
        FRAME => Input::Frame { nic: bytes.byte()?, bytes: bytes.rest() },
        POWER_OFF => Input::PowerOff,
        RESET => Input::Reset,
        MEDIA => Input::Media { disk: bytes.byte()?, sectors: bytes.varint()? },
        _ if number.is_some() => return Err(Damage::Content("a number on what is no input")),
        _ => return take_other(bytes, kind),
    };
    Ok(Body::Input { input, number })
}

fn take_other(bytes: &mut Taker<'_>, kind: u8) -> Result<Body, Damage> {
    match kind {
        RE_READ => {
            let (disk, tag, status) = take_disk(bytes)?;
            let length = take_u32(bytes)?;
            Ok(Body::ReRead { disk, tag, status, length, check: bytes.array().map(u32::from_le_bytes)? })
        }
        ANSWER => bytes.word().map(Body::Answer),
        WAKE => bytes.varint().map(|later| Body::Wake(VirtTime(later))),
        LANDING => {
            let digest = take_digest(bytes)?;
            Ok(Body::Landing { digest, linear: bytes.difference(0)?, within: bytes.varint()? })
        }
        DIGEST => take_digest(bytes).map(Body::Digest),
        END => {
            let (code, detail) = (bytes.byte()?, take_u32(bytes)?);
            let reason = match (code, detail) {
                (0, 0) => EndReason::Stopped,
                (1, 0) => EndReason::Guest(Pause::Power(PowerEvent::Off)),
                (2, 0) => EndReason::Guest(Pause::Power(PowerEvent::Reset)),
                (3, value) => EndReason::Guest(Pause::Power(PowerEvent::DebugExit(value))),
                (4, 0) => EndReason::Guest(Pause::Halted),
                (5, 0) => EndReason::Guest(Pause::TripleFault),
                _ => return Err(Damage::Content("unknown reason of the end")),
            };
            let digest = take_digest(bytes)?;
            let outputs = OutputSummary { count: bytes.varint()?, hash: bytes.word()? };
            Ok(Body::End { reason, digest, outputs })
        }
        _ => Err(Damage::Content("unknown kind")),
    }
}

fn take_disk(bytes: &mut Taker<'_>) -> Result<(u8, u64, DiskStatus), Damage> {
    let (disk, tag) = (bytes.byte()?, bytes.varint()?);
    let status = match bytes.byte()? {
        0 => DiskStatus::Ok,
        1 => DiskStatus::Error,
        _ => return Err(Damage::Content("unknown disk status")),
    };
    Ok((disk, tag, status))
}

fn take_digest(bytes: &mut Taker<'_>) -> Result<Digest, Damage> {
    Ok(Digest { cpu: bytes.word()?, devices: bytes.word()?, ram: bytes.word()? })
}

fn take_u32(bytes: &mut Taker<'_>) -> Result<u32, Damage> {
    u32::try_from(bytes.varint()?).map_err(|_| Damage::Content("a number beyond 32 bits"))
}

fn take_i16(bytes: &mut Taker<'_>) -> Result<i16, Damage> {
    i16::try_from(bytes.difference(0)? as i64).map_err(|_| Damage::Content("a movement beyond 16 bits"))
}
