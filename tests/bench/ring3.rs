//! What code in ring 3 costs under KVM while it is recorded: the function `work` of `roms/compute`, called by the kernel in a guest and by a
//! Linux program, in turn.
//!
//! CPU time, user and system, and not time on the wall, which on a shared host is mostly that of others. Starting costs either
//! something that has nothing to do with ring 3 (`gemel record` measures the host first): a run of one round says what, and
//! is taken off.
//!
//! Not responsible for other parts of a guest: what ring 0 costs depends on the host's KVM.

use crate::{cost, summary};
use anyhow::{Context, Result, ensure};
use gemel_system_tests::engine::Engine;
use gemel_system_tests::gemel::gemel;
use gemel_system_tests::kernel::{self, GUEST_IS_CONTENT, Kernel};
use std::fs;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);
/// Two thousand million steps of integer and SSE work: some seconds.
const ROUNDS: u32 = 2_000_000;
/// Runs of each, in turn.
const PAIRS: usize = 3;

/// Median CPU seconds of both
pub struct Measured {
    pub recorded: f64,
    pub native: f64,
}

/// Measures both. The same checksum must come of both.
pub fn measure() -> Result<Measured> {
    let native = kernel::build("native")?;
    let [short, long] = [1, ROUNDS].map(|rounds| Kernel::obtain(&format!("compute:rounds={rounds}")));
    let [short, long] = [short?, long?];
    let (mut in_guest, mut outside) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let (start, _) = recorded(&short)?;
        let (whole, printed) = recorded(&long)?;
        let (plain, finished) = cost::cpu_of(Command::new(&native).arg(ROUNDS.to_string()), LIMIT)?;
        let wanted = finished.stdout.trim_end();
        ensure!(
            !wanted.is_empty() && printed.contains(wanted),
            "natively:\n{wanted}\nin a guest:\n{printed}"
        );
        in_guest.push(whole - start);
        outside.push(plain);
    }
    Ok(Measured { recorded: summary(&in_guest).0, native: summary(&outside).0 })
}

/// CPU seconds of a guest that is recorded on KVM, and what it printed.
fn recorded(kernel: &Kernel) -> Result<(f64, String)> {
    let folder = tempfile::tempdir()?;
    let (log, serial) = (folder.path().join("log.gml"), folder.path().join("serial"));
    let mut command = gemel("record")?;
    kernel.arguments(&mut command, folder.path())?;
    command.args(Engine::Kvm.leads()).arg("-o").arg(log);
    command.arg("--serial").arg(format!("file:{}", serial.display()));
    let (cpu, finished) = cost::cpu_of(&mut command, LIMIT)?;
    ensure!(finished.status.code() == Some(GUEST_IS_CONTENT), "{}: {}", finished.status, finished.stderr);
    Ok((cpu, fs::read_to_string(&serial).context("the guest's output")?))
}
