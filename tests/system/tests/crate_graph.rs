//! The seam between the machine and its roles, asserted: who may use whom, what may be linked in, and which words stay out.

#![allow(clippy::unwrap_used)] // a test that cannot read its input has failed

use gemel_system_tests::repository;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The product's crates, and which others of them each may name. Transitive uses are listed: naming what lies further down the
/// same chain is allowed. `gemel` is the command line.
const MAY_USE: &[(&str, &[&str])] = &[
    ("gemel-x86", &[]),
    ("gemel-machine", &["gemel-x86"]),
    ("gemel-interp", &["gemel-machine", "gemel-x86"]),
    ("gemel-kvm", &["gemel-machine", "gemel-x86"]),
    ("gemel-jit", &["gemel-machine", "gemel-x86"]),
    ("gemel-devices", &["gemel-machine", "gemel-x86"]),
    ("gemel-log", &["gemel-machine", "gemel-x86"]),
    ("gemel-host", &["gemel-machine", "gemel-x86"]),
    // Frames, sockets and nothing of a machine.
    ("gemel-net", &[]),
    ("gemel-replay", &["gemel-log", "gemel-machine", "gemel-x86"]),
    ("gemel-pair", &["gemel-replay", "gemel-log", "gemel-machine", "gemel-x86"]),
    ("gemel-diverge", &["gemel-replay", "gemel-log", "gemel-machine", "gemel-x86"]),
    (
        "gemel",
        &[
            "gemel-pair",
            "gemel-diverge",
            "gemel-replay",
            "gemel-log",
            "gemel-host",
            "gemel-net",
            "gemel-devices",
            "gemel-interp",
            "gemel-kvm",
            "gemel-jit",
            "gemel-machine",
            "gemel-x86",
        ],
    ),
    // The interpreter against the CPU under the tests, one instruction at a time.
    ("gemel-isa-tests", &["gemel-interp", "gemel-machine", "gemel-x86"]),
    // The manuals' tables of the system side, asked of the interpreter and of silicon.
    ("gemel-table-tests", &["gemel-interp", "gemel-kvm", "gemel-machine", "gemel-x86"]),
    // Feeds the machine what no guest in its right mind would.
    ("gemel-fuzz", &["gemel-devices", "gemel-interp", "gemel-machine", "gemel-x86"]),
    // Sees the product from outside, as a user does.
    ("gemel-system-tests", &[]),
    // Hands one run from engine to engine, which takes all of a machine.
    (
        "gemel-hop-tests",
        &[
            "gemel-system-tests",
            "gemel-replay",
            "gemel-log",
            "gemel-host",
            "gemel-devices",
            "gemel-interp",
            "gemel-kvm",
            "gemel-machine",
            "gemel-x86",
        ],
    ),
];

/// What a crate's tests may use beyond that. Nothing of it reaches a user.
const TESTS_MAY_ALSO_USE: &[(&str, &[&str])] = &[
    // Real guests boot with and without caches, which takes a board and the guests' images.
    ("gemel-interp", &["gemel-devices", "gemel-system-tests"]),
    // Differences are put into a real engine on a real board, and must be found there; silicon says who is right.
    ("gemel-diverge", &["gemel-devices", "gemel-interp", "gemel-isa-tests"]),
    // Its simulation runs it with deliberate mistakes, which a feature switches on.
    ("gemel-pair", &["gemel-pair"]),
    // The same guest runs on both engines, and every access must be the same; the interpreter is the assistant, too.
    ("gemel-kvm", &["gemel-interp", "gemel-devices"]),
];

/// Crates that call the kernel, or bring their C and assembly along, not a C library that would have to be installed.
/// `defmt` stands in the graph for a feature of smoltcp that is off (`defmt?/alloc`); it is never built.
const NOT_FOREIGN: &[&str] = &["libc", "linux-raw-sys", "ring", "defmt"];

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn members(metadata: &Value) -> Vec<&Value> {
    let ids = metadata["workspace_members"].as_array().unwrap();
    metadata["packages"].as_array().unwrap().iter().filter(|package| ids.contains(&package["id"])).collect()
}

#[test]
fn crates_use_only_what_the_design_allows() {
    let metadata = metadata();
    let members = members(&metadata);
    let names: BTreeSet<&str> = members.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let may_use: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let in_tests: BTreeMap<&str, &[&str]> = TESTS_MAY_ALSO_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &members {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = may_use.get(name) else {
            wrong.push(format!("{name} is not in the graph: decide what it may use"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let test_only =
                dependency["kind"] == "dev" && in_tests.get(name).is_some_and(|also| also.contains(&used));
            if names.contains(used) && !allowed.contains(&used) && !test_only {
                wrong.push(format!("{name} may not use {used}"));
            }
        }
    }
    assert!(names.len() > 5, "cargo metadata lists only {names:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_crate_needs_a_foreign_library() {
    let metadata = metadata();
    let packages: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package))
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let mut todo: Vec<&str> =
        members(&metadata).iter().map(|package| package["id"].as_str().unwrap()).collect();
    let mut seen = BTreeSet::new();
    let mut wrong = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        let name = packages[id]["name"].as_str().unwrap();
        let foreign = name.ends_with("-sys") || !packages[id]["links"].is_null();
        if foreign && !NOT_FOREIGN.contains(&name) {
            wrong.insert(name);
        }
        // What only tests use does not reach a user.
        let reaches_user =
            |edge: &&Value| edge["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev");
        let edges = nodes[id]["deps"].as_array().unwrap().iter().filter(reaches_user);
        todo.extend(edges.map(|edge| edge["pkg"].as_str().unwrap()));
    }
    assert!(seen.len() > 20, "the closure has only {seen:?}");
    assert!(wrong.is_empty(), "these need a library that is not Rust: {wrong:?}");
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Whether a word of `line` starts with one of the roles' names, in any case.
fn names_a_role(line: &str) -> bool {
    let line = line.to_lowercase();
    ["record", "replay", "primary", "secondary"].iter().any(|role| {
        line.match_indices(role)
            .any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
    })
}

#[test]
fn the_machine_does_not_know_its_role() {
    assert!(
        names_a_role("/// Records it")
            && names_a_role("x.replay()")
            && !names_a_role("a prerecorded tape_record")
    );
    let mut files = Vec::new();
    for folder in ["emu", "accel", "devices"] {
        let folder = repository().join(folder);
        if folder.exists() {
            rust_files(&folder, &mut files);
        }
    }
    assert!(files.len() > 10, "only {files:?}");
    let mut wrong = Vec::new();
    for file in files {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            if names_a_role(line) {
                wrong.push(format!("{}:{}: {line}", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "words of ft/ below the seam:\n{}", wrong.join("\n"));
}
