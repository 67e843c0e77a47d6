//! What processes cost the host. Not responsible for what they do.

use anyhow::{Context, Result};
use gemel_system_tests::child::{Bounded, Finished};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Unit of the CPU times in `/proc/PID/stat`: USER_HZ, which is 100 on every Linux for x86 (`times(2)`).
const USER_HZ: f64 = 100.0;

/// Runs `command` to a successful end and returns the CPU seconds, user and system, of it and of all that it waited for.
/// Only right while no other child of this process ends meanwhile.
pub fn cpu_of(command: &mut Command, limit: Duration) -> Result<(f64, Finished)> {
    let before = waited_for()?;
    let finished = Bounded::start(command, limit)?.finish()?;
    Ok((waited_for()? - before, finished))
}

/// CPU seconds that a running process has used by now.
pub fn cpu_so_far(id: u32) -> Result<f64> {
    // utime and stime, proc_pid_stat(5)
    sum_of_fields(&format!("/proc/{id}/stat"), 14)
}

/// CPU seconds of all children that have ended and been waited for.
fn waited_for() -> Result<f64> {
    // cutime and cstime
    sum_of_fields("/proc/self/stat", 16)
}

/// The sum of two neighbouring fields, counted from 1 as in proc_pid_stat(5), in seconds.
fn sum_of_fields(path: &str, first: usize) -> Result<f64> {
    let stat = fs::read_to_string(path)?;
    // The second field is a name in parentheses and may contain anything; the third follows the last parenthesis.
    let (_, from_third) = stat.rsplit_once(')').with_context(|| format!("{path}: no process name"))?;
    let fields: Vec<&str> = from_third.split_whitespace().collect();
    let ticks = |field: usize| -> Result<f64> {
        Ok(fields.get(field - 3).with_context(|| format!("{path}: no field {field}"))?.parse()?)
    };
    Ok((ticks(first)? + ticks(first + 1)?) / USER_HZ)
}
