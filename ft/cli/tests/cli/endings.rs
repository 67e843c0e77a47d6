//! Small guests end in every way that a guest can, plain, recorded and replayed, and the exit code and the figures
//! tell it.
//!
//! Not responsible for: bad input (`bad_input`).

use super::{SPIN, edit, figures, gemel, kernel};
use gemel_log::Body;
use serde_json::Value;
use std::fs;

/// Code that writes `text` to ttyS0 and goes on with `then`.
fn say(text: &str, then: &[u8]) -> Vec<u8> {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    code.extend_from_slice(then);
    code
}

/// out 0xf4, 0x21
const DEBUG_EXIT: &[u8] = &[0xb0, 0x21, 0xe6, 0xf4];
/// cli; hlt
const HALT: &[u8] = &[0xfa, 0xf4];
/// sti; hlt; jmp $-1: nothing is armed, nothing is unmasked.
const SLEEP: &[u8] = &[0xfb, 0xf4, 0xeb, 0xfd];
/// An empty IDT and an interrupt.
const TRIPLE_FAULT: &[u8] = &[0x6a, 0x00, 0x6a, 0x00, 0x0f, 0x01, 0x1c, 0x24, 0xcc];
/// The keyboard controller pulses the reset line.
const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe];
#[test]
fn every_ending_has_its_code_and_a_replay_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (then, code, name) in [
        (DEBUG_EXIT, 0x43, "debug-exit"),
        (HALT, 5, "halted"),
        (SLEEP, 5, "stuck"),
        (TRIPLE_FAULT, 3, "triple-fault"),
        (RESET, 3, "reset"),
    ] {
        fs::write(at.join("kernel"), kernel(&say("hi", then))).unwrap();
        let machine = "--kernel kernel -m 8 --clock free --serial file:out --no-reboot";
        let (status, ran) = figures(at, &format!("run {machine}"));
        assert_eq!((status, ran["exit"].as_str()), (Some(code), Some(name)), "{ran}");
        assert_eq!(ran["serial_bytes"], 2);
        assert_eq!(fs::read(at.join("out")).unwrap(), b"hi");

        let (status, recorded) = figures(at, &format!("record -o run.gml {machine}"));
        assert_eq!(status, Some(code));
        if name == "stuck" {
            continue; // the log stays open: the machine itself could have gone on
        }
        let (status, replayed) = figures(at, "replay run.gml --serial file:again");
        assert_eq!((status, replayed["exit"].as_str()), (Some(0), Some("log-end")), "{name}: {replayed}");
        for figure in ["instructions", "rip", "guest_time_s", "digest", "serial_bytes"] {
            assert_eq!(ran[figure], recorded[figure], "{name}: {figure}");
            assert_eq!(ran[figure], replayed[figure], "{name}: {figure}");
        }
        assert_eq!(fs::read(at.join("again")).unwrap(), b"hi");
    }
}

/// Counts its starts in a byte of the RTC's RAM, tells the count, and resets until the third. Halts for good where RAM is not as at
/// power-on.
fn start_three_times(reset: &[u8]) -> Vec<u8> {
    let mut code = vec![0x83, 0x3d, 0, 0, 0x20, 0, 0]; // cmp dword [0x200000], 0
    code.extend([0x74, 0x02, 0xfa, 0xf4]); // je $+2; cli; hlt
    code.extend([0xc7, 0x05, 0, 0, 0x20, 0, 1, 0, 0, 0]); // mov dword [0x200000], 1
    code.extend([0xb0, 0x70, 0xe6, 0x70, 0xe4, 0x71]); // mov al, 0x70; out 0x70, al; in al, 0x71
    code.extend([0xfe, 0xc0, 0x88, 0xc3, 0xe6, 0x71]); // inc al; mov bl, al; out 0x71, al
    code.extend([0x66, 0xba, 0xf8, 0x03, 0x04, b'0', 0xee]); // mov dx, 0x3f8; add al, '0'; out dx, al
    code.extend([0x80, 0xfb, 3, 0x74, reset.len() as u8]); // cmp bl, 3; je past the reset
    code.extend_from_slice(reset);
    code.extend_from_slice(DEBUG_EXIT);
    code
}

