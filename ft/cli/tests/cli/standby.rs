//! A running guest is copied to a standby, and goes on there. Chains of failovers of real guests: `tests/system`.

use super::gemel;
use super::kernel;
use super::pair::{LETTERS, Process, SIDE, alphabet, alphabet_of_resets, wait_until};
use std::fs;
use std::path::Path;

/// The same guest, which waits twenty times as long between two letters: long enough to be copied in between.
fn slowly(mut code: Vec<u8>) -> Vec<u8> {
    let wait = code.windows(5).position(|w| w == [0xb9, 0x40, 0x0d, 0x03, 0x00]).unwrap();
    code[wait + 1..wait + 5].copy_from_slice(&4_000_000u32.to_le_bytes());
    code
}

/// A leader whose guest is protected by a standby, that standby, and the console.
fn protected(folder: &Path, code: Vec<u8>) -> [Process; 3] {
    fs::write(folder.join("guest"), kernel(&slowly(code))).unwrap();
    let standby =
        Process::start(folder, &format!("standby --listen unix:link --console unix:s --log s.gml {SIDE}"));
    let primary = Process::start(
        folder,
        &format!("primary --standby unix:link --console unix:p --control p.control --log p.gml {SIDE}"),
    );
    let console = Process::start(folder, "console unix:p unix:s");
    let said = || fs::read_to_string(folder.join("primary.err")).unwrap();
    wait_until("protection", || said().contains("the guest is protected"));
    [primary, standby, console]
}

/// The console showed every letter once, and the copy's log yields the last of them.
fn check(folder: &Path) {
    let expected: Vec<u8> = (b'a'..=b'z').cycle().take(LETTERS).collect();
    let shown = fs::read(folder.join("console.out")).unwrap();
    assert_eq!(String::from_utf8_lossy(&shown), String::from_utf8_lossy(&expected));
    let replay = gemel(folder, "replay s.gml --serial file:replayed");
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    let rest = fs::read(folder.join("replayed")).unwrap();
    assert!(rest.len() < LETTERS && expected.ends_with(&rest), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn a_copied_guest_outlives_its_leader() {
    let folder = tempfile::tempdir().unwrap();
    let [mut primary, mut standby, mut console] = protected(folder.path(), alphabet());
    primary.0.kill().unwrap();
    assert_eq!(console.exit_code(), Some(0));
    assert_eq!(standby.exit_code(), Some(1), "the guest wrote 0 to the debug-exit port");
    check(folder.path());
}

#[test]
fn a_copied_guest_resets_to_what_it_was_at_power_on() {
    let folder = tempfile::tempdir().unwrap();
    let [mut primary, mut standby, mut console] = protected(folder.path(), alphabet_of_resets());
    primary.0.kill().unwrap();
    assert_eq!(console.exit_code(), Some(0));
    assert_eq!(standby.exit_code(), Some(1));
    check(folder.path());
}

#[test]
fn a_leader_hands_its_guest_over_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let [mut primary, mut standby, mut console] = protected(folder.path(), alphabet());
    let told = gemel(folder.path(), "failover p.control");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert_eq!(primary.exit_code(), Some(7), "the other side has the guest");
    assert_eq!(console.exit_code(), Some(0));
    assert_eq!(standby.exit_code(), Some(1));
    check(folder.path());
}

#[test]
fn a_log_without_its_start_is_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let [mut primary, mut standby, _console] = protected(folder.path(), alphabet());
    primary.0.kill().unwrap();
    assert_eq!(standby.exit_code(), Some(1));
    for damage in [None, Some(&b"GEMELSTA and no more"[..])] {
        match damage {
            Some(bytes) => fs::write(folder.path().join("s.gml.start"), bytes).unwrap(),
            None => fs::remove_file(folder.path().join("s.gml.start")).unwrap(),
        }
        let replay = gemel(folder.path(), "replay s.gml");
        let said = String::from_utf8_lossy(&replay.stderr);
        assert_eq!(replay.status.code(), Some(2), "{said}");
        assert!(said.contains("s.gml.start"), "{said}");
    }
}
