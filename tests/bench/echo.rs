//! How long a typed byte takes to come back from a guest's shell. Not responsible for what the guest does otherwise.

use anyhow::{Context, Result};
use gemel_system_tests::child::Bounded;
use gemel_system_tests::gemel::gemel_with;
use gemel_system_tests::guest::Guest;
use gemel_system_tests::pair::Pair;
use gemel_system_tests::terminal::Terminal;
use std::thread::sleep;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(300);
const TYPED: u32 = 100;
/// Bytes on one line before it is cleared (Ctrl-U).
const LINE: u32 = 20;

/// Median milliseconds on the serial socket of `gemel run`.
pub fn alone(guest: &Guest) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let serial = folder.path().join("serial");
    let mut command = gemel_with("run", guest)?;
    command.arg("--serial").arg(format!("unix:{},server", serial.display()));
    let running = Bounded::start(&mut command, LIMIT)?;
    let mut terminal = Terminal::connect(&serial, LIMIT)?;
    let median = echoes(&mut terminal).with_context(|| running.printed().1)?;
    drop(running);
    Ok(median)
}

/// Median milliseconds at the console of a pair on this host.
pub fn on_a_pair(guest: &Guest) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut pair = Pair::start(|role| gemel_with(role, guest), folder.path(), LIMIT)?;
    echoes(&mut pair.terminal).with_context(|| pair.primary.printed().1)
}

fn echoes(terminal: &mut Terminal) -> Result<f64> {
    terminal.wait_for("gemel# ", LIMIT)?;
    let mut times = Vec::new();
    for number in 0..TYPED {
        if number % LINE == 0 {
            terminal.type_text("\u{15}")?;
            sleep(Duration::from_millis(300));
        }
        // At no fixed phase of the guest's timers.
        sleep(Duration::from_millis(u64::from(20 + number * 7 % 13)));
        let typed = char::from(b'a' + (number % LINE) as u8).to_string();
        let started = Instant::now();
        terminal.type_text(&typed)?;
        terminal.wait_for(&typed, LIMIT)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(crate::summary(&times).0)
}
