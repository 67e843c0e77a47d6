//! The kernels of `roms/` on every engine: recorded on one, replayed on each, and on pairs of like and unlike ones, with
//! the same digests and the transcript that they must print. One test each, so that a failure has a name.
//!
//! Not responsible for guests that are whole operating systems (`matrix`).

mod pair;
mod run;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::process::ExitCode;

/// Every kernel of `roms/`, and ways from ring 3 into it where there are several
const KERNELS: &[&str] = &[
    "realmode",
    "protected",
    "paging-pse",
    "paging-pae",
    "longmode",
    "longmode:entry=ud2",
    "longmode:entry=page",
    "longmode:entry=int80",
    "longmode:entry=syscall",
    "compute",
    "lines:lines=20",
    "leaks",
];

/// One way of running a kernel
type Role = fn(&str) -> anyhow::Result<Completion>;
const ROLES: &[(&str, Role)] = &[
    ("interpreted", run::interpreted),
    ("counted_by_exits", run::counted_by_exits),
    ("kvm", run::on_kvm),
    ("paired", pair::with_kvm),
];

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for &(role, test) in ROLES {
        for &kernel in KERNELS {
            let name = format!("{role}_{kernel}").replace(['-', ':', '='], "_");
            trials.push(Trial::ignorable_test(name, move || {
                test(kernel).map_err(|error| Failed::from(format!("{error:#}")))
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
