//! What the guest `lines` must have printed, whatever happened to the machines under it.

use anyhow::{Result, bail, ensure};

/// Fewer lines than this show too little.
pub const ENOUGH: u64 = 25;

/// Checks everything that the console showed. `typed` are the lines that were typed, in order, without the last: `quit`.
pub fn check(shown: &[u8], typed: &[String]) -> Result<()> {
    let text = String::from_utf8_lossy(shown);
    let (mut printed, mut heard) = (0u64, 0);
    let (mut summary, mut done) = (None, false);
    for line in text.split("\r\n") {
        if let Some(number) = line.strip_prefix("LINE ") {
            printed += 1;
            ensure!(number == printed.to_string(), "'{line}' stands where LINE {printed} belongs");
        } else if let Some(answer) = line.strip_prefix("GOT ") {
            let wanted = typed.get(heard).map_or("nothing", String::as_str);
            ensure!(answer == wanted, "the guest heard '{answer}' where '{wanted}' was typed");
            heard += 1;
        } else if let Some(rest) = line.strip_prefix("@INFO printed ") {
            summary = Some(rest.to_owned());
        } else if line == "@OUT lines done" {
            done = true;
        }
    }
    ensure!(heard == typed.len(), "{} lines were typed, {heard} were heard", typed.len());
    ensure!(printed >= ENOUGH, "only {printed} lines");
    ensure!(
        summary.as_deref() == Some(&format!("{printed} heard {heard}")),
        "the guest counts {summary:?}, not {printed}, {heard}"
    );
    if !done {
        bail!("the guest did not come to its end");
    }
    Ok(())
}

/// Checks that this module sees every way to go wrong; run before anything is believed.
pub fn prove() {
    let typed = ["a".to_owned(), "b".to_owned()];
    let lines = |from: u32, to: u32| (from..=to).map(|n| format!("LINE {n}\r\n")).collect::<String>();
    let end = "@INFO printed 30 heard 2\r\n@OUT lines done\r\n";
    let good = format!("boot\r\n{}GOT a\r\n{}GOT b\r\n{end}", lines(1, 10), lines(11, 30));
    check(good.as_bytes(), &typed).unwrap();
    for (from, to) in [
        ("LINE 7\r\n", ""),
        ("LINE 7\r\n", "LINE 7\r\nLINE 7\r\n"),
        ("LINE 7\r\n", "LINX 7\r\n"),
        ("LINE 30\r\n", ""),
        ("GOT a\r\n", ""),
        ("GOT a\r\n", "GOT a\r\nGOT a\r\n"),
        ("GOT a", "GOT c"),
        ("@OUT lines done", ""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(check(bad.as_bytes(), &typed).is_err(), "'{from}' turned into '{to}' goes unnoticed");
    }
}
