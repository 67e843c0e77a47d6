//! What the network knows of DNS: where the host's resolver is, and what to say where there is none.
//!
//! Not responsible for: forwarding (`outside`: a query is a datagram like any other, to another address).

use std::net::{Ipv4Addr, SocketAddrV4};

/// Where servers listen.
pub(crate) const PORT: u16 = 53;
/// A message's header (RFC 1035 4.1.1).
const HEADER: usize = 12;

/// The host's first IPv4 resolver, from `/etc/resolv.conf`.
pub fn host_resolver() -> Option<SocketAddrV4> {
    first_server(&std::fs::read_to_string("/etc/resolv.conf").ok()?)
}

fn first_server(resolv_conf: &str) -> Option<SocketAddrV4> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let mut addresses = servers.filter_map(|rest| rest.trim().parse::<Ipv4Addr>().ok());
    addresses.next().map(|address| SocketAddrV4::new(address, PORT))
}

/// The answer "server failure" to a query with one question; `None` for anything else.
pub(crate) fn server_failure(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.first_chunk::<HEADER>()?;
    let is_query = header[2] & 0x80 == 0 && header[4..6] == [0, 1];
    let mut end = HEADER;
    loop {
        // A label is at most 63 long; the two top bits mark a pointer, which has no place in the only question.
        let length = usize::from(*query.get(end)?);
        end += 1 + length;
        match length {
            0 => break,
            1..=63 => {}
            _ => return None,
        }
    }
    let question = query.get(HEADER..end + 4)?; // with type and class
    if !is_query {
        return None;
    }
    let mut answer = header.to_vec();
    answer[2] |= 0x80; // QR
    answer[3] = 0x80 | 2; // RA, RCODE 2
    answer[6..].fill(0); // no records of any kind
    answer.extend_from_slice(question);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_server_that_can_be_used_is_taken() {
        let server = |text| first_server(text).map(|s| s.to_string());
        assert_eq!(
            server("# nameserver 1.1.1.1\nnameserver ::1\nnameserver 9.9.9.9 \n"),
            Some("9.9.9.9:53".into())
        );
        assert_eq!(server("search x\n"), None);
    }

    #[test]
    fn a_question_without_a_server_fails_and_anything_else_gets_nothing() {
        // "ab." type A, class IN, with recursion desired; and an OPT record that is not repeated.
        let query =
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x02ab\x00\x00\x01\x00\x01\x00\x00\x29\x04";
        let answer = b"\x12\x34\x81\x82\x00\x01\x00\x00\x00\x00\x00\x00\x02ab\x00\x00\x01\x00\x01";
        assert_eq!(server_failure(query).as_deref(), Some(&answer[..]));
        assert_eq!(server_failure(answer), None, "an answer is not answered");
        for length in 0..20 {
            assert_eq!(server_failure(&query[..length]), None);
        }
    }
}
