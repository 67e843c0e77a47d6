//! Power off and reset from outside: at a position, so that a replay and the other side of a pair do the same.

use super::pair::{ASKS_AND_SLEEPS, Process, SIDE, wait_until};
use super::{figures, gemel, kernel};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn control(folder: &Path, arguments: &str) -> (Option<i32>, String) {
    let output = gemel(folder, &format!("control {arguments}"));
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn printed(folder: &Path, file: &str, text: &str) -> bool {
    fs::read(folder.join(file)).is_ok_and(|bytes| bytes == text.as_bytes())
}

fn json(folder: &Path, file: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap()
}

#[test]
fn a_recorded_run_is_reset_and_powered_off_and_its_replay_is_too() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("guest"), kernel(ASKS_AND_SLEEPS)).unwrap();
    let mut record = Process::start(
        folder,
        "record -o run.gml --kernel guest -m 16 --serial file:printed --control control --json=made.json",
    );
    wait_until("the question", || printed(folder, "printed", "?"));
    assert_eq!(control(folder, "control reset"), (Some(0), String::new()));
    wait_until("the question again", || printed(folder, "printed", "??"));
    let (code, status) = control(folder, "control status");
    assert!(code == Some(0) && status.contains("\"role\":\"record\""), "{status}");
    let (code, refused) = control(folder, "control fly");
    assert!(code == Some(2) && refused.contains("poweroff, reset"), "{refused}");
    assert_eq!(control(folder, "control poweroff"), (Some(0), String::new()));
    assert_eq!(record.exit_code(), Some(0));
    assert_eq!(control(folder, "control status").0, Some(2), "nobody is there");
    let made = json(folder, "made.json");
    assert_eq!(made["exit"], "power-off", "{made}");
    let (code, replayed) = figures(folder, "replay run.gml --serial file:replayed");
    assert_eq!((code, &replayed["exit"]), (Some(0), &"log-end".into()), "{replayed}");
    assert!(made["digest"].is_string() || made["digest"].is_object(), "{made}");
    assert_eq!(made["digest"], replayed["digest"]);
    assert!(printed(folder, "replayed", "??"));
}

#[test]
fn without_reboot_a_reset_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("guest"), kernel(ASKS_AND_SLEEPS)).unwrap();
    let run = "run --no-reboot --kernel guest -m 16 --serial file:printed --control control";
    let mut run = Process::start(folder, run);
    wait_until("the question", || printed(folder, "printed", "?"));
    assert_eq!(control(folder, "control reset").0, Some(0));
    assert_eq!(run.exit_code(), Some(3));
}

#[test]
fn both_sides_of_a_pair_are_reset_and_powered_off_at_the_same_instruction() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("guest"), kernel(ASKS_AND_SLEEPS)).unwrap();
    let side = |role: &str, place: &str| {
        format!("{role} {place} --console unix:{role} --control {role}.control --json={role}.json {SIDE}")
    };
    let mut primary = Process::start(folder, &side("primary", "--listen unix:link"));
    wait_until("the primary", || fs::read_to_string(folder.join("primary.err")).unwrap().contains("waiting"));
    let mut secondary = Process::start(folder, &side("secondary", "--connect unix:link"));
    let _console = Process::start(folder, "console unix:primary unix:secondary");
    wait_until("the question", || printed(folder, "console.out", "?"));
    for word in ["reset", "poweroff"] {
        let (code, refused) = control(folder, &format!("secondary.control {word}"));
        assert!(code == Some(2) && refused.contains("ask the side that does"), "{refused}");
    }
    assert_eq!(control(folder, "primary.control reset").0, Some(0));
    wait_until("the question again", || printed(folder, "console.out", "??"));
    assert_eq!(control(folder, "primary.control poweroff").0, Some(0));
    assert_eq!((primary.exit_code(), secondary.exit_code()), (Some(0), Some(0)));
    let (one, other) = (json(folder, "primary.json"), json(folder, "secondary.json"));
    assert_eq!((&one["exit"], &other["exit"]), (&"power-off".into(), &"power-off".into()), "{other}");
    for field in ["instructions", "digest"] {
        assert!(!one[field].is_null(), "{one}");
        assert_eq!(one[field], other[field]);
    }
}
