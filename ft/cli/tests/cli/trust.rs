//! A pair over TCP: those with keys get in, nobody else does, and whoever knocks does not move the pair.

use super::gemel;
use super::pair::{ASKS_AND_SLEEPS, Process, SIDE, wait_until};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

/// A port that is free now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn ok(folder: &Path, arguments: &str) {
    let output = gemel(folder, arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Keys of two sides that know each other, of a console that the first knows, and of a stranger that knows them all.
fn make_keys(folder: &Path) {
    for who in ["a", "b", "c", "stranger"] {
        ok(folder, &format!("keys make {who}"));
    }
    for (own, other) in [("a", "b"), ("b", "a"), ("c", "a"), ("c", "b"), ("stranger", "a")] {
        ok(folder, &format!("keys pin {own} {other}/own.pem"));
    }
    ok(folder, "keys pin a c/own.pem --console");
}

/// Says `text` to a port and waits until the other end closes.
fn knock(port: u16, text: &[u8]) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let _ = socket.write_all(text);
    if let Err(e) = socket.read_to_end(&mut Vec::new()) {
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "it stays open");
    }
}

#[test]
fn only_those_who_are_known_get_in_and_the_others_do_not_move_the_pair() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    make_keys(folder);
    fs::write(folder.join("guest"), super::kernel(ASKS_AND_SLEEPS)).unwrap();
    let [link, at_a, at_b] = [free_port(), free_port(), free_port()];
    let said_by_a = || fs::read_to_string(folder.join("primary.err")).unwrap();

    let primary = format!("primary --listen 127.0.0.1:{link} --console 127.0.0.1:{at_a} {SIDE}");
    let output = gemel(folder, &primary);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("--insecure"), "without keys: {said}");

    let _primary = Process::start(folder, &format!("{primary} --keys a"));
    wait_until("the primary", || said_by_a().contains("waiting"));
    // Before the pair is complete: nobody takes the secondary's place.
    knock(link, b"GET / HTTP/1.1\r\n\r\n");
    for (keys, complaint) in [
        ("--keys stranger", "pin this side's certificate there"),
        ("--keys c", "pin this side's certificate there"),
        ("--insecure", "cannot connect"),
    ] {
        let secondary = format!("secondary --connect 127.0.0.1:{link} --console unix:x {keys} {SIDE}");
        let output = gemel(folder, &secondary);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{keys}: {said}");
        assert!(said.contains(complaint), "{keys}: {said}");
    }
    let secondary =
        format!("secondary --connect 127.0.0.1:{link} --console 127.0.0.1:{at_b} --keys b {SIDE}");
    let _secondary = Process::start(folder, &secondary);
    let _console = Process::start(folder, &format!("console 127.0.0.1:{at_a} --keys c"));
    wait_until("the question", || fs::read(folder.join("console.out")).unwrap() == b"?");

    let status = |port: u16, keys: &str| -> Value {
        let output = gemel(folder, &format!("console --status 127.0.0.1:{port} --keys {keys}"));
        let told: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        told["figures"].clone()
    };
    let epoch = status(at_a, "c")["epoch"].clone();
    for text in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[22, 3, 1, 0xff, 0xff]] {
        knock(at_a, text);
        knock(at_b, text);
    }
    let waiting: Vec<_> = (0..50).map(|_| TcpStream::connect(("127.0.0.1", at_a)).unwrap()).collect();
    let output = gemel(folder, &format!("console --status 127.0.0.1:{at_a} --keys stranger"));
    assert_eq!(output.status.code(), Some(2));
    let complaint = "pin this side's certificate there";
    assert!(String::from_utf8_lossy(&output.stderr).contains(complaint), "{output:?}");
    for complaint in ["it does not speak TLS", "nobody pinned its certificate"] {
        assert!(said_by_a().contains(complaint), "{}", said_by_a());
    }
    for (port, keys, phase) in [(at_a, "b", "Primary"), (at_b, "a", "Secondary")] {
        let figures = status(port, keys);
        assert_eq!((&figures["phase"], &figures["epoch"]), (&phase.into(), &epoch), "{figures}");
    }
    drop(waiting);
}
