//! The matrix: every guest of `tests/guests` in every role, one test each, so that a failure has a name; and a table at the end.
//!
//! A part that represents the whole runs by default; `GEMEL_MATRIX=all` runs the rest as well, which otherwise counts as
//! ignored, with this reason. Runs are shared: the test of a replay replays what the test of its recording recorded.

mod pair;
mod subject;
mod table;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use subject::Subject;
use table::{Cell, Table};

/// What a guest runs as
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// `gemel run`
    Plain,
    /// `gemel record`
    Recorded,
    /// `gemel replay` of that
    Replayed,
    /// `gemel primary` and `gemel secondary`, neither of which dies
    Paired,
}
use Role::{Paired, Plain, Recorded, Replayed};
/// In the order in which they build on each other
pub const ROLES: [Role; 4] = [Plain, Recorded, Replayed, Paired];

/// Each guest, with `+MODEL` where it runs on another CPU model, which the host must be able to run; and the roles in which it runs
/// by default
const GUESTS: &[(&str, &[Role])] = &[
    ("boot-cloud", &ROLES),
    ("boot-amd64", &[]),
    ("boot-686", &[]),
    ("boot-686-pae", &[]),
    ("cpu-int", &[Plain]),
    ("cpu-fp", &[]),
    ("boot-cloud+x86-64-v3", &[]),
    ("cpu-fp+x86-64-v3", &[]),
    ("cpu-fp+x86-64-v4", &[]),
    ("syscall", &[]),
    ("forkexec", &[]),
    ("pagefault", &[]),
    ("disk-virtio", &[Recorded, Replayed]),
    ("idle", &[Plain]),
    ("interact", &[Recorded, Replayed, Paired]),
    ("lines", &[Recorded, Replayed]),
    ("reboot", &[Recorded, Replayed, Paired]),
    ("shell", &[Paired]),
    ("apps-run", &[]),
    ("apps-systemd", &[]),
];

fn main() -> ExitCode {
    let everything = std::env::var("GEMEL_MATRIX").is_ok_and(|value| value == "all");
    let mut trials = Vec::new();
    let table = Arc::new(Table::new(GUESTS.len()));
    for (row, &(guest, by_default)) in GUESTS.iter().enumerate() {
        let due = |role| everything || by_default.contains(&role);
        let subject = Arc::new(Subject::new(guest, due(Plain)));
        for role in ROLES {
            let (subject, table) = (Arc::clone(&subject), Arc::clone(&table));
            let name = format!("{role:?}_{guest}").to_lowercase().replace(['-', '+'], "_");
            let is_due = due(role);
            trials.push(Trial::ignorable_test(name, move || {
                if !is_due {
                    return Ok(Completion::ignored_with(
                        "not in the default part of the matrix: GEMEL_MATRIX=all",
                    ));
                }
                let started = Instant::now();
                let result = subject.test(role);
                table.enter(row, role, Cell::of(&result, started.elapsed()));
                result.map(|_| Completion::Completed).map_err(|error| Failed::from(format!("{error:#}")))
            }));
        }
    }
    let arguments = Arguments::from_args();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        table.print(GUESTS.iter().map(|(guest, _)| *guest));
    }
    conclusion.exit_code()
}
