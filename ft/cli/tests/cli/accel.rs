//! `--accel`: which engine is taken, what is said of it, and what is refused.

use crate::{figures, gemel, kernel, skipped};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Two exits, a loop, and 21 to the debug-exit port: exit code 2bh.
const CODE: &[u8] = &[
    0xe6, 0x80, // out 80h, al
    0xb9, 0x00, 0x10, 0x00, 0x00, // mov ecx, 1000h
    0xe2, 0xfe, // loop $
    0xe4, 0x61, // in al, 61h
    0xb0, 0x15, 0xe6, 0xf4, // mov al, 15h; out 0f4h, al
];
const ENDED: Option<i32> = Some(0x2b);

/// Every leak there is, so that a recording is refused on no host.
const CLEAR: &str = "--stays-clear tsc,cpuid,rdrand,rdseed,rdpmc,tzcnt,lzcnt,syscall,int,accessed";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("kernel"), kernel(CODE)).unwrap();
    folder
}

/// Whether this host's KVM can be tried; says why not.
fn kvm() -> bool {
    let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
    if let Err(e) = &opened {
        skipped(&format!("/dev/kvm cannot be opened: {e}"));
    }
    opened.is_ok()
}

/// Exit code, and what stood on standard error.
fn told(folder: &Path, arguments: &str) -> (Option<i32>, String) {
    let output = gemel(folder, arguments);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn auto_says_what_it_took_only_where_somebody_asks() {
    let folder = folder();
    let (code, line) = told(folder.path(), "run --kernel kernel --serial null --accel auto");
    assert_eq!(code, ENDED);
    assert!(line.lines().next().unwrap().starts_with("gemel: --accel auto takes "), "{line}");
    let (code, line) = told(folder.path(), "run --kernel kernel --serial null");
    assert!(code == ENDED && !line.contains("auto"), "{line}");
    let (code, line) = told(folder.path(), "run --kernel kernel --serial null --accel auto --clock free");
    assert!(code == ENDED && line.contains("takes the interpreter: --clock free"), "{line}");
}

#[test]
fn kvm_without_rights_is_one_line_and_auto_does_without() {
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let as_nobody = |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemel"));
        command.args(arguments.split_whitespace()).current_dir(folder.path()).stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command.output()
    };
    let mode = fs::metadata("/dev/kvm").map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o006 == 0o006) || (!rustix::process::geteuid().is_root() && kvm()) {
        return skipped("everybody may open /dev/kvm here");
    }
    let output = match as_nobody("run --kernel kernel --serial null --accel kvm") {
        Ok(output) => output,
        Err(e) => return skipped(&format!("the program cannot be run as another user: {e}")),
    };
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    assert!(line.contains("/dev/kvm") && line.contains("--accel interp"), "{line}");
    let output = as_nobody("run --kernel kernel --serial null --accel auto").unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), ENDED, "{line}");
    assert!(line.contains("takes the interpreter: KVM here: /dev/kvm cannot be opened"), "{line}");
}