#[test]
fn a_guest_that_resets_starts_again_the_same_in_every_role() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // mov dx, 0xcf9; mov al, 6; out dx, al; jmp $
    let reset_control = [0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xeb, 0xfe];
    // mov al, 3; out 0x92, al; jmp $
    let port_a = [0xb0, 0x03, 0xe6, 0x92, 0xeb, 0xfe];
    for reset in [RESET, TRIPLE_FAULT, &reset_control, &port_a] {
        fs::write(at.join("kernel"), kernel(&start_three_times(reset))).unwrap();
        let machine = "--kernel kernel -m 8 --clock free --epoch 20 --serial file:out";
        let (status, ran) = figures(at, &format!("run {machine} --digests a"));
        assert_eq!((status, ran["exit"].as_str()), (Some(0x43), Some("debug-exit")), "{reset:x?}: {ran}");
        assert_eq!(fs::read(at.join("out")).unwrap(), b"123", "{reset:x?}");
        let (status, recorded) = figures(at, &format!("record -o run.gml {machine} --digests b"));
        assert_eq!((status, &recorded["digest"]), (Some(0x43), &ran["digest"]));
        let (status, replayed) = figures(at, "replay run.gml --serial file:again --digests c");
        assert_eq!((status, &replayed["digest"]), (Some(0), &ran["digest"]), "{replayed}");
        assert_eq!(fs::read(at.join("again")).unwrap(), b"123");
        let digests = |name: &str| fs::read_to_string(at.join(name)).unwrap();
        assert!(digests("a").lines().count() > 2);
        assert_eq!((digests("a"), digests("b")), (digests("b"), digests("c")));
        let (status, ended) = figures(at, &format!("run {machine} --no-reboot"));
        assert_eq!((status, fs::read(at.join("out")).unwrap()), (Some(3), b"1".to_vec()), "{ended}");
        assert!(ended["instructions"].as_u64() < ran["instructions"].as_u64());
    }
}

#[test]
fn a_run_stops_where_it_should_with_the_same_digests_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("kernel"), kernel(SPIN)).unwrap();
    let machine = "--kernel kernel --serial null --epoch 1000 --stop-after 5500";
    let (status, ran) = figures(at, &format!("run {machine} --clock free --digests a"));
    assert_eq!((status, &ran["instructions"]), (Some(0), &Value::from(5500)));
    let (status, _) = figures(at, &format!("record -o run.gml {machine} --clock free --digests b"));
    assert_eq!(status, Some(0));
    let (status, replayed) = figures(at, "replay run.gml --serial null --digests c");
    assert_eq!((status, &replayed["digest"]), (Some(0), &ran["digest"]));
    let digests = |name: &str| fs::read_to_string(at.join(name)).unwrap();
    assert_eq!(digests("a").lines().count(), 6);
    assert_eq!(digests("a"), digests("b"));
    assert_eq!(digests("a"), digests("c"));
}

/// 64 random numbers of 16 and 32 bits by RDRAND and RDSEED, each sent whole to ttyS0; then the end.
fn tell_random() -> Vec<u8> {
    let send = [0xee, 0xc1, 0xe8, 0x08, 0xee, 0xc1, 0xe8, 0x08, 0xee, 0xc1, 0xe8, 0x08, 0xee]; // out dx, al; shr eax, 8
    let mut code = vec![0x66, 0xba, 0xf8, 0x03, 0xb1, 0x20]; // mov dx, 0x3f8; mov cl, 32
    let start = code.len();
    code.extend([0x31, 0xc0, 0x66, 0x0f, 0xc7, 0xf0]); // xor eax, eax; rdrand ax
    code.extend(send);
    code.extend([0x0f, 0xc7, 0xf8]); // rdseed eax
    code.extend(send);
    code.extend([0xfe, 0xc9, 0x75]); // dec cl; jnz start
    code.push((start as i64 - code.len() as i64 - 1) as u8);
    code.extend_from_slice(DEBUG_EXIT);
    code
}

