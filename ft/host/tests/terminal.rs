#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! The terminal is as it was before on every way out, also a panic: a child process on a pseudo-terminal panics, and the
//! terminal is looked at from outside.

use gemel_host::terminal;
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OutputModes, Termios, tcgetattr};
use std::fs::File;
use std::io::{Read, Write, stdin, stdout};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

/// What the child is to do once its terminal is raw.
const WAY_OUT: &str = "GEMEL_TEST_WAY_OUT";
const IN_RAW_MODE: &[u8] = b"in raw mode";

/// A pseudo-terminal: the user's end and the program's.
fn terminal_pair() -> (File, OwnedFd) {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap();
    let program = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (user.into(), program)
}

fn settings(terminal: &OwnedFd) -> (u32, u32, u32, u32) {
    let Termios { input_modes, output_modes, control_modes, local_modes, .. } = tcgetattr(terminal).unwrap();
    (input_modes.bits(), output_modes.bits(), control_modes.bits(), local_modes.bits())
}

/// Runs the child on a terminal of its own; what it printed on standard error.
fn child_restores(way_out: &str, succeeds: bool) -> String {
    let (mut user, program) = terminal_pair();
    let before = settings(&program);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(WAY_OUT, way_out)
        .stdin(Stdio::from(program.try_clone().unwrap()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = Vec::new();
    let mut from_child = child.stdout.take().unwrap();
    while !printed.ends_with(IN_RAW_MODE) {
        let mut byte = [0];
        from_child.read_exact(&mut byte).unwrap();
        printed.push(byte[0]);
    }
    let raw = tcgetattr(&program).unwrap();
    assert!(!raw.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
    assert!(raw.output_modes.contains(OutputModes::OPOST), "messages keep their line ends");
    assert_ne!(settings(&program), before);

    // In raw mode one key is enough.
    user.write_all(b"k").unwrap();
    let output = child.wait_with_output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), succeeds, "{way_out}: {messages}");
    assert_eq!(settings(&program), before, "{way_out}: {messages}");
    messages
}

#[test]
fn the_guard_restores() {
    child_restores("drop", true);
}

#[test]
fn the_guard_restores_when_a_panic_unwinds() {
    assert!(child_restores("unwind", true).contains("on purpose"));
}

#[test]
fn a_panic_restores_though_the_guard_is_never_dropped() {
    assert!(child_restores("forget", false).contains("on purpose"));
}

#[test]
fn a_panic_of_another_thread_restores() {
    assert!(child_restores("thread", false).contains("on purpose"));
}

#[test]
#[ignore = "the child of the other tests, on a terminal that they give it"]
fn child() {
    let way_out = std::env::var(WAY_OUT).unwrap();
    let raw = terminal::raw().unwrap();
    stdout().write_all(IN_RAW_MODE).unwrap();
    stdout().flush().unwrap();
    stdin().read_exact(&mut [0]).unwrap();
    let guarded = AssertUnwindSafe(|| {
        let _raw = raw;
        match way_out.as_str() {
            "drop" => {}
            "unwind" => panic!("on purpose"),
            _ => std::mem::forget(_raw),
        }
    });
    let unwound = catch_unwind(guarded).is_err();
    assert_eq!(unwound, way_out == "unwind");
    match way_out.as_str() {
        "forget" => panic!("on purpose"),
        "thread" => {
            let panicked = std::thread::spawn(|| panic!("on purpose")).join().is_err();
            // Not by way of another panic: the thread's own must have been enough.
            std::process::exit(i32::from(panicked));
        }
        _ => {}
    }
}
