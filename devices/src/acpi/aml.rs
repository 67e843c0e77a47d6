//! AML as bytes: the few terms that the DSDT needs (ACPI 6.4 chapter 20) and resource descriptors (6.4).
//!
//! Not responsible for: what is described (`dsdt`).

/// Prefixes a term list with its package length, which counts itself (20.2.4).
fn package(content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = match len {
        0..=0x3e => vec![(len + 1) as u8],
        0x3f..=0xffd => {
            let len = len + 2;
            vec![0x40 | (len & 0xf) as u8, (len >> 4) as u8]
        }
        _ => {
            let len = len + 3;
            vec![0x80 | (len & 0xf) as u8, (len >> 4) as u8, (len >> 12) as u8]
        }
    };
    out.extend_from_slice(content);
    out
}

/// A term of an opcode, a package length, and content.
fn block(opcode: &[u8], content: &[&[u8]]) -> Vec<u8> {
    [opcode, &package(&content.concat())].concat()
}

/// One name segment or a path: `_SB`, `\_SB`. Segments are padded with underscores to four characters.
fn name_string(name: &str) -> Vec<u8> {
    let (root, segment) = match name.strip_prefix('\\') {
        Some(rest) => (&b"\\"[..], rest),
        None => (&b""[..], name),
    };
    let mut out = root.to_vec();
    if segment.is_empty() {
        out.push(0); // NullName: the root itself
    } else {
        out.extend_from_slice(format!("{segment:_<4}").as_bytes());
    }
    out
}

/// An integer in its shortest form.
pub(super) fn integer(value: u32) -> Vec<u8> {
    match value {
        0 => vec![0x00],
        1 => vec![0x01],
        2..=0xff => vec![0x0a, value as u8],
        0x100..=0xffff => [&[0x0b][..], &(value as u16).to_le_bytes()].concat(),
        _ => [&[0x0c][..], &value.to_le_bytes()].concat(),
    }
}

/// A plug-and-play id such as `PNP0A03` in its compressed form (19.3.4, EISAID).
pub(super) fn eisa_id(id: &str) -> Vec<u8> {
    let letters = id.bytes().take(3).fold(0, |v, c| v << 5 | u32::from(c - b'@'));
    let number = id.get(3..).and_then(|n| u32::from_str_radix(n, 16).ok()).unwrap_or(0);
    integer((letters << 16 | number).swap_bytes())
}

pub(super) fn name(name: &str, value: &[u8]) -> Vec<u8> {
    [&[0x08][..], &name_string(name), value].concat()
}

/// A reference to a name.
pub(super) fn reference(name: &str) -> Vec<u8> {
    name_string(name)
}

pub(super) fn scope(name: &str, terms: &[&[u8]]) -> Vec<u8> {
    block(&[0x10], &[&name_string(name), &terms.concat()])
}

pub(super) fn device(name: &str, terms: &[&[u8]]) -> Vec<u8> {
    block(&[0x5b, 0x82], &[&name_string(name), &terms.concat()])
}

/// A method that is not serialized.
pub(super) fn method(name: &str, arguments: u8, terms: &[&[u8]]) -> Vec<u8> {
    block(&[0x14], &[&name_string(name), &[arguments], &terms.concat()])
}

/// At most 255 elements.
pub(super) fn package_of(elements: &[Vec<u8>]) -> Vec<u8> {
    block(&[0x12], &[&[elements.len() as u8], &elements.concat()])
}

/// A resource template: the descriptors with their end tag (no checksum), as a buffer.
pub(super) fn resources(descriptors: &[Vec<u8>]) -> Vec<u8> {
    let bytes = [&descriptors.concat()[..], &[0x79, 0]].concat();
    block(&[0x11], &[&integer(bytes.len() as u32), &bytes])
}

/// The first argument of a method.
pub(super) const ARG0: &[u8] = &[0x68];

pub(super) fn store(from: &[u8], to: &[u8]) -> Vec<u8> {
    [&[0x70][..], from, to].concat()
}

pub(super) fn if_true(predicate: &[u8], terms: &[&[u8]]) -> Vec<u8> {
    block(&[0xa0], &[predicate, &terms.concat()])
}

pub(super) fn return_value(value: &[u8]) -> Vec<u8> {
    [&[0xa4][..], value].concat()
}

/// Fixed I/O ports, 16-bit decode (6.4.2.5).
pub(super) fn ports(first: u16, count: u8) -> Vec<u8> {
    let [low, high] = first.to_le_bytes();
    vec![0x47, 1, low, high, low, high, 1, count]
}

/// An edge-triggered, active-high, exclusive interrupt (6.4.2.1).
pub(super) fn irq(line: u8) -> Vec<u8> {
    let [low, high] = (1u16 << line).to_le_bytes();
    vec![0x22, low, high]
}

/// Fixed minimum and maximum; the device hands the range on (6.4.3.5).
const PRODUCER_FIXED: u8 = 0x0c;

/// Bus numbers that a root bridge hands on.
pub(super) fn bus_range(first: u16, last: u16) -> Vec<u8> {
    word_range(2, 0, first, last)
}

/// Ports that a root bridge hands on.
pub(super) fn port_range(first: u16, last: u16) -> Vec<u8> {
    const ENTIRE_RANGE: u8 = 3;
    word_range(1, ENTIRE_RANGE, first, last)
}

fn word_range(kind: u8, flags: u8, first: u16, last: u16) -> Vec<u8> {
    let words = [0, first, last, 0, last - first + 1].map(u16::to_le_bytes).concat();
    [&[0x88, 13, 0, kind, PRODUCER_FIXED, flags][..], &words].concat()
}

/// Uncached memory addresses that a root bridge hands on.
pub(super) fn memory_range(first: u32, last: u32) -> Vec<u8> {
    const READ_WRITE: u8 = 1;
    let words = [0, first, last, 0, last - first + 1].map(u32::to_le_bytes).concat();
    [&[0x87, 23, 0, 0, PRODUCER_FIXED, READ_WRITE][..], &words].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_standard() {
        // ACPI 6.4 19.6.43 spells EISAID("PNP0A03") as 0x030AD041.
        assert_eq!(eisa_id("PNP0A03"), integer(0x030a_d041));
    }

    #[test]
    fn package_lengths_count_themselves() {
        assert_eq!(package(&[0; 0x3e])[0], 0x3f);
        assert_eq!(&package(&[0; 0x3f])[..2], &[0x41, 0x04]);
        assert_eq!(&package(&[0; 0xffd])[..2], &[0x4f, 0xff]);
        assert_eq!(&package(&[0; 0xffe])[..3], &[0x81, 0x00, 0x01]);
    }

    #[test]
    fn a_word_range_that_is_all_ports_but_one_does_not_overflow() {
        assert_eq!(port_range(1, 0xffff)[14..16], [0xff, 0xff]);
    }
}