/// `gemel` where the shell command `cover` has put something over /dev/kvm, which this process does not see.
fn covered(folder: &Path, cover: &str, arguments: &str) -> (Option<i32>, String) {
    let output = within(cover, env!("CARGO_BIN_EXE_gemel"), arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A program in a mount namespace of its own, in which `cover` was done first.
fn within<'a>(cover: &str, program: &str, arguments: impl Iterator<Item = &'a str>) -> Command {
    let mut command = Command::new("unshare");
    // A user who is nobody can be root in a user namespace, on most systems.
    let map: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--map-root-user"] };
    command.args(map).args(["--mount", "sh", "-c", &format!("{cover} && exec \"$@\""), "sh", program]);
    command.args(arguments).stdin(Stdio::null());
    command
}

#[test]
fn where_there_is_no_kvm_auto_does_without_and_asking_for_it_is_one_line() {
    for (cover, why) in [
        ("mount -t tmpfs none /dev", "/dev/kvm cannot be opened: No such file"),
        ("mount --bind /dev/null /dev/kvm", "/dev/kvm is no KVM"),
    ] {
        let can = within(cover, "true", std::iter::empty()).output();
        if !can.is_ok_and(|done| done.status.success()) {
            skipped(&format!("no mount namespace here for: {cover}"));
            continue;
        }
        let folder = folder();
        let gemel = |arguments: &str| covered(folder.path(), cover, arguments);
        let machine = "--kernel kernel --serial null";
        let refused = |arguments: &str| {
            let (code, line) = gemel(arguments);
            assert_eq!((code, line.lines().count()), (Some(2), 1), "{arguments}: {line}");
            assert!(line.contains(why) && line.contains("--accel interp"), "{arguments}: {line}");
        };
        let took_the_interpreter = |arguments: &str, ended: Option<i32>| {
            let (code, line) = gemel(arguments);
            let told = format!("gemel: --accel auto takes the interpreter: KVM here: {why}");
            assert!(code == ended && line.starts_with(&told), "{arguments}: {line}");
        };
        refused(&format!("run {machine} --accel kvm"));
        refused(&format!("record -o refused {machine} --accel kvm"));
        assert!(!folder.path().join("refused").exists(), "nothing is left half-written");
        took_the_interpreter(&format!("run {machine} --accel auto"), ENDED);
        took_the_interpreter(&format!("record -o log {machine} --accel auto --reckoning exits"), ENDED);
        took_the_interpreter("replay log --serial null --accel auto", Some(0));
        refused("replay log --serial null --accel kvm");
    }
}

#[test]
fn what_kvm_cannot_do_is_refused_before_the_guest_runs() {
    let folder = folder();
    let (code, line) =
        told(folder.path(), "run --kernel kernel --serial null --accel kvm --reckoning instructions");
    assert!(code == Some(2) && line.contains("KVM cannot count instructions"), "{line}");
    gemel(folder.path(), "record -o log --clock free --kernel kernel --serial null");
    let (code, line) = told(folder.path(), "replay log --accel kvm");
    assert!(code == Some(2) && line.contains("count instructions, which KVM cannot"), "{line}");
    if !kvm() {
        return;
    }
    let (code, line) = told(folder.path(), "record -o leaking --kernel kernel --serial null --accel kvm");
    assert_eq!((code, line.lines().count()), (Some(2), 1), "{line}");
    assert!(
        line.contains("RDTSC gives the host's counter") && line.contains("--cpu x86-64-v2,-tsc"),
        "{line}"
    );
    assert!(!folder.path().join("leaking").exists(), "nothing is left half-written");
}

#[test]
fn a_run_recorded_on_kvm_comes_back_on_both_engines_and_tells_what_was_asserted() {
    if !kvm() {
        return;
    }
    let folder = folder();
    let options = format!("--kernel kernel --serial null --accel kvm {CLEAR}");
    let (code, recorded) = figures(folder.path(), &format!("record -o log {options}"));
    assert_eq!((code, &recorded["exits"]), (ENDED, &Value::from(3)));
    assert!(recorded["kvm"]["assists"].is_object(), "{recorded}");
    for engine in ["kvm", "interp", "auto"] {
        let (code, replayed) = figures(folder.path(), &format!("replay log --serial null --accel {engine}"));
        assert_eq!((code, &replayed["digest"]), (Some(0), &recorded["digest"]), "{engine}: {replayed}");
        assert_eq!((&replayed["recorded_on"], &replayed["stays_clear"][0]), (&"Kvm".into(), &"tsc".into()));
    }
    let (code, line) = told(folder.path(), "replay log");
    assert!(code == Some(0) && line.contains("assertion that the guest stays clear of tsc, cpuid"), "{line}");
    let (code, line) = told(folder.path(), "verify log");
    assert!(code == Some(0) && line.contains("assertion that the guest stays clear of tsc"), "{line}");

    // The header has the host's passport, as `gemel check` writes it.
    let shown = gemel(folder.path(), "log show log --json");
    let header: Value =
        serde_json::from_slice(shown.stdout.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    let header = &header["header"];
    assert_eq!((&header["engine"], &header["count_kind"]), (&"Kvm".into(), &"Exits".into()));
    assert_eq!(header["passport"]["kvm"]["state"], "usable");
}

#[test]
fn a_machine_that_counts_exits_moves_between_engines() {
    if !kvm() {
        return;
    }
    let folder = folder();
    let (code, recorded) = figures(
        folder.path(),
        "record -o log --kernel kernel --serial null --accel interp --reckoning exits",
    );
    assert_eq!((code, &recorded["kvm"]), (ENDED, &Value::Null));
    let (code, replayed) = figures(folder.path(), "replay log --serial null --accel kvm");
    assert_eq!((code, &replayed["digest"]), (Some(0), &recorded["digest"]), "{replayed}");
    assert_eq!(
        (&replayed["recorded_on"], &replayed["stays_clear"]),
        (&"Interp".into(), &Value::Array(vec![]))
    );
}
