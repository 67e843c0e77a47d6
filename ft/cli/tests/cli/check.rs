//! `gemel check`, and CPU models that lack what a passport can name as a leak.

use crate::{figures, gemel, kernel, skipped};
use serde_json::Value;
use std::fs;

#[test]
fn the_passport_says_what_the_host_shows() {
    let folder = tempfile::tempdir().unwrap();
    let (code, told) = figures(folder.path(), "check");
    assert_eq!((code, &told["exit"]), (Some(0), &Value::from("checked")));
    let passport = &told["passport"];
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(passport["kernel"], release.trim());
    let state = passport["kvm"]["state"].as_str().unwrap();
    match fs::File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => assert!(state == "usable" || state == "broken", "{state}"),
        Err(e) => {
            skipped(&format!("what KVM does with a guest, for /dev/kvm cannot be opened: {e}"));
            assert!(state == "absent" || state == "denied", "{state}");
            assert_eq!((&told["auto"], told["leaks"].as_array().unwrap().len()), (&Value::from("interp"), 0));
            return;
        }
    }
    // Auto never takes KVM where a mode is not the CPU's own.
    let modes = passport["findings"]["modes"].as_object().unwrap();
    assert_eq!(modes.len(), 5);
    let native = |mode: &Value| mode["rate"]["found"].as_f64().is_some_and(|rate| rate >= 100.0);
    assert!(modes.values().all(native) || told["auto"] == "interp", "{told}");
    // The default model offers the TSC, and no KVM keeps it from ring 3.
    assert!(told["leaks"].as_array().unwrap().iter().any(|leak| leak["leak"] == "tsc"), "{}", told["leaks"]);
    let (_, told) = figures(folder.path(), "check --cpu x86-64-v2,-tsc");
    assert!(!told["leaks"].as_array().unwrap().iter().any(|leak| leak["leak"] == "tsc"), "{}", told["leaks"]);
}

#[test]
fn a_host_fits_itself_and_not_one_of_another_vendor() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(gemel(folder.path(), "check --json=here.json").status.code(), Some(0));
    let (code, told) = figures(folder.path(), "check --against here.json");
    assert_eq!((code, &told["comparison"]["fits"][0]["fits"]), (Some(0), &Value::from(true)));

    let here = fs::read_to_string(folder.path().join("here.json")).unwrap();
    let mut other: Value = serde_json::from_str(&here).unwrap();
    other["passport"]["cpu"]["vendor"] = "CyrixInstead".into();
    fs::write(folder.path().join("there.json"), other.to_string()).unwrap();
    let (code, told) = figures(folder.path(), "check --against there.json");
    assert_eq!((code, &told["exit"]), (Some(10), &Value::from("unlike")));
    let table = gemel(folder.path(), "check --against there.json");
    assert!(String::from_utf8_lossy(&table.stdout).contains("unlike vendors"));

    other["passport"]["version"] = 99.into();
    fs::write(folder.path().join("later.json"), other.to_string()).unwrap();
    for (file, complaint) in
        [("later.json", "version 99"), ("none.json", "cannot read"), (".", "cannot read")]
    {
        let output = gemel(folder.path(), &format!("check --against {file}"));
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2) && line.contains(complaint) && line.lines().count() == 1,
            "{line}"
        );
    }
}

#[test]
fn without_a_tsc_its_instructions_are_undefined() {
    let folder = tempfile::tempdir().unwrap();
    let to_debug_exit = [0xb0, 0x15, 0xe6, 0xf4]; // mov al, 15h; out 0f4h, al
    for code in [&[0x0f, 0x31][..], &[0x0f, 0x01, 0xf9]] {
        fs::write(folder.path().join("kernel"), kernel(&[code, &to_debug_exit].concat())).unwrap();
        let run = |cpu| {
            figures(
                folder.path(),
                &format!("run --clock free --no-reboot --kernel kernel --serial null --cpu {cpu}"),
            )
            .0
        };
        assert_eq!(run("x86-64-v2"), Some(0x2b));
        // #UD without a table of gates is a triple fault.
        assert_eq!(run("x86-64-v2,-tsc"), Some(3));
    }
}
