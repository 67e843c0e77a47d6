//! Whether the guest noticed anything, and the figures.
//!
//! Not responsible for: what happened (`scene`).

use super::Args;
use super::processes::{Folder, replay};
use super::scene::{LINES, Played};
use anyhow::Result;
use serde_json::{Value, json};
use std::process::ExitCode;

/// The numbers of the lines `line N` in what was shown, in order, and any line that looks like one and is none.
fn numbers(shown: &[u8]) -> Result<Vec<u64>, String> {
    let text = String::from_utf8_lossy(shown);
    let lines = text.lines().filter_map(|line| line.trim_end_matches('\r').strip_prefix("line "));
    lines.map(|number| number.parse().map_err(|_| format!("a line was changed: 'line {number}'"))).collect()
}

fn check_lines(shown: &[u8]) -> Result<(), String> {
    let numbers = numbers(shown)?;
    for (i, (found, wanted)) in numbers.iter().zip(1..).enumerate() {
        if *found != wanted {
            return Err(format!("line {found} stands where line {wanted} belongs, after {i} lines"));
        }
    }
    match numbers.len() as u64 {
        LINES => Ok(()),
        other => Err(format!("{other} lines of {LINES}")),
    }
}

fn milliseconds(from: Option<u64>, to: u64) -> Value {
    match from {
        Some(from) if to >= from => json!((to - from) as f64 / 1e6),
        _ => Value::Null,
    }
}

/// Judges and tells.
///
/// # Errors
/// The survivor's log cannot be replayed.
pub fn judge(args: &Args, folder: &Folder, played: Played) -> Result<ExitCode> {
    let mut complaints = Vec::new();
    if played.missed > 0 {
        complaints.push(format!("{} bytes never came", played.missed));
    }
    if played.with_shell
        && let Err(complaint) = check_lines(&played.shown)
    {
        complaints.push(complaint);
    }
    let survivor = if played.killed.is_some() { "secondary" } else { "primary" };
    println!("\nreplaying the log of the side that was live last ...");
    let replayed = replay(folder, &folder.file(&format!("{survivor}.log")))?;
    if replayed != played.shown {
        let same = replayed.iter().zip(&played.shown).take_while(|(a, b)| a == b).count();
        complaints.push(format!(
            "the console showed {} bytes, the replay {}; they differ from byte {same} on",
            played.shown.len(),
            replayed.len()
        ));
    }
    let report = if played.killed.is_some() { &played.survivor } else { &played.primary };
    let failover = report.as_ref().map(|r| r.figures.failover).unwrap_or_default();
    let log = report.as_ref().map(|r| r.log).unwrap_or_default();
    let figures = json!({
        "verified": complaints.is_empty(),
        "complaints": complaints,
        "killed": played.killed.is_some(),
        "detection_ms": milliseconds(played.killed, failover.suspected),
        "epoch_won_ms": milliseconds(played.killed, failover.claimed),
        "live_ms": milliseconds(played.killed, failover.live),
        "first_output_ms": milliseconds(played.killed, played.first_output.unwrap_or(0)),
        "lag_before_kill_ms": played.primary.as_ref().map(|r| r.figures.lag as f64 / 1e6),
        "lag_at_claim_ms": failover.lag as f64 / 1e6,
        "console_bytes": played.shown.len(),
        "log_bytes": log.total(),
        "log_bytes_by_class": log,
    });
    if args.json {
        println!("{figures}");
    } else {
        tell(&figures, &played);
    }
    Ok(ExitCode::from(u8::from(!complaints.is_empty())))
}

fn tell(figures: &Value, played: &Played) {
    let show = |what: &str, key: &str, unit: &str| match figures[key].as_f64() {
        Some(value) => println!("  {what:<44} {value:>10.3} {unit}"),
        None => println!("  {what:<44} {:>10}", "-"),
    };
    println!("from the kill to");
    show("  the secondary noticing", "detection_ms", "ms");
    show("  the epoch being its", "epoch_won_ms", "ms");
    show("  the end of the primary's log: live", "live_ms", "ms");
    show("  the first output", "first_output_ms", "ms");
    show("execution lag last seen before the kill", "lag_before_kill_ms", "ms");
    show("execution lag when the epoch was won", "lag_at_claim_ms", "ms");
    println!("  {:<44} {:>10} bytes", "log", figures["log_bytes"]);
    println!("  {:<44} {}", "log by class", figures["log_bytes_by_class"]);
    let complaints = figures["complaints"].as_array().map(Vec::as_slice).unwrap_or_default();
    for complaint in complaints {
        println!("WRONG: {}", complaint.as_str().unwrap_or_default());
    }
    if complaints.is_empty() {
        if played.with_shell {
            println!(
                "{LINES} lines: none lost, none twice, none changed; what was typed afterwards arrived."
            );
        }
        println!("a replay of the survivor's log prints byte for byte what the console showed. Verified.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
        numbers.into_iter().flat_map(|n| format!("line {n}\r\n").into_bytes()).collect()
    }

    #[test]
    fn every_way_to_go_wrong_is_seen() {
        assert_eq!(check_lines(&printed(1..=LINES)), Ok(()));
        assert!(check_lines(&printed(1..LINES)).is_err(), "lost at the end");
        assert!(check_lines(&printed((1..=LINES).filter(|n| *n != 7))).is_err(), "lost");
        assert!(check_lines(&printed((1..=7).chain(7..=LINES))).is_err(), "twice");
        let mut changed = printed(1..=LINES);
        changed[6] = b'x';
        assert!(check_lines(&changed).is_err(), "changed");
    }
}