#[test]
fn random_numbers_are_the_worlds_and_a_replay_has_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("kernel"), kernel(&tell_random())).unwrap();
    let machine = "--kernel kernel -m 8 --cpu x86-64-v3";
    let run = |arguments: &str| {
        let (status, figures) = figures(at, &format!("{arguments} --serial file:out"));
        (status, figures["digest"].clone(), fs::read(at.join("out")).unwrap())
    };
    // Free: by the seed.
    let (status, digest, numbers) = run(&format!("run {machine} --clock free"));
    assert_eq!((status, numbers.len()), (Some(0x43), 256));
    assert_eq!(run(&format!("run {machine} --clock free")), (status, digest, numbers.clone()));
    assert_ne!(run(&format!("run {machine} --clock free --seed 1")).2, numbers);
    let different: std::collections::BTreeSet<_> = numbers.chunks(4).collect();
    assert_eq!(different.len(), 64);
    // Paced: the host's, never the same twice, but the log has them.
    let (status, digest, first) = run(&format!("record -o run.gml {machine}"));
    assert_eq!(status, Some(0x43));
    assert_eq!(run("replay run.gml"), (Some(0), digest, first.clone()));
    assert_ne!(run(&format!("record -o another.gml {machine}")).2, first);
    // The older model has neither instruction.
    assert_eq!(run("run --kernel kernel -m 8 --clock free --no-reboot").0, Some(3));
    let shown = gemel(at, "log show run.gml");
    assert_eq!(String::from_utf8_lossy(&shown.stdout).matches(" answer 0x").count(), 64);
}

#[test]
fn a_log_that_is_cut_off_replays_to_its_last_whole_entry() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("kernel"), kernel(SPIN)).unwrap();
    let recorded =
        figures(at, "record -o run.gml --kernel kernel --serial null --epoch 1000 --stop-after 5500");
    assert_eq!(recorded.0, Some(0));
    let log = fs::read(at.join("run.gml")).unwrap();
    fs::write(at.join("cut.gml"), &log[..log.len() - 1]).unwrap();
    let (status, replayed) = figures(at, "replay cut.gml --serial null");
    assert_eq!((status, replayed["exit"].as_str()), (Some(8), Some("log-cut")));
    assert_eq!(replayed["instructions"], 5000);
    assert_eq!(gemel(at, "log show cut.gml").status.code(), Some(8));

    let mut damaged = log.clone();
    let last = damaged.len() - 3;
    damaged[last] ^= 1;
    fs::write(at.join("damaged.gml"), damaged).unwrap();
    let (status, replayed) = figures(at, "replay damaged.gml --serial null");
    assert_eq!((status, replayed["exit"].as_str()), (Some(2), Some("log-damaged")));
    assert!(replayed["message"].as_str().unwrap().contains("entry 5"), "{replayed}");
}

#[test]
fn a_machine_that_does_not_do_what_the_log_says_leaves_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("kernel"), kernel(SPIN)).unwrap();
    gemel(at, "record -o run.gml --kernel kernel --serial null --epoch 1000 --stop-after 5500");
    // The same log, with another digest of RAM at the third epoch.
    edit(at, "run.gml", "other.gml", |entry| {
        if let (3000, Body::Digest(digest)) = (entry.at.position.count, &mut entry.body) {
            digest.ram ^= 1;
        }
        vec![entry.clone()]
    });
    let (status, replayed) = figures(at, "replay other.gml --serial null");
    assert_eq!((status, replayed["exit"].as_str()), (Some(4), Some("diverged")), "{replayed}");
    assert_eq!(replayed["instructions"], 3000);
    assert!(replayed["message"].as_str().unwrap().contains("digest.ram"), "{replayed}");
    let report = fs::read_to_string(at.join("other.gml.diverged/report.txt")).unwrap();
    assert!(report.contains("digest.ram"), "{report}");
    assert!(at.join("other.gml.diverged/machine.snapshot").exists());
}

#[test]
fn log_show_prints_the_header_and_every_entry() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("kernel"), kernel(SPIN)).unwrap();
    gemel(at, "record -o run.gml --kernel kernel --serial null --epoch 1000 --stop-after 3500 -m 64");
    let shown = gemel(at, "log show --json run.gml");
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let lines: Vec<Value> =
        shown.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(lines[0]["header"]["memory_mib"], 64);
    let counts: Vec<u64> = lines[1..].iter().filter_map(|line| line["count"].as_u64()).collect();
    assert_eq!(counts, [1000, 2000, 3000, 3500]);
}
