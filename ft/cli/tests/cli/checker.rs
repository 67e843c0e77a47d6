//! A checker beside a pair, and on logs that somebody writes while it reads.
//!
//! Not responsible for: what it finds in engines with faults (`ft/diverge/tests`).

use super::pair::{Process, alphabet, start_with, wait_until};
use super::{SPIN, edit, figures, gemel, record_spin};
use gemel_log::Body;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What a checker has said so far.
fn verdicts(folder: &Path) -> Vec<Value> {
    let said = fs::read_to_string(folder.join("checker.out")).unwrap();
    // The last line may not be whole yet.
    said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The checker's last words: nothing differs, and every instruction was judged or left out.
fn check_end(folder: &Path) -> Value {
    let verdicts = verdicts(folder);
    let end = verdicts.last().unwrap();
    assert_eq!((&end["verdict"], &end["exit"]), (&"end".into(), &"log-end".into()), "{end}");
    assert_eq!(number(&end["compared"]) + number(&end["left_out"]), number(&end["instructions"]), "{end}");
    let mut to = 0;
    for passed in &verdicts[..verdicts.len() - 1] {
        assert_eq!(number(&passed["from"]), to, "{passed}");
        to = number(&passed["to"]);
    }
    end.clone()
}

#[test]
fn a_pair_is_judged_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Before there is a log; and it may take its time.
    let mut checker = Process::start(at, "checker s.gml --json --max-lag 1000000");
    let [mut primary, mut secondary, _console] = start_with(at, SPIN);
    wait_until("a verdict", || verdicts(at).iter().any(|v| v["verdict"] == "same"));
    for side in [&mut primary, &mut secondary] {
        assert!(side.0.try_wait().unwrap().is_none(), "the pair is still there");
    }
    secondary.0.kill().unwrap();
    primary.0.kill().unwrap();
    assert_eq!(checker.exit_code(), Some(8), "the log has no end");
    assert_eq!(verdicts(at).last().unwrap()["difference"], Value::Null);
}

#[test]
fn a_survivor_is_judged_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let [mut primary, mut secondary, mut console] = start_with(at, &alphabet());
    let mut checker = Process::start(at, "checker s.gml --json --every 2");
    wait_until("a verdict", || verdicts(at).iter().any(|v| v["verdict"] == "same"));
    primary.0.kill().unwrap();
    assert_eq!((console.exit_code(), secondary.exit_code()), (Some(0), Some(1)));
    assert_eq!(checker.exit_code(), Some(0));
    assert!(number(&check_end(at)["left_out"]) > 20_000_000);
}

/// A log that is held as if its writer were there.
fn held(folder: &Path, content: &[u8]) -> File {
    let mut log = File::create(folder.join("live.gml")).unwrap();
    log.lock().unwrap();
    log.write_all(content).unwrap();
    log
}

#[test]
fn a_difference_in_what_is_still_written_is_found_and_told_only_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    record_spin(at);
    edit(at, "run.gml", "wrong.gml", |entry| {
        if let (3000, Body::Digest(digest)) = (entry.at.position.count, &mut entry.body) {
            digest.ram ^= 1 << 40;
        }
        vec![entry.clone()]
    });
    let (good, wrong) = (fs::read(at.join("run.gml")).unwrap(), fs::read(at.join("wrong.gml")).unwrap());
    let same = good.iter().zip(&wrong).take_while(|(x, y)| x == y).count();
    let mut side = Process::start(at, "run --kernel kernel --serial null -m 8 --control control");
    wait_until("the control socket", || UnixStream::connect(at.join("control")).is_ok());
    let mut log = held(at, &wrong[..same]);
    let mut checker = Process::start(at, "checker live.gml --json --quit-on-difference control");
    wait_until("a verdict", || verdicts(at).iter().any(|v| v["to"] == 2000));
    assert!(checker.0.try_wait().unwrap().is_none() && side.0.try_wait().unwrap().is_none());
    log.write_all(&wrong[same..]).unwrap();
    assert_eq!(checker.exit_code(), Some(4), "though the log is still held");
    assert_eq!(side.exit_code(), Some(0), "the checker was asked to end it");

    let end = verdicts(at).pop().unwrap();
    assert_eq!((&end["verdict"], &end["instructions"]), (&"differs".into(), &3000.into()), "{end}");
    assert_eq!(end["evidence"], "live.gml.diverged");
    for file in ["report.txt", "report.json", "start.snapshot", "window.gml"] {
        assert!(at.join("live.gml.diverged").join(file).exists(), "{file}");
    }
    let (status, again) = figures(at, "verify live.gml.diverged");
    assert_eq!((status, &again["instructions"]), (Some(4), &3000.into()), "{again}");
}

#[test]
fn a_checker_that_is_behind_says_so_and_leaves_epochs_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    record_spin(at);
    let log = held(at, &fs::read(at.join("run.gml")).unwrap());
    let mut checker = Process::start(at, "checker live.gml --json --max-lag 1");
    wait_until("five epochs", || verdicts(at).len() >= 5);
    drop(log);
    assert_eq!(checker.exit_code(), Some(0));
    let end = check_end(at);
    assert_eq!((number(&end["left_out"]), number(&end["compared"])), (5000, 500), "{end}");
    assert_eq!(number(&end["most_behind"]), 4500, "{end}");
    let said = fs::read_to_string(at.join("checker.err")).unwrap();
    assert!(said.contains("5500 instructions behind: epochs are left out"), "{said}");
}

#[test]
fn a_log_that_nobody_writes_is_judged_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    record_spin(at);
    for (options, compared) in [("", 5500), ("--every 3", 2000), ("--every idle", 5500)] {
        let output = gemel(at, &format!("checker run.gml --json {options}"));
        let said = String::from_utf8_lossy(&output.stdout);
        let end: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!(
            (output.status.code(), number(&end["compared"])),
            (Some(0), compared),
            "{options}: {said}"
        );
    }
    // Cut off: its writer died.
    let content = fs::read(at.join("run.gml")).unwrap();
    fs::write(at.join("cut.gml"), &content[..content.len() - 3]).unwrap();
    assert_eq!(gemel(at, "checker cut.gml").status.code(), Some(8));
}
